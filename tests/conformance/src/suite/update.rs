//! Updates that go well: what restarts what, in which order, at which pace, and back again.

use serde_json::{Value, json};

use super::logs::unix_nanos;
use super::services::ids;
use crate::cx::{Cx, array, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_031_only_a_changed_template_restarts_tasks),
    case!(Swarm, item_032_a_constraint_that_holds_restarts_nothing),
    case!(Swarm, item_043_two_at_a_time_with_a_delay),
    case!(Swarm, item_046_two_rollbacks_return_to_the_newer_spec),
    case!(Swarm, item_047_start_first_overlaps_old_and_new),
    case!(Swarm, item_047_start_first_waits_for_health),
    case!(Swarm, item_049_scaling_leaves_no_update_status),
    case!(Swarm, stop_first_never_runs_two_tasks_of_a_slot),
    case!(Swarm, scaling_down_keeps_the_lowest_slots_and_removes_the_rest),
    case!(Swarm, scaling_to_nothing_and_back),
    case!(Swarm, a_missing_replica_takes_the_lowest_free_slot),
    case!(Swarm, an_update_of_a_global_service_rolls_too),
    case!(Swarm, an_update_changes_image_and_limits),
];

/// A service update with a short monitor, so that tests need not wait for it.
fn quick(change: Value) -> Value {
    let mut update = json!({"UpdateConfig": {"Parallelism": 0, "Monitor": 200_000_000, "FailureAction": "pause"}});
    crate::cx::merge(&mut update, change);
    update
}

impl Cx<'_> {
    /// Waits until `count` tasks run of which none is in `old`.
    fn wait_replaced(&self, service: &str, count: usize, old: &[String]) -> Result<Vec<Value>> {
        self.until("every task is replaced", || {
            let running = self.running(service)?;
            let fresh = ids(&running).iter().all(|id| !old.contains(id));
            ensure!(running.len() == count && fresh, "{}", self.states(service)?);
            Ok(running)
        })
    }
}

fn item_031_only_a_changed_template_restarts_tasks(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", quick(json!({"Mode": {"Replicated": {"Replicas": 2}}})))?;
    let mut tasks = ids(&cx.wait_running(&service, 2)?);
    cx.update(&service, json!({"Labels": {"new": "label"}, "UpdateConfig": {"Parallelism": 2}}))?;
    cx.update(&service, json!({"RollbackConfig": {"Parallelism": 2}}))?;
    for (number, change) in [
        json!({"TaskTemplate": {"ContainerSpec": {"Labels": {"new": "label"}}}}),
        json!({"TaskTemplate": {"ContainerSpec": {"Env": ["a=b"]}}}),
        json!({"TaskTemplate": {"ForceUpdate": 1}}),
        json!({"TaskTemplate": {"RestartPolicy": {"Condition": "any", "MaxAttempts": 9}}}),
    ]
    .into_iter()
    .enumerate()
    {
        // the two updates above have restarted nothing: the first of these finds the tasks that were there at first
        same!(ids(&cx.running(&service)?), tasks, "tasks before change {number}");
        cx.update(&service, change)?;
        tasks = ids(&cx.wait_replaced(&service, 2, &tasks)?);
        cx.wait_update(&service, "completed")?;
    }
    same!(cx.tasks(&service)?.len(), 10, "tasks in all, two of each of five templates");
    Ok(())
}

fn item_032_a_constraint_that_holds_restarts_nothing(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", quick(json!({"Mode": {"Replicated": {"Replicas": 2}}})))?;
    let tasks = ids(&cx.wait_running(&service, 2)?);
    cx.update(&service, json!({"TaskTemplate": {"Placement": {"Constraints": ["node.role==manager"]}}}))?;
    // scaling goes through the same reconciliation: once the third runs, the first two have been looked at
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
    let now = ids(&cx.wait_running(&service, 3)?);
    ensure!(tasks.iter().all(|task| now.contains(task)), "{}", cx.states(&service)?);
    same!(cx.tasks(&service)?.len(), 3, "tasks");
    Ok(())
}

