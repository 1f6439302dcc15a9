//! What no proper client would send: the engine answers and goes on, and nothing half-made stays.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Api;
use crate::cx::Cx;
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::Answer;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, malformed_json_is_a_bad_request, since 1, 42),
    case!(Engine, malformed_json_is_refused),
    case!(Engine, a_value_of_the_wrong_type_is_refused),
    case!(Swarm, a_service_value_of_the_wrong_type_is_refused),
    case!(Engine, a_body_that_is_not_json_is_refused),
    case!(Engine, a_hundred_megabytes_of_body_do_no_harm),
    case!(Engine, half_a_request_does_no_harm),
    case!(Engine, an_absurd_content_length_does_no_harm),
    case!(Engine, bytes_that_are_not_http_do_no_harm),
    case!(Engine, an_endless_path_does_no_harm),
    case!(Engine, idle_connections_keep_nobody_waiting),
    case!(Engine, impossible_containers_are_refused),
    case!(Engine, a_bad_query_value_is_refused),
    case!(Engine, bad_filters_are_refused),
];

impl Cx<'_> {
    fn send(&self, path: &str, body: &[u8]) -> Result<Answer> {
        let path = format!("/v{}{path}", self.engine.api);
        Ok(self.engine.address.request("POST", &path, &[("Content-Type", "application/json")], body)?)
    }

    /// Sends bytes as they are, whatever the engine does with them; its answer so far as there is one.
    fn throw(&self, bytes: &[u8]) -> Result<String> {
        let mut connection = self.engine.address.connect()?;
        // the engine may hang up in the middle
        let sent = connection.write_all(bytes).and_then(|()| connection.shutdown(std::net::Shutdown::Write));
        connection.set_read_timeout(Duration::from_secs(20))?;
        let mut answer = Vec::new();
        match connection.read_to_end(&mut answer) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset && sent.is_ok() => Err(error.into()),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    /// The engine answers, and has no container of this test.
    fn unharmed(&self) -> Result<()> {
        same!(self.engine.address.request("GET", "/_ping", &[], b"")?.status, 200, "status of a ping");
        let left = self.engine.list("/containers/json?all=1", &json!({"name": [self.name("")]}))?;
        same!(left.len(), 0, "containers that are left");
        Ok(())
    }
}

/// A refusal with a message, whatever the status.
fn refused(answer: &Answer, statuses: &[u16]) -> Result<()> {
    let message = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(statuses.contains(&answer.status) && !message.is_empty(), "answered {} {:?}", answer.status, answer.text());
    Ok(())
}

const BROKEN: &[&[u8]] = &[
    b"{",
    b"",
    b"[]",
    b"nonsense",
    b"{\"Image\": \"busybox\"",
    b"{\"Image\": \"busy\x00box\"}",
    b"\"text\"",
    b"{\"Image\"}",
];

fn malformed_json_is_a_bad_request(cx: &Cx<'_>) -> Result<()> {
    for body in BROKEN {
        let answer = cx.send(&format!("/containers/create?name={}", cx.name("c")), body)?;
        refused(&answer, &[400])
            .map_err(|error| Failure::wrong(format!("{:?}: {error}", String::from_utf8_lossy(body))))?;
    }
    cx.unharmed()
}

fn malformed_json_is_refused(cx: &Cx<'_>) -> Result<()> {
    for body in BROKEN {
        let answer = cx.send(&format!("/containers/create?name={}", cx.name("c")), body)?;
        refused(&answer, &[400, 500])
            .map_err(|error| Failure::wrong(format!("{:?}: {error}", String::from_utf8_lossy(body))))?;
    }
    cx.unharmed()
}

fn a_value_of_the_wrong_type_is_refused(cx: &Cx<'_>) -> Result<()> {
    for change in [
        json!({"Image": 5}),
        json!({"Cmd": {"a": 1}}),
        json!({"Env": "A=B"}),
        json!({"HostConfig": {"Memory": "lots"}}),
        json!({"HostConfig": {"Memory": 1.5}}),
        json!({"HostConfig": []}),
        json!({"Labels": ["a"]}),
        json!({"Tty": "yes"}),
        json!({"Healthcheck": {"Interval": "5s"}}),
        json!({"HostConfig": {"PortBindings": {"80/tcp": "8080"}}}),
    ] {
        let answer = cx.try_create("c", change.clone())?;
        refused(&answer, &[400, 500]).map_err(|error| Failure::wrong(format!("{change}: {error}")))?;
    }
    cx.unharmed()
}

