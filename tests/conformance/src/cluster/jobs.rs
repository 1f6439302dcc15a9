//! Jobs: tasks that end.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::text;
use crate::error::Result;
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, item_071_a_job_runs_two_at_a_time_until_five_are_complete),
    story!(Five, item_072_any_update_runs_a_job_again),
    story!(Five, a_global_job_runs_once_on_each_node),
    story!(Five, a_failed_task_of_a_job_is_tried_again),
    story!(Five, a_job_goes_on_when_a_node_or_the_leader_is_lost),
];

impl Cluster<'_> {
    fn job(&self, via: usize, line: &str, mode: Value) -> Result<String> {
        let change =
            json!({"Mode": mode, "TaskTemplate": {"RestartPolicy": {"Condition": "on-failure", "Delay": 100_000_000}}});
        self.cx(via).shell_service("job", line, change)
    }

    /// Tasks of the newest run that are complete.
    fn complete(&self, via: usize, job: &str) -> Result<Vec<Value>> {
        let newest = self.cx(via).see_service(job)?["JobStatus"]["JobIteration"]["Index"].take();
        let mut tasks = self.cx(via).tasks(job)?;
        tasks.retain(|task| task["Status"]["State"] == "complete" && task["JobIteration"]["Index"] == newest);
        Ok(tasks)
    }

    fn wait_complete(&self, via: usize, job: &str, count: usize) -> Result<Vec<Value>> {
        self.until(&format!("{count} tasks are complete"), SOON, || {
            let done = self.complete(via, job)?;
            same!(done.len(), count, "complete: {}", self.cx(via).states(job)?);
            Ok(done)
        })
    }
}

fn slots(tasks: &[Value]) -> BTreeSet<u64> {
    tasks.iter().map(|task| task["Slot"].as_u64().unwrap_or(0)).collect()
}

fn item_071_a_job_runs_two_at_a_time_until_five_are_complete(cluster: &Cluster<'_>) -> Result<()> {
    let job = cluster.job(2, "sleep 1", json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}))?;
    let mut most = 0;
    let done = cluster.until("five are complete", SOON, || {
        let running = cluster.cx(1).tasks(&job)?.iter().filter(|task| task["Status"]["State"] == "running").count();
        most = most.max(running);
        let done = cluster.complete(1, &job)?;
        same!(done.len(), 5, "complete");
        Ok(done)
    })?;
    ensure!(most <= 2, "{most} ran at once");
    same!(slots(&done), BTreeSet::from([0, 1, 2, 3, 4]), "slots");
    ensure!(done.iter().all(|task| task["DesiredState"] == "complete"), "a task is not desired to be complete");
    Ok(())
}

fn item_072_any_update_runs_a_job_again(cluster: &Cluster<'_>) -> Result<()> {
    let job = cluster.job(1, "true", json!({"ReplicatedJob": {"MaxConcurrent": 3}}))?;
    cluster.wait_complete(1, &job, 3)?;
    let first = cluster.cx(1).see_service(&job)?["JobStatus"]["JobIteration"]["Index"].as_u64();
    let old: BTreeSet<String> = cluster.cx(1).tasks(&job)?.iter().map(|task| text(&task["ID"])).collect();
    cluster.cx(3).update(&job, json!({"Labels": {"again": "yes"}}))?;
    let done = cluster.until("three new ones are complete", SOON, || {
        let done = cluster.complete(2, &job)?;
        ensure!(done.len() == 3 && done.iter().all(|task| !old.contains(&text(&task["ID"]))), "{}", done.len());
        Ok(done)
    })?;
    let second = cluster.cx(1).see_service(&job)?["JobStatus"]["JobIteration"]["Index"].as_u64();
    ensure!(second > first, "iteration {first:?}, then {second:?}");
    same!(slots(&done), BTreeSet::from([0, 1, 2]), "slots");
    Ok(())
}

fn a_global_job_runs_once_on_each_node(cluster: &Cluster<'_>) -> Result<()> {
    let job = cluster.job(3, "true", json!({"GlobalJob": {}}))?;
    let done = cluster.wait_complete(1, &job, 5)?;
    let nodes: BTreeSet<String> = done.iter().map(|task| text(&task["NodeID"])).collect();
    same!(nodes.len(), 5, "nodes");
    Ok(())
}

fn a_failed_task_of_a_job_is_tried_again(cluster: &Cluster<'_>) -> Result<()> {
    // the second time it finds what the first has left on the node's own directory
    let line = "test -e /mark/done || { touch /mark/done; exit 3; }";
    let place = cluster.lab.home(4).join("mark");
    std::fs::create_dir_all(&place)?;
    let job = cluster.cx(1).shell_service(
        "job",
        line,
        json!({"Mode": {"ReplicatedJob": {}}, "TaskTemplate": {
            "RestartPolicy": {"Condition": "on-failure", "Delay": 100_000_000},
            "Placement": {"Constraints": [format!("node.id=={}", cluster.id(4)?)]},
            "ContainerSpec": {"Mounts": [{"Type": "bind", "Source": place.display().to_string(), "Target": "/mark"}]}}}),
    )?;
    let done = cluster.wait_complete(1, &job, 1)?;
    let failed = cluster.cx(1).tasks(&job)?.into_iter().find(|task| task["Status"]["State"] == "failed");
    ensure!(failed.is_some(), "no failed task: {}", cluster.cx(1).states(&job)?);
    same!(slots(&done), BTreeSet::from([0]), "slots");
    Ok(())
}

fn a_job_goes_on_when_a_node_or_the_leader_is_lost(cluster: &Cluster<'_>) -> Result<()> {
    let job = cluster.job(1, "sleep 1", json!({"ReplicatedJob": {"MaxConcurrent": 5, "TotalCompletions": 20}}))?;
    cluster.until("some are complete", SOON, || {
        ensure!(!cluster.complete(1, &job)?.is_empty(), "none yet");
        Ok(())
    })?;
    let leader = cluster.leader(1)?;
    cluster.lab.act("kill", &[leader, 5])?;
    let [other, _] = cluster.besides(leader);
    let done = cluster.wait_complete(other, &job, 20)?;
    same!(slots(&done), (0..20).collect::<BTreeSet<u64>>(), "slots");
    Ok(())
}
