//! The engine itself: ping, version, info, and how API versions are agreed on.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::Answer;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, ping_tells_the_api_version),
    case!(Engine, version_has_the_documented_fields),
    case!(Engine, info_counts_containers_and_images),
    case!(Engine, a_version_that_is_too_new_or_too_old_is_refused),
    case!(Engine, an_unversioned_path_means_the_newest_version),
    case!(Engine, an_unknown_path_is_404),
    case!(Engine, what_an_engine_cannot_do_yet_it_names),
    case!(Swarm, what_a_service_cannot_have_yet_is_named),
];

/// The engine's clock, as it prints times.
///
/// # Errors
/// The engine refuses.
pub fn now(cx: &Cx<'_>) -> Result<String> {
    Ok(text(&cx.get("/info")?.json()?["SystemTime"]))
}

fn ping_tells_the_api_version(cx: &Cx<'_>) -> Result<()> {
    let address = &cx.engine.address;
    let answer = address.request("GET", "/_ping", &[], b"")?;
    same!((answer.status, answer.text().as_str()), (200, "OK"), "answer");
    same!(answer.header("ostype"), Some("linux"), "system");
    same!(answer.header("cache-control"), Some("no-cache, no-store, must-revalidate"), "caching");
    ensure!(
        answer.header("api-version").is_some_and(|version| version.starts_with("1.")),
        "version {:?}",
        answer.header("api-version")
    );
    let head = address.request("HEAD", "/_ping", &[], b"")?;
    same!((head.status, head.header("api-version")), (200, answer.header("api-version")), "answer to HEAD");
    Ok(())
}

fn version_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let version = cx.get("/version")?.json()?;
    for field in ["Version", "ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion"] {
        ensure!(!text(&version[field]).is_empty(), "{field} is missing: {version}");
    }
    same!(version["Os"], "linux", "system");
    let names: Vec<String> =
        version["Components"].as_array().into_iter().flatten().map(|part| text(&part["Name"])).collect();
    ensure!(names.first().is_some_and(|name| name == "Engine"), "components {names:?}");
    Ok(())
}

fn info_counts_containers_and_images(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let info = cx.get("/info")?.json()?;
    let count = |field: &str| info[field].as_u64().unwrap_or_default();
    ensure!(
        count("ContainersRunning") >= 1 && count("Containers") >= count("ContainersRunning"),
        "{} of {}",
        info["ContainersRunning"],
        info["Containers"]
    );
    ensure!(count("Images") >= 2 && count("NCPU") >= 1 && count("MemTotal") > 1 << 24, "{info}");
    same!(info["OSType"], "linux", "system");
    ensure!(["1", "2"].contains(&text(&info["CgroupVersion"]).as_str()), "cgroup version {}", info["CgroupVersion"]);
    for field in [
        "ID",
        "Name",
        "KernelVersion",
        "OperatingSystem",
        "Architecture",
        "ServerVersion",
        "Driver",
        "DockerRootDir",
        "SystemTime",
        "LoggingDriver",
    ] {
        ensure!(!text(&info[field]).is_empty(), "{field} is missing");
    }
    ensure!(
        info["Plugins"]["Volume"].as_array().is_some_and(|drivers| drivers.contains(&Value::from("local"))),
        "{}",
        info["Plugins"]
    );
    cx.delete(&format!("/containers/{id}?force=1"))?.status(204).map(drop)
}

fn a_version_that_is_too_new_or_too_old_is_refused(cx: &Cx<'_>) -> Result<()> {
    let address = &cx.engine.address;
    let new = address.request("GET", "/v9.99/info", &[], b"")?;
    new.refused(400, "client version 9.99 is too new. Maximum supported API version is 1.")?;
    let old = address.request("GET", "/v1.0/info", &[], b"")?;
    // the oldest clients were answered in plain text
    ensure!(
        old.status == 400 && old.text().contains("client version 1.0 is too old. Minimum supported API version is 1."),
        "{} {}",
        old.status,
        old.text()
    );
    Ok(())
}

