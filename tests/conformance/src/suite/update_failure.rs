//! Updates that go wrong: pause, rollback, continue, and what counts as a failure.

use serde_json::{Value, json};

use super::services::ids;
use crate::cx::{Cx, merge, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_044_a_bad_image_pauses_the_update_at_the_first_slot),
    case!(Swarm, item_045_a_failed_update_rolls_itself_back),
    case!(Swarm, item_048_a_task_that_completes_at_once_is_a_failed_update),
    case!(Swarm, a_paused_update_goes_on_with_the_next_one),
    case!(Swarm, continue_watches_nothing),
    case!(Swarm, a_failure_ratio_tolerates_some_failures),
    case!(Swarm, a_task_that_fails_after_the_monitor_does_not_count),
];

/// Two replicas that are updated one by one, with this action on failure and a monitor of a second.
fn with_action(action: &str) -> Value {
    json!({"Mode": {"Replicated": {"Replicas": 2}}, "TaskTemplate": {"RestartPolicy": {"Delay": 500_000_000}},
        "UpdateConfig": {"Parallelism": 1, "FailureAction": action, "Monitor": 1_000_000_000},
        "RollbackConfig": {"Parallelism": 0, "Monitor": 500_000_000}})
}

fn failing() -> Value {
    json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sh", "-c", "exit 1"]}}})
}

fn item_044_a_bad_image_pauses_the_update_at_the_first_slot(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
    let old = ids(&cx.wait_running(&service, 3)?);
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Image": "127.0.0.1:1/nothing:1"}}}))?;
    let status = cx.wait_update(&service, "paused")?;
    let message = text(&status["Message"]);
    let task = message.strip_prefix("update paused due to failure or early termination of task ").unwrap_or_default();
    let named = cx.tasks(&service)?.into_iter().find(|other| other["ID"] == task);
    ensure!(
        named.is_some_and(|task| task["Status"]["State"] == "rejected"),
        "message {message:?}; {}",
        cx.states(&service)?
    );
    ensure!(status.get("CompletedAt").is_none(), "{status}");
    let running = ids(&cx.running(&service)?);
    ensure!(running.len() == 2 && running.iter().all(|id| old.contains(id)), "{}", cx.states(&service)?);
    Ok(())
}

fn item_045_a_failed_update_rolls_itself_back(cx: &Cx<'_>) -> Result<()> {
    let mut spec = with_action("rollback");
    // the failure is seen during the delay, before the second slot's turn comes
    merge(&mut spec, json!({"UpdateConfig": {"Delay": 3_000_000_000_u64}}));
    let service = cx.service("svc", spec)?;
    let old = ids(&cx.wait_running(&service, 2)?);
    cx.update(&service, failing())?;
    let status = cx.until("the service rolls back", || {
        let status = cx.see_service(&service)?["UpdateStatus"].clone();
        ensure!(text(&status["State"]).starts_with("rollback"), "status {status}; {}", cx.states(&service)?);
        Ok(status)
    })?;
    if status["State"] == "rollback_started" {
        let wanted = "update rolled back due to failure or early termination of task ";
        ensure!(text(&status["Message"]).starts_with(wanted), "message {}", status["Message"]);
    }
    let status = cx.wait_update(&service, "rollback_completed")?;
    same!(status["Message"], "rollback completed", "message");
    let now = cx.see_service(&service)?;
    ensure!(now.get("PreviousSpec").is_none(), "a previous spec is left: {}", now["PreviousSpec"]);
    same!(now["Spec"]["TaskTemplate"]["ContainerSpec"]["Command"], json!(["sleep", "1000"]), "command");
    let running = ids(&cx.wait_running(&service, 2)?);
    same!(running.iter().filter(|id| old.contains(id)).count(), 1, "tasks that were never touched");
    Ok(())
}

fn item_048_a_task_that_completes_at_once_is_a_failed_update(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", with_action("pause"))?;
    cx.wait_running(&service, 2)?;
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Command": ["true"]}}}))?;
    let status = cx.wait_update(&service, "paused")?;
    ensure!(
        text(&status["Message"]).starts_with("update paused due to failure or early termination of task "),
        "{status}"
    );
    Ok(())
}

fn a_paused_update_goes_on_with_the_next_one(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", with_action("pause"))?;
    cx.wait_running(&service, 2)?;
    cx.update(&service, failing())?;
    cx.wait_update(&service, "paused")?;
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sleep", "2000"]}}}))?;
    cx.wait_update(&service, "completed")?;
    let running = cx.wait_running(&service, 2)?;
    ensure!(
        running.iter().all(|task| task["Spec"]["ContainerSpec"]["Command"][1] == "2000"),
        "{}",
        cx.states(&service)?
    );
    Ok(())
}

fn continue_watches_nothing(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", with_action("continue"))?;
    let old = ids(&cx.wait_running(&service, 2)?);
    // the task must be seen running once, else its worker waits for ever
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sh", "-c", "sleep 0.7; exit 1"]}}}))?;
    cx.wait_update(&service, "completed")?;
    cx.until("no old task runs", || {
        ensure!(ids(&cx.running(&service)?).iter().all(|id| !old.contains(id)), "{}", cx.states(&service)?);
        Ok(())
    })
}

fn a_failure_ratio_tolerates_some_failures(cx: &Cx<'_>) -> Result<()> {
    let mut spec = with_action("pause");
    let ratio = json!({"Mode": {"Replicated": {"Replicas": 4}}, "UpdateConfig": {"MaxFailureRatio": 0.3, "Parallelism": 0},
        "TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "volume", "Source": cx.name("once"), "Target": "/v"}]}}});
    merge(&mut spec, ratio);
    let service = cx.service("svc", spec)?;
    cx.wait_running(&service, 4)?;
    // exactly one of the new tasks fails: whichever makes the directory
    let once =
        json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sh", "-c", "mkdir /v/taken && exit 1; sleep 1000"]}}});
    cx.update(&service, once)?;
    cx.wait_update(&service, "completed")?;
    cx.wait_running(&service, 4)?;
    let failed = cx.tasks(&service)?.into_iter().filter(|task| task["Status"]["State"] == "failed").count();
    same!(failed, 1, "failed tasks");
    Ok(())
}

fn a_task_that_fails_after_the_monitor_does_not_count(cx: &Cx<'_>) -> Result<()> {
    let mut spec = with_action("pause");
    merge(&mut spec, json!({"UpdateConfig": {"Monitor": 300_000_000}, "Mode": {"Replicated": {"Replicas": 1}}}));
    let service = cx.service("svc", spec)?;
    cx.wait_running(&service, 1)?;
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sh", "-c", "sleep 4; exit 1"]}}}))?;
    cx.wait_update(&service, "completed")?;
    cx.wait_task(&service, "the task fails later", |task| task["Status"]["State"] == "failed")?;
    same!(cx.see_service(&service)?["UpdateStatus"]["State"], "completed", "state after the failure");
    Ok(())
}