fn item_043_two_at_a_time_with_a_delay(cx: &Cx<'_>) -> Result<()> {
    let config = json!({"Mode": {"Replicated": {"Replicas": 4}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 4_000_000_000_u64, "Monitor": 2_000_000_000_u64}});
    let service = cx.service("svc", config)?;
    let old = ids(&cx.wait_running(&service, 4)?);
    cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
    let status = cx.wait_update(&service, "updating")?;
    same!(status["Message"], "update in progress", "message");
    ensure!(status.get("CompletedAt").is_none() && status["StartedAt"].is_string(), "{status}");
    let new = cx.wait_replaced(&service, 4, &old)?;
    let done = cx.wait_update(&service, "completed")?;
    same!(done["Message"], "update completed", "message");
    let mut at = new.iter().map(|task| unix_nanos(&task["Status"]["Timestamp"])).collect::<Result<Vec<_>>>()?;
    at.sort_unstable();
    let after: Vec<i128> = at.iter().map(|time| time - at[0]).collect();
    let delay = 4_000_000_000;
    ensure!(after[1] < delay, "the second waited for the first: {after:?}");
    ensure!(after[2] >= delay && after[3] - after[1] >= delay, "the others did not wait: {after:?}");
    // Monitor is shorter than Delay here, so the watch lasts Delay and a second
    let watched = unix_nanos(&done["CompletedAt"])? - at[3];
    ensure!(watched >= delay, "completed {watched} ns after the last task ran");
    Ok(())
}

fn item_046_two_rollbacks_return_to_the_newer_spec(cx: &Cx<'_>) -> Result<()> {
    let env = |value: &str| json!({"TaskTemplate": {"ContainerSpec": {"Env": [value]}}});
    let rollback = json!({"RollbackConfig": {"Parallelism": 0, "Monitor": 200_000_000}});
    let mut spec = quick(env("v=1"));
    crate::cx::merge(&mut spec, rollback);
    let service = cx.service("svc", spec)?;
    let old = ids(&cx.wait_running(&service, 1)?);
    cx.update(&service, env("v=2"))?;
    let second = ids(&cx.wait_replaced(&service, 1, &old)?);
    cx.wait_update(&service, "completed")?;
    let mut before = second;
    for wanted in ["v=1", "v=2"] {
        cx.roll_back(&service)?;
        before = ids(&cx.wait_replaced(&service, 1, &before)?);
        let status = cx.wait_update(&service, "rollback_completed")?;
        same!(status["Message"], "rollback completed", "message");
        let now = cx.see_service(&service)?;
        same!(now["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"], json!([wanted]), "environment");
        ensure!(now["PreviousSpec"].is_object(), "no previous spec after a manual rollback");
    }
    Ok(())
}

fn item_047_start_first_overlaps_old_and_new(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", quick(json!({"UpdateConfig": {"Order": "start-first"}})))?;
    let old = cx.wait_running(&service, 1)?.remove(0);
    cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
    let new = cx.wait_replaced(&service, 1, &ids(std::slice::from_ref(&old)))?.remove(0);
    let old = cx.wait_task(&service, "the old task stops", |task| {
        task["ID"] == old["ID"] && task["Status"]["State"] == "shutdown"
    })?;
    let (started, stopped) = (&new["Status"]["Timestamp"], &old["Status"]["Timestamp"]);
    ensure!(unix_nanos(stopped)? >= unix_nanos(started)?, "the old one stopped before the new one ran");
    same!(old["DesiredState"], "shutdown", "desired state of the old");
    Ok(())
}

fn item_047_start_first_waits_for_health(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", quick(json!({"UpdateConfig": {"Order": "start-first"}})))?;
    let old = cx.wait_running(&service, 1)?.remove(0);
    let health = json!({"Test": ["CMD-SHELL", "test -e /tmp/ready"], "Interval": 200_000_000, "Retries": 1000});
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Healthcheck": health}}}))?;
    let new = cx.wait_task(&service, "the new task is starting", |task| task["Status"]["State"] == "starting")?;
    let container = format!("{}.1.{}", cx.name("svc"), text(&new["ID"]));
    cx.until("a check has failed", || {
        ensure!(cx.inspect(&container)?["State"]["Health"]["FailingStreak"].as_i64() >= Some(2), "not yet");
        Ok(())
    })?;
    let now = cx.get(&format!("/tasks/{}", text(&old["ID"])))?.json()?;
    same!(
        (&now["DesiredState"], &now["Status"]["State"]),
        (&json!("running"), &json!("running")),
        "the old task meanwhile"
    );
    cx.exec(&container, &["touch", "/tmp/ready"], json!({}))?;
    cx.wait_replaced(&service, 1, &ids(&[old])).map(drop)
}

