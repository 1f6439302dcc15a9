//! Logs of services from all nodes, and from those that can be reached.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::{Output, demultiplex, text};
use crate::error::Result;
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, item_069_logs_of_all_nodes_come_merged_with_details),
    story!(Five, item_070_tail_counts_for_each_task_on_each_node),
    story!(Five, a_followed_log_shows_lines_of_every_node),
    story!(Five, a_log_without_a_node_is_partial_says_so_and_never_hangs),
];

/// Far less than any client's patience, far more than an answer takes.
const NO_HANG: u64 = 30;

impl Cluster<'_> {
    /// The service's log with these parameters, without its system errors.
    fn log(&self, via: usize, service: &str, query: &str) -> Result<Output> {
        let answer = self.call(via, "GET", &format!("/services/{service}/logs?stdout=1&stderr=1&{query}"), None)?;
        demultiplex(&answer.ok()?.body)
    }

    /// Waits until the log has this many lines; its lines on both streams.
    fn wait_log(&self, via: usize, service: &str, query: &str, count: usize) -> Result<Output> {
        self.until(&format!("{count} lines"), SOON, || {
            let log = self.log(via, service, query)?;
            same!(log.out.lines().count() + log.err.lines().count(), count, "lines of {log:?}");
            Ok(log)
        })
    }
}

fn item_069_logs_of_all_nodes_come_merged_with_details(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(1);
    let service = cx.shell_service("svc", "echo out; echo err >&2; sleep 1000", json!({"Mode": {"Global": {}}}))?;
    cx.wait_running(&service, 5)?;
    for via in [1, 2, 3] {
        let log = cluster.wait_log(via, &service, "details=1", 10)?;
        for (stream, word) in [(&log.out, "out"), (&log.err, "err")] {
            let tasks = cx.running(&service)?;
            let wanted: BTreeSet<String> = tasks
                .iter()
                .map(|task| {
                    let (node, task) = (text(&task["NodeID"]), text(&task["ID"]));
                    format!("com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} {word}")
                })
                .collect();
            same!(stream.lines().map(str::to_owned).collect::<BTreeSet<_>>(), wanted, "through manager {via}");
        }
    }
    Ok(())
}

fn item_070_tail_counts_for_each_task_on_each_node(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(1);
    let line = "for i in 1 2 3; do echo line $i; done; sleep 1000";
    let service = cx.shell_service("svc", line, json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
    cx.wait_running(&service, 3)?;
    cluster.wait_log(2, &service, "", 9)?;
    let log = cluster.wait_log(3, &service, "tail=1", 3)?;
    same!(log.out, "line 3\nline 3\nline 3\n", "last lines");
    Ok(())
}

fn a_followed_log_shows_lines_of_every_node(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(1);
    let service = cx.shell_service(
        "svc",
        "echo began; while :; do sleep 0.2; echo more; done",
        json!({"Mode": {"Replicated": {"Replicas": 2}}}),
    )?;
    let path = format!("/services/{service}/logs?stdout=1&follow=1&details=1");
    let mut stream = cluster.lab.engine(2).open("GET", &path, &[], b"")?;
    stream.connection().set_read_timeout(std::time::Duration::from_secs(SOON))?;
    let mut tasks = BTreeSet::new();
    // also of one that comes only while somebody follows
    let mut grown = false;
    let end = Instant::now() + std::time::Duration::from_secs(SOON);
    while tasks.len() < 5 {
        ensure!(Instant::now() < end, "only {} of 5 tasks are heard", tasks.len());
        let line = stream.line()?.unwrap_or_default();
        tasks.extend(line.split("task.id=").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned));
        if tasks.len() == 2 && !grown {
            grown = true;
            cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 5}}}))?;
        }
    }
    Ok(())
}

fn a_log_without_a_node_is_partial_says_so_and_never_hangs(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(1);
    let service = cx.shell_service("svc", "echo said; sleep 1000", json!({"Mode": {"Global": {}}}))?;
    cx.wait_running(&service, 5)?;
    cluster.wait_log(1, &service, "", 5)?;
    let id = cluster.id(5)?;
    cluster.lab.act("cut", &[5])?;
    // at once, when nobody knows yet that it is gone, and later, when everybody does
    for (when, down) in [("at once", false), ("later", true)] {
        if down {
            cluster.wait_ready(1, 4)?;
        }
        let begin = Instant::now();
        let path = format!("/services/{service}/logs?stdout=1&stderr=1");
        let answer = cluster.call(1, "GET", &path, None)?.ok()?;
        ensure!(begin.elapsed().as_secs() < NO_HANG, "{when}: it took {:?}", begin.elapsed());
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(said.matches("said\n").count() >= 4, "{when}: {said:?}");
        ensure!(said.contains("incomplete log stream"), "{when}, no note: {said:?}");
        ensure!(said.contains(&id), "{when}, the note does not name the node {id}: {said:?}");
    }
    Ok(())
}
