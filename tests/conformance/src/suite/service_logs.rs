//! Logs of services and tasks.

use serde_json::json;

use crate::cx::{Cx, demultiplex, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_069_service_logs_merge_streams_with_details),
    case!(Swarm, item_070_tail_counts_for_each_task),
    case!(Swarm, service_logs_can_be_followed),
    case!(Swarm, service_logs_include_ended_tasks),
    case!(Swarm, service_logs_refuse_bad_parameters),
    case!(Swarm, service_logs_need_a_stream, since 1, 44),
    case!(Swarm, service_logs_of_a_task_without_a_node_say_so),
    case!(Swarm, service_logs_since_and_timestamps),
    case!(Swarm, service_logs_name_their_content_type, since 1, 42),
];

const TALK: &str = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 1000";

impl Cx<'_> {
    /// Waits until the log has this many lines; its lines, sorted.
    fn log_lines(&self, path: &str, count: usize) -> Result<Vec<String>> {
        self.until(&format!("{count} log lines"), || {
            let output = demultiplex(&self.get(path)?.ok()?.body)?;
            let mut lines: Vec<String> = output.out.lines().chain(output.err.lines()).map(str::to_owned).collect();
            lines.sort();
            ensure!(lines.len() == count, "{} lines: {lines:?}", lines.len());
            Ok(lines)
        })
    }
}

fn item_069_service_logs_merge_streams_with_details(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("svc", TALK, json!({}))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    cx.log_lines(&format!("/services/{service}/logs?stdout=1&stderr=1"), 6)?;
    let details = format!(
        "com.docker.swarm.node.id={},com.docker.swarm.service.id={service},com.docker.swarm.task.id={} ",
        cx.node_id()?,
        text(&task["ID"])
    );
    for path in [
        format!("/services/{service}/logs"),
        format!("/tasks/{}/logs", text(&task["ID"])),
        format!("/services/{}/logs", cx.name("svc")),
    ] {
        let output = demultiplex(&cx.get(&format!("{path}?stdout=1&stderr=1&details=1"))?.ok()?.body)?;
        let wanted = |stream: &str| (1..=3).map(|i| format!("{details}{stream} {i}\n")).collect::<String>();
        same!((output.out, output.err), (wanted("out"), wanted("err")), "{path}");
    }
    let only = demultiplex(&cx.get(&format!("/services/{service}/logs?stderr=1"))?.ok()?.body)?;
    same!((only.out.as_str(), only.err.as_str()), ("", "err 1\nerr 2\nerr 3\n"), "only one stream");
    Ok(())
}

fn item_070_tail_counts_for_each_task(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service(
        "svc",
        "for i in 1 2 3; do echo line $i; done; sleep 1000",
        json!({"Mode": {"Replicated": {"Replicas": 3}}}),
    )?;
    cx.wait_running(&service, 3)?;
    cx.log_lines(&format!("/services/{service}/logs?stdout=1"), 9)?;
    same!(
        cx.log_lines(&format!("/services/{service}/logs?stdout=1&tail=1"), 3)?,
        ["line 3", "line 3", "line 3"],
        "last lines"
    );
    cx.log_lines(&format!("/services/{service}/logs?stdout=1&tail=all"), 9)?;
    Ok(())
}

fn service_logs_can_be_followed(cx: &Cx<'_>) -> Result<()> {
    let line = "echo first; while ! test -e /tmp/go; do sleep 0.1; done; echo second; sleep 1000";
    let service = cx.shell_service("svc", line, json!({}))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    let mut stream = cx.engine.open("GET", &format!("/services/{service}/logs?stdout=1&follow=1"), &[], b"")?;
    let first = stream.line()?.unwrap_or_default();
    ensure!(first.ends_with("first"), "first line {first:?}");
    cx.exec(&text(&task["Status"]["ContainerStatus"]["ContainerID"]), &["touch", "/tmp/go"], json!({}))?;
    let second = stream.line()?.unwrap_or_default();
    ensure!(second.ends_with("second"), "second line {second:?}");
    Ok(())
}

fn service_logs_include_ended_tasks(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service(
        "svc",
        "echo said; exit 1",
        json!({"TaskTemplate": {"RestartPolicy": {"Condition": "none"}}}),
    )?;
    cx.wait_task(&service, "the task fails", |task| task["Status"]["State"] == "failed")?;
    cx.log_lines(&format!("/services/{service}/logs?stdout=1"), 1).map(drop)
}

fn service_logs_refuse_bad_parameters(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 0}}}))?;
    cx.get(&format!("/services/{service}/logs?stdout=1&tail=-1"))?
        .refused(500, "negative tail values not supported")?;
    cx.get(&format!("/services/{service}/logs?stdout=1&tail=some"))?
        .refused(500, "tail value must be a positive integer or \"all\"")?;
    cx.get("/services/nosuchservice/logs?stdout=1")?.refused(404, "service nosuchservice not found")?;
    cx.get("/tasks/nosuchtask/logs?stdout=1")?.refused(404, "task nosuchtask not found").map(drop)
}

fn service_logs_need_a_stream(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 0}}}))?;
    cx.get(&format!("/services/{service}/logs"))?
        .refused(400, "must specify at least one of 'stdout' or 'stderr'")
        .map(drop)
}

fn service_logs_of_a_task_without_a_node_say_so(cx: &Cx<'_>) -> Result<()> {
    let service =
        cx.service("svc", json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.zone==mars"]}}}))?;
    let task = cx.wait_task(&service, "the task waits", |task| {
        task["Status"]["State"] == "pending" && !text(&task["Status"]["Err"]).is_empty()
    })?;
    let answer = cx.get(&format!("/tasks/{}/logs?stdout=1", text(&task["ID"])))?;
    let wanted = format!("task {} has not been scheduled", text(&task["ID"]));
    ensure!(answer.text().contains(&wanted), "{} {:?}", answer.status, answer.text());
    Ok(())
}

fn service_logs_since_and_timestamps(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("svc", "echo early; sleep 1.5; echo late; sleep 1000", json!({}))?;
    cx.wait_running(&service, 1)?;
    let lines = cx.log_lines(&format!("/services/{service}/logs?stdout=1&timestamps=1"), 2)?;
    let (early, said) = lines[0].split_once(' ').unwrap_or_default();
    same!(said, "early", "first line");
    same!((early.len(), &early[10..11], &early[29..]), (30, "T", "Z"), "form of {early:?}");
    let (late, _) = lines[1].split_once(' ').unwrap_or_default();
    let clock = crate::suite::logs::unix_seconds(late)?;
    same!(
        cx.log_lines(&format!("/services/{service}/logs?stdout=1&since={clock}"), 1)?,
        ["late"],
        "lines since the second one"
    );
    Ok(())
}

fn service_logs_name_their_content_type(cx: &Cx<'_>) -> Result<()> {
    for (name, tty, wanted) in [
        ("plain", false, "application/vnd.docker.multiplexed-stream"),
        ("tty", true, "application/vnd.docker.raw-stream"),
    ] {
        let service =
            cx.shell_service(name, "echo said; sleep 1000", json!({"TaskTemplate": {"ContainerSpec": {"TTY": tty}}}))?;
        cx.wait_running(&service, 1)?;
        let answer = cx.get(&format!("/services/{service}/logs?stdout=1"))?.ok()?;
        same!(answer.header("content-type"), Some(wanted), "content type of {name}");
    }
    Ok(())
}