fn item_049_scaling_leaves_no_update_status(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", quick(json!({})))?;
    let old = ids(&cx.wait_running(&service, 1)?);
    cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
    let kept = ids(&cx.wait_replaced(&service, 1, &old)?);
    cx.wait_update(&service, "completed")?;
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
    let running = ids(&cx.wait_running(&service, 3)?);
    ensure!(running.contains(&kept[0]), "scaling replaced the task that ran");
    let now = cx.see_service(&service)?;
    ensure!(now.get("UpdateStatus").is_none(), "update status {}", now["UpdateStatus"]);
    same!(now["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 1, "previous replicas");
    Ok(())
}

fn stop_first_never_runs_two_tasks_of_a_slot(cx: &Cx<'_>) -> Result<()> {
    let line = "trap 'rmdir /v/lock; exit 0' TERM; mkdir /v/lock || { echo >/v/two; exit 9; }; touch /tmp/ready; while :; do sleep 0.1; done";
    let mount = json!([{"Type": "volume", "Source": cx.name("lock"), "Target": "/v"}]);
    let spec = json!({"TaskTemplate": {"ContainerSpec": {"StopSignal": "SIGTERM", "Mounts": mount}}});
    let service = cx.shell_service("svc", line, quick(spec))?;
    let mut task = cx.wait_running(&service, 1)?.remove(0);
    for force in 1..=3 {
        cx.wait_ready(&task)?;
        cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": force}}))?;
        task = cx.wait_replaced(&service, 1, &ids(&[task]))?.remove(0);
    }
    cx.wait_ready(&task)?;
    let (code, _) =
        cx.exec(&text(&task["Status"]["ContainerStatus"]["ContainerID"]), &["test", "-e", "/v/two"], json!({}))?;
    same!(code, 1, "whether two ran at once");
    Ok(())
}

fn scaling_down_keeps_the_lowest_slots_and_removes_the_rest(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 4}}}))?;
    let slots = |tasks: &[Value]| {
        let mut slots: Vec<u64> = tasks.iter().filter_map(|task| task["Slot"].as_u64()).collect();
        slots.sort_unstable();
        slots
    };
    same!(slots(&cx.wait_running(&service, 4)?), [1, 2, 3, 4], "slots");
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 2}}}))?;
    same!(slots(&cx.wait_running(&service, 2)?), [1, 2], "slots that stay");
    cx.until("nothing is left of the others, neither tasks nor containers", || {
        let containers = cx
            .engine
            .list("/containers/json?all=1", &json!({"label": [format!("com.docker.swarm.service.id={service}")]}))?;
        ensure!(
            cx.tasks(&service)?.len() == 2 && containers.len() == 2,
            "{} containers; {}",
            containers.len(),
            cx.states(&service)?
        );
        Ok(())
    })
}

fn scaling_to_nothing_and_back(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 2}}}))?;
    cx.wait_running(&service, 2)?;
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 0}}}))?;
    cx.until("no task is left", || {
        ensure!(cx.tasks(&service)?.is_empty(), "{}", cx.states(&service)?);
        Ok(())
    })?;
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 2}}}))?;
    cx.wait_running(&service, 2).map(drop)
}

fn a_missing_replica_takes_the_lowest_free_slot(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 1}}}))?;
    cx.wait_running(&service, 1)?;
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
    let mut slots: Vec<u64> = cx.wait_running(&service, 3)?.iter().filter_map(|task| task["Slot"].as_u64()).collect();
    slots.sort_unstable();
    same!(slots, [1, 2, 3], "slots");
    Ok(())
}

fn an_update_of_a_global_service_rolls_too(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", quick(json!({"Mode": {"Global": {}}})))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    ensure!(task.get("Slot").is_none(), "a global task has slot {}", task["Slot"]);
    cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
    cx.wait_replaced(&service, 1, &ids(&[task]))?;
    cx.wait_update(&service, "completed").map(drop)
}

fn an_update_changes_image_and_limits(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"TaskTemplate": {"ContainerSpec": {"Image": "shoal/clock:1.0", "Command": null}}});
    let service = cx.service("svc", quick(spec))?;
    let old = ids(&cx.wait_running(&service, 1)?);
    cx.update(
        &service,
        json!({"TaskTemplate": {"ContainerSpec": {"Image": "shoal/clock:2.0"},
        "Resources": {"Limits": {"MemoryBytes": 33_554_432, "NanoCPUs": 500_000_000}}}}),
    )?;
    let task = cx.wait_replaced(&service, 1, &old)?.remove(0);
    let container = cx.inspect(&text(&task["Status"]["ContainerStatus"]["ContainerID"]))?;
    same!(container["Config"]["Image"], "shoal/clock:2.0", "image");
    same!(container["HostConfig"]["Memory"], 33_554_432, "memory");
    same!(container["HostConfig"]["NanoCpus"], 500_000_000, "cpus");
    ensure!(
        array(&container["Config"]["Env"]).contains(&json!("CLOCK_VERSION=2.0")),
        "environment {}",
        container["Config"]["Env"]
    );
    Ok(())
}