fn a_service_value_of_the_wrong_type_is_refused(cx: &Cx<'_>) -> Result<()> {
    for change in [
        json!({"Mode": {"Replicated": {"Replicas": -1}}}),
        json!({"Mode": {"Replicated": {"Replicas": "three"}}}),
        json!({"Mode": {"Replicated": {"Replicas": 1.5}}}),
        json!({"UpdateConfig": {"Delay": "10s"}}),
        json!({"TaskTemplate": {"RestartPolicy": {"Delay": "banana"}}}),
        json!({"TaskTemplate": {"ContainerSpec": {"StopGracePeriod": "1m"}}}),
        json!({"TaskTemplate": "x"}),
        json!({"Labels": 1}),
    ] {
        let answer = cx.try_service("svc", change.clone())?;
        refused(&answer, &[400, 500]).map_err(|error| Failure::wrong(format!("{change}: {error}")))?;
    }
    same!(cx.engine.list("/services", &json!({"name": [cx.name("svc")]}))?.len(), 0, "services that are left");
    Ok(())
}

fn a_body_that_is_not_json_is_refused(cx: &Cx<'_>) -> Result<()> {
    let path = format!("/v{}/containers/create?name={}", cx.engine.api, cx.name("c"));
    let answer =
        cx.engine.address.request("POST", &path, &[("Content-Type", "text/plain")], br#"{"Image": "busybox"}"#)?;
    answer.refused(400, "must be 'application/json'")?;
    cx.unharmed()
}

fn a_hundred_megabytes_of_body_do_no_harm(cx: &Cx<'_>) -> Result<()> {
    let mut body = br#"{"Image": ""#.to_vec();
    body.resize(100_000_000, b'a');
    body.extend_from_slice(br#""}"#);
    // an engine may hang up instead of reading all of it
    if let Ok(answer) = cx.send(&format!("/containers/create?name={}", cx.name("c")), &body) {
        ensure!(answer.status >= 400, "answered {} {}", answer.status, answer.text());
    }
    cx.unharmed()
}

fn half_a_request_does_no_harm(cx: &Cx<'_>) -> Result<()> {
    let head = format!("POST /v{}/containers/create?name={} HTTP/1.1\r\nHost: engine\r\n", cx.engine.api, cx.name("c"));
    let body = r#"{"Image": "busybox:latest"}"#;
    for request in [
        "POST /containers/cre".to_owned(),
        head.clone(),
        format!("{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"),
        format!("{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"Image\": \"busy"),
        format!("{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{{\"Im"),
        format!("{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let answer = cx.throw(request.as_bytes())?;
        ensure!(!answer.starts_with("HTTP/1.1 2"), "{request:?} was answered {answer:?}");
    }
    cx.unharmed()
}

fn an_absurd_content_length_does_no_harm(cx: &Cx<'_>) -> Result<()> {
    for length in ["99999999999999999999999", "9223372036854775807", "-1", "abc", "0x10", "1, 2", ""] {
        let request = format!(
            "POST /v{}/containers/create?name={} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{}}",
            cx.engine.api,
            cx.name("c")
        );
        let answer = cx.throw(request.as_bytes())?;
        ensure!(!answer.starts_with("HTTP/1.1 2"), "length {length:?} was answered {answer:?}");
    }
    cx.unharmed()
}

fn bytes_that_are_not_http_do_no_harm(cx: &Cx<'_>) -> Result<()> {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n",
        &[0xff; 5000],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ] {
        let answer = cx.throw(bytes)?;
        ensure!(!answer.contains(" 200 "), "{bytes:?} was answered {answer:?}");
    }
    for path in [
        "/containers/%zz/json",
        "/containers/a%00b/json",
        "/containers/..%2f..%2fetc/json",
        "/images/%2e%2e/json",
        "/containers//json",
    ] {
        let answer = cx.throw(
            format!("GET /v{}{path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n", cx.engine.api).as_bytes(),
        )?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or_default();
        ensure!((300..=404).contains(&status), "{path} was answered {answer:?}");
    }
    cx.unharmed()
}

fn an_endless_path_does_no_harm(cx: &Cx<'_>) -> Result<()> {
    let long = "a".repeat(4_000_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: engine\r\n\r\n"),
        format!("GET /_ping HTTP/1.1\r\nHost: engine\r\nX: {long}\r\n\r\n"),
    ] {
        let answer = cx.throw(request.as_bytes())?;
        ensure!(!answer.starts_with("HTTP/1.1 2"), "answered {:?}", answer.get(..60));
    }
    cx.unharmed()
}

fn idle_connections_keep_nobody_waiting(cx: &Cx<'_>) -> Result<()> {
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut connection = cx.engine.address.connect()?;
        connection.write_all(b"GET /inf")?;
        idle.push(connection);
    }
    let id = cx.create("c", json!({"Cmd": ["true"]}))?;
    cx.delete(&format!("/containers/{id}"))?.status(204)?;
    drop(idle);
    cx.unharmed()
}

fn impossible_containers_are_refused(cx: &Cx<'_>) -> Result<()> {
    let cases: &[(Value, u16, &str)] = &[
        (json!({"Image": "nosuchimage"}), 404, "No such image: nosuchimage:latest"),
        (json!({"Image": "No/Such:Image:x"}), 400, "invalid reference format"),
        (json!({"Image": ""}), 400, ""),
        (json!({"Env": ["=x"]}), 400, "invalid environment variable"),
        (json!({"StopSignal": "SIGNOSUCH"}), 400, "nvalid signal: SIGNOSUCH"),
        (json!({"Entrypoint": [""], "Cmd": []}), 400, "o command specified"),
        (
            json!({"WorkingDir": "relative"}),
            400,
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        (json!({"HostConfig": {"Memory": 1000}}), 400, "inimum memory limit"),
        (json!({"HostConfig": {"NanoCpus": 1_000_000_000_000_000_u64}}), 400, "ange of CPUs is from 0.01 to"),
        (json!({"HostConfig": {"Binds": ["/no/such:relative"]}}), 400, "invalid"),
        (json!({"HostConfig": {"Binds": ["/a:/b:sideways"]}}), 400, "invalid mode: sideways"),
        (json!({"HostConfig": {"Binds": ["/usr:/a", "/usr:/a"]}}), 400, "Duplicate mount point: /a"),
        (
            json!({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/no/such", "Target": "/a"}]}}),
            400,
            "bind source path does not exist: /no/such",
        ),
        (json!({"HostConfig": {"Mounts": [{"Type": "volume", "Source": "/x/y", "Target": "/a"}]}}), 400, "invalid"),
        (json!({"HostConfig": {"Mounts": [{"Type": "nosuch", "Target": "/a"}]}}), 400, "mount type unknown"),
        (json!({"HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}), 400, "invalid restart policy"),
        (
            json!({"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}}),
            400,
            "maximum retry count",
        ),
        (
            json!({"HostConfig": {"RestartPolicy": {"Name": "always"}, "AutoRemove": true}}),
            400,
            "an't create 'AutoRemove' container with restart policy",
        ),
        (json!({"HostConfig": {"CapAdd": ["NOSUCH"]}}), 400, "unknown capability: \"CAP_NOSUCH\""),
        (
            json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}}),
            400,
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            json!({"Healthcheck": {"Test": ["CMD", "true"], "Retries": -1}}),
            400,
            "Retries in Healthcheck cannot be negative",
        ),
    ];
    let mut wrong = Vec::new();
    for (change, status, text) in cases {
        let answer = cx.try_create("c", change.clone())?;
        // engines of old took some mistakes of the client for their own
        let status = if answer.status == 500 && cx.engine.api < Api(1, 44) { 500 } else { *status };
        if let Err(error) = answer.refused(status, text) {
            wrong.push(format!("{change}: {error}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n    "));
    cx.unharmed()
}

fn a_bad_query_value_is_refused(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["true"]}))?;
    for path in [format!("/containers/{id}/stop?t=soon"), format!("/containers/{id}/resize?h=x&w=y")] {
        let answer = cx.act(&path)?;
        refused(&answer, &[400, 500]).map_err(|error| Failure::wrong(format!("{path}: {error}")))?;
    }
    if cx.engine.api >= Api(1, 44) {
        cx.act(&format!("/containers/{id}/wait?condition=sometime"))?
            .refused(400, "invalid condition: \"sometime\"")?;
    }
    let answer = cx.get("/containers/json?limit=some")?;
    refused(&answer, &[400, 500])?;
    cx.delete(&format!("/containers/{id}"))?.status(204)?;
    cx.unharmed()
}

fn bad_filters_are_refused(cx: &Cx<'_>) -> Result<()> {
    for path in ["/containers/json", "/images/json", "/volumes"] {
        let query = crate::http::encode(r#"{"foo":["x"]}"#);
        let answer = cx.get(&format!("{path}?filters={query}"))?.status(400)?;
        ensure!(answer.text().to_lowercase().contains("invalid filter 'foo'"), "{path}: {}", answer.text());
        let broken = cx.get(&format!("{path}?filters=%7Bbroken"))?;
        refused(&broken, &[400, 500]).map_err(|error| Failure::wrong(format!("{path}: {error}")))?;
    }
    for bad in [r#"{"status":["nosuch"]}"#, r#"{"health":["nosuch"]}"#, r#"{"exited":["x"]}"#] {
        let answer = cx.get(&format!("/containers/json?filters={}", crate::http::encode(bad)))?;
        refused(&answer, &[400, 500]).map_err(|error| Failure::wrong(format!("{bad}: {error}")))?;
    }
    Ok(())
}