fn an_unversioned_path_means_the_newest_version(cx: &Cx<'_>) -> Result<()> {
    let answer = cx.engine.address.request("GET", "/info", &[], b"")?;
    same!(
        answer.header("api-version"),
        Some(text(&cx.get("/version")?.json()?["ApiVersion"]).as_str()),
        "version header"
    );
    same!(answer.json()?["OSType"], "linux", "answer");
    Ok(())
}

fn an_unknown_path_is_404(cx: &Cx<'_>) -> Result<()> {
    cx.get("/no/such/path")?.refused(404, "page not found")?;
    let answer = cx.engine.address.request("GET", "/nosuchpath", &[], b"")?;
    answer
        .refused(404, "page not found")
        .map_err(|error| Failure::wrong(format!("without a version: {error}")))
        .map(drop)
}

/// Either the engine does it, or it says with 501 what it cannot do.
fn done_or_named(answer: Answer, what: &str, word: &str) -> Result<()> {
    let unknown = answer.status == 404 && answer.text().contains("page not found");
    ensure!(!unknown, "{what} is an unknown path");
    if answer.status == 501 {
        let message = text(&serde_json::from_slice::<Value>(&answer.body)?["message"]);
        ensure!(message.to_lowercase().contains(word), "{what} is refused without a word of it: {message:?}");
    }
    Ok(())
}

fn what_an_engine_cannot_do_yet_it_names(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    for (path, word) in [
        ("/secrets".to_owned(), "secret"),
        ("/configs".to_owned(), "config"),
        ("/plugins".to_owned(), "plugin"),
        ("/system/df".to_owned(), "df"),
        (format!("/containers/{id}/top"), "top"),
        (format!("/containers/{id}/changes"), "diff"),
        (format!("/containers/{id}/stats?stream=0&one-shot=1"), "stats"),
        (format!("/containers/{id}/archive?path=/etc/passwd"), "c"),
        ("/images/busybox/history".to_owned(), "history"),
        ("/distribution/127.0.0.1:1/x/json".to_owned(), "distribution"),
    ] {
        done_or_named(cx.get(&path)?, &path, word)?;
    }
    for (path, word) in [
        (format!("/containers/{id}/pause"), "pause"),
        (format!("/containers/{id}/unpause"), "unpause"),
        (format!("/containers/{id}/rename?name={}", cx.name("other")), "rename"),
        ("/containers/prune?filters=%7B%22label%22%3A%5B%22nosuchlabel%22%5D%7D".to_owned(), "prune"),
        ("/build".to_owned(), "build"),
        ("/session".to_owned(), "build"),
        ("/auth".to_owned(), "login"),
    ] {
        done_or_named(cx.act(&path)?, &path, word)?;
    }
    Ok(())
}

fn what_a_service_cannot_have_yet_is_named(cx: &Cx<'_>) -> Result<()> {
    let secret = json!([{"SecretID": "nosuchsecret", "SecretName": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}}]);
    let config = json!([{"ConfigID": "nosuchconfig", "ConfigName": "c", "File": {"Name": "c", "UID": "0", "GID": "0", "Mode": 292}}]);
    for (change, word) in [
        (json!({"TaskTemplate": {"ContainerSpec": {"Secrets": secret}}}), "secret"),
        (json!({"TaskTemplate": {"ContainerSpec": {"Configs": config}}}), "config"),
        (json!({"TaskTemplate": {"Networks": [{"Target": "nosuchnetwork"}]}}), "network"),
    ] {
        let answer = cx.try_service("svc", change.clone())?;
        ensure!(answer.status >= 400, "{change} was accepted: {}", answer.text());
        ensure!(answer.text().to_lowercase().contains(word), "{change}: {} {}", answer.status, answer.text());
    }
    Ok(())
}
