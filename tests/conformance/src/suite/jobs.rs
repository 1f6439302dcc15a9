//! Jobs: tasks that run to their end, so many at a time, and again whenever the service changes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::Api;
use crate::cx::{Cx, merge, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_071_a_job_runs_so_many_at_a_time_and_ends, since 1, 41),
    case!(Swarm, item_072_any_update_runs_a_job_again, since 1, 41),
    case!(Swarm, a_job_says_which_run_it_is_in, since 1, 41),
    case!(Swarm, a_change_stops_what_runs_of_the_run_before, since 1, 41),
    case!(Swarm, a_failed_task_of_a_job_is_tried_again, since 1, 41),
    case!(Swarm, a_job_that_must_not_restart_stays_failed, since 1, 41),
    case!(Swarm, attempts_of_a_job_are_counted, since 1, 41),
    case!(Swarm, a_global_job_runs_once_on_each_node, since 1, 41),
    case!(Swarm, a_job_that_is_rolled_back_runs_its_previous_spec, since 1, 41),
    case!(Swarm, jobs_are_counted_and_listed_by_mode, since 1, 41),
    case!(Swarm, what_a_job_cannot_have_is_refused, since 1, 41),
    case!(Swarm, the_client_creates_lists_and_reruns_jobs, since 1, 41),
    case!(Swarm, the_client_scales_replicated_jobs_only, since 1, 41),
    case!(Swarm, a_removed_job_leaves_nothing, since 1, 44),
];

fn job(concurrent: u64, total: u64) -> Value {
    json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": concurrent, "TotalCompletions": total}}})
}

fn restarting(condition: &str, attempts: u64) -> Value {
    let policy = json!({"Condition": condition, "Delay": 100_000_000, "MaxAttempts": attempts});
    json!({"TaskTemplate": {"RestartPolicy": policy}})
}

fn with(mut spec: Value, over: Value) -> Value {
    merge(&mut spec, over);
    spec
}

fn iteration(object: &Value) -> u64 {
    object["Index"].as_u64().unwrap_or(0)
}

impl Cx<'_> {
    /// Waits until exactly `count` tasks of the present run have ended well; those tasks.
    fn wait_complete(&self, service: &str, count: usize) -> Result<Vec<Value>> {
        self.until(&format!("{count} completed tasks"), || {
            let run = iteration(&self.see_service(service)?["JobStatus"]["JobIteration"]);
            let mut tasks = self.tasks(service)?;
            tasks.retain(|t| t["Status"]["State"] == "complete" && iteration(&t["JobIteration"]) == run);
            ensure!(tasks.len() == count, "{} completed: {}", tasks.len(), self.states(service)?);
            Ok(tasks)
        })
    }
}

fn item_071_a_job_runs_so_many_at_a_time_and_ends(cx: &Cx<'_>) -> Result<()> {
    // they go on together, once somebody opens the gate
    let mounts = json!([{"Type": "volume", "Source": cx.name("gate"), "Target": "/gate"}]);
    let spec = with(job(2, 5), json!({"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}}));
    let service = cx.shell_service("job", "while ! test -e /gate/open; do sleep 0.1; done", spec)?;
    let first = cx.until("two running tasks", || {
        let tasks = cx.tasks(&service)?;
        ensure!(tasks.iter().filter(|t| t["Status"]["State"] == "running").count() == 2, "{}", cx.states(&service)?);
        Ok(tasks)
    })?;
    same!(first.len(), 2, "tasks while two run");
    let container = text(&first[0]["Status"]["ContainerStatus"]["ContainerID"]);
    cx.exec(&container, &["touch", "/gate/open"], json!({}))?;
    let mut most = 2;
    let tasks = cx.until("five completed tasks", || {
        let tasks = cx.tasks(&service)?;
        let running = tasks.iter().filter(|t| t["Status"]["State"] == "running").count();
        most = most.max(running);
        let done = tasks.iter().filter(|t| t["Status"]["State"] == "complete").count();
        ensure!(done == 5, "{}", cx.states(&service)?);
        Ok(tasks)
    })?;
    same!(most, 2, "tasks that ran at a time");
    same!(tasks.len(), 5, "tasks");
    let slots: BTreeSet<u64> = tasks.iter().map(|t| t["Slot"].as_u64().unwrap_or(0)).collect();
    same!(slots, BTreeSet::from([0, 1, 2, 3, 4]), "slots");
    for task in &tasks {
        same!(task["DesiredState"], "complete", "desired state");
        same!(task["Status"]["Message"], "finished", "message");
        same!(task["Status"]["ContainerStatus"]["ExitCode"], 0, "exit code");
    }
    Ok(())
}

fn item_072_any_update_runs_a_job_again(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("job", "true", job(1, 2))?;
    let first = cx.wait_complete(&service, 2)?;
    let before = cx.see_service(&service)?["JobStatus"].clone();
    cx.update(&service, json!({"Labels": {"a": "b"}}))?;
    let second = cx.wait_complete(&service, 2)?;
    let after = cx.see_service(&service)?["JobStatus"].clone();
    ensure!(iteration(&after["JobIteration"]) > iteration(&before["JobIteration"]), "{before} {after}");
    ensure!(text(&after["LastExecution"]) > text(&before["LastExecution"]), "{before} {after}");
    let both: BTreeSet<_> = first.iter().chain(&second).map(|t| text(&t["ID"])).collect();
    same!(both.len(), 4, "tasks of both runs");
    for task in &second {
        same!(task["JobIteration"], after["JobIteration"], "run of a task");
    }
    ensure!(cx.see_service(&service)?.get("UpdateStatus").is_none(), "nothing rolls");
    Ok(())
}

fn a_job_says_which_run_it_is_in(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("job", "true", json!({"Mode": {"ReplicatedJob": {}}}))?;
    let seen = cx.see_service(&service)?;
    same!(seen["JobStatus"]["JobIteration"], json!({}), "the first run");
    ensure!(text(&seen["JobStatus"]["LastExecution"]).as_str() >= &text(&seen["CreatedAt"])[..10], "{seen}");
    same!(seen["Spec"]["Mode"], json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}), "mode");
    let tasks = cx.wait_complete(&service, 1)?;
    same!(tasks[0]["JobIteration"], json!({}), "run of the task");
    same!(tasks[0].get("Slot"), None, "slot 0");
    let plain = cx.service("plain", json!({}))?;
    let running = cx.wait_running(&plain, 1)?;
    same!(running[0].get("JobIteration"), None, "run of a task that is no job's");
    same!(cx.see_service(&plain)?.get("JobStatus"), None, "run of a service that is no job");
    Ok(())
}

fn a_change_stops_what_runs_of_the_run_before(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("job", job(2, 2))?;
    let running = |run: u64| {
        cx.until(&format!("two tasks of run {run} and no others"), || {
            let mut tasks = cx.tasks(&service)?;
            tasks.retain(|t| t["Status"]["State"] == "running");
            let now = iteration(&cx.see_service(&service)?["JobStatus"]["JobIteration"]);
            ensure!(now >= run && tasks.len() == 2, "{}", cx.states(&service)?);
            ensure!(tasks.iter().all(|t| iteration(&t["JobIteration"]) == now), "{}", cx.states(&service)?);
            Ok(tasks)
        })
    };
    let first = running(0)?;
    cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
    let second = running(1)?;
    for task in &first {
        ensure!(second.iter().all(|t| t["ID"] != task["ID"]), "a task goes on into the next run");
        cx.until("the old task is forgotten", || {
            same!(cx.get(&format!("/tasks/{}", text(&task["ID"])))?.status, 404, "status of the old task");
            Ok(())
        })?;
    }
    Ok(())
}

fn a_failed_task_of_a_job_is_tried_again(cx: &Cx<'_>) -> Result<()> {
    // the volume remembers the first attempt
    let volume = cx.name("tries");
    let mounts = json!([{"Type": "volume", "Source": volume, "Target": "/tries"}]);
    let spec = with(job(1, 1), restarting("any", 0));
    let spec = with(spec, json!({"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}}));
    let service = cx.shell_service("job", "test -e /tries/one || { touch /tries/one; exit 3; }", spec)?;
    cx.wait_complete(&service, 1)?;
    let tasks = cx.tasks(&service)?;
    let failed: Vec<_> = tasks.iter().filter(|t| t["Status"]["State"] == "failed").collect();
    same!((tasks.len(), failed.len()), (2, 1), "tasks, and those that failed");
    same!(failed[0]["Status"]["Err"], "task: non-zero exit (3)", "error");
    same!(failed[0]["DesiredState"], "shutdown", "desired state of the failed task");
    Ok(())
}

fn a_job_that_must_not_restart_stays_failed(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("job", "exit 1", with(job(1, 1), restarting("none", 0)))?;
    let failed = cx.wait_task(&service, "the failed task given up", |t| {
        t["Status"]["State"] == "failed" && t["DesiredState"] == "shutdown"
    })?;
    let other = cx.shell_service("other", "exit 1", with(job(1, 1), restarting("any", 0)))?;
    cx.wait_another(&other)?;
    let tasks = cx.tasks(&service)?;
    same!((tasks.len(), &tasks[0]["ID"]), (1, &failed["ID"]), "tasks");
    Ok(())
}

fn attempts_of_a_job_are_counted(cx: &Cx<'_>) -> Result<()> {
    let modes = [("replicated", job(1, 1)), ("global", json!({"Mode": {"GlobalJob": {}}}))];
    for (name, mode) in modes {
        if name == "global" && cx.engine.api < Api(1, 44) {
            continue; // the reference counts none for global jobs
        }
        let service = cx.shell_service(name, "exit 1", with(mode.clone(), restarting("on-failure", 2)))?;
        cx.until("three failed tasks", || {
            let failed = cx.tasks(&service)?.iter().filter(|t| t["Status"]["State"] == "failed").count();
            ensure!(failed == 3, "{}", cx.states(&service)?);
            Ok(())
        })?;
        let other = cx.shell_service(&format!("{name}-other"), "exit 1", with(mode, restarting("any", 0)))?;
        cx.wait_another(&other)?;
        same!(cx.tasks(&service)?.len(), 3, "tasks of the {name} job");
    }
    Ok(())
}

fn a_global_job_runs_once_on_each_node(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("job", "true", json!({"Mode": {"GlobalJob": {}}}))?;
    let tasks = cx.wait_complete(&service, 1)?;
    same!(text(&tasks[0]["NodeID"]), cx.node_id()?, "node");
    same!(tasks[0].get("Slot"), None, "slot");
    same!(tasks[0]["DesiredState"], "complete", "desired state");
    same!(cx.see_service(&service)?["Spec"]["Mode"], json!({"GlobalJob": {}}), "mode");
    cx.update(&service, json!({"Labels": {"a": "b"}}))?;
    let again = cx.wait_complete(&service, 1)?;
    ensure!(again[0]["ID"] != tasks[0]["ID"], "the same task");
    cx.until("the task of the run before is forgotten", || {
        same!(cx.tasks(&service)?.len(), 1, "tasks");
        Ok(())
    })
}

fn a_job_that_is_rolled_back_runs_its_previous_spec(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("job", "true", job(1, 1))?;
    cx.wait_complete(&service, 1)?;
    let command = json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sh", "-c", "true; true"]}}});
    cx.update(&service, command)?;
    cx.wait_complete(&service, 1)?;
    cx.roll_back(&service)?;
    let task = cx.wait_complete(&service, 1)?.remove(0);
    same!(task["Spec"]["ContainerSpec"]["Command"], json!(["sh", "-c", "true"]), "command");
    ensure!(iteration(&task["JobIteration"]) >= 2, "{task}");
    Ok(())
}

fn jobs_are_counted_and_listed_by_mode(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("job", job(2, 5))?;
    let listed = |mode: &str| {
        let filters = json!({"mode": [mode], "name": [cx.name("")]});
        cx.engine.list("/services?status=true", &filters)
    };
    cx.until("two running tasks of five", || {
        let found = listed("replicated-job")?;
        same!(found.len(), 1, "replicated jobs");
        let wanted = json!({"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0});
        same!(found[0]["ServiceStatus"], wanted, "status of {service}");
        Ok(())
    })?;
    for mode in ["replicated", "global", "global-job"] {
        same!(listed(mode)?.len(), 0, "services of mode {mode}");
    }
    let global = cx.shell_service("each", "true", json!({"Mode": {"GlobalJob": {}}}))?;
    cx.wait_complete(&global, 1)?;
    let wanted = json!({"RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 1});
    same!(listed("global-job")?[0]["ServiceStatus"], wanted, "status of the global job");
    Ok(())
}

fn what_a_job_cannot_have_is_refused(cx: &Cx<'_>) -> Result<()> {
    for (spec, wanted) in [
        (json!({"UpdateConfig": {"Parallelism": 1}}), "Jobs may not have an update config"),
        (json!({"Mode": {"Replicated": {"Replicas": 1}}}), "must specify only one service mode"),
    ] {
        cx.try_service("bad", with(job(1, 1), spec))?.refused(400, wanted)?;
    }
    let spec = with(json!({"Mode": {"GlobalJob": {}}}), json!({"UpdateConfig": {"Parallelism": 1}}));
    cx.try_service("bad", spec)?.refused(400, "Jobs may not have an update config")?;
    let service = cx.service("plain", json!({}))?;
    let seen = cx.see_service(&service)?;
    let mut spec = seen["Spec"].clone();
    spec["Mode"] = job(1, 1)["Mode"].clone();
    let path = format!("/services/{service}/update?version={}", seen["Version"]["Index"]);
    cx.post(&path, &spec)?.refused(501, "service mode change is not allowed")?;
    // a port of its node is nothing that a job could not have
    let ports = json!([{"PublishMode": "host", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 18098}]);
    let service = cx.shell_service("port", "true", with(job(1, 1), json!({"EndpointSpec": {"Ports": ports}})))?;
    cx.wait_complete(&service, 1).map(drop)
}

fn the_client_creates_lists_and_reruns_jobs(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("job");
    let create = ["service", "create", "--quiet", "--name", &name, "--mode", "replicated-job", "--replicas", "5"];
    let what = ["--max-concurrent", "2", "busybox:latest", "true"];
    cx.docker(&[&create[..], &what].concat())?.ended(0)?;
    let listed =
        || cx.docker(&["service", "ls", "--filter", &format!("name={name}"), "--format", "{{.Mode}} {{.Replicas}}"]);
    same!(listed()?.ended(0)?.out.trim(), "replicated job 0/2 (5/5 completed)", "the job in the list");
    let shown = cx.docker(&["service", "ps", "--format", "{{.Name}} {{.DesiredState}}", &name])?.ended(0)?;
    for slot in 1..5 {
        ensure!(shown.out.contains(&format!("{name}.{slot} Complete")), "{}", shown.out);
    }
    let service = text(&cx.see_service(&name)?["ID"]);
    let run = iteration(&cx.see_service(&service)?["JobStatus"]["JobIteration"]);
    cx.docker(&["service", "update", "--quiet", "--force", &name])?.ended(0)?;
    ensure!(iteration(&cx.see_service(&service)?["JobStatus"]["JobIteration"]) > run, "the same run");
    same!(cx.wait_complete(&service, 5)?.len(), 5, "tasks of the second run");
    let each = cx.name("each");
    let create = ["service", "create", "--quiet", "--name", &each, "--mode", "global-job", "busybox:latest", "true"];
    cx.docker(&create)?.ended(0)?;
    let listed =
        cx.docker(&["service", "ls", "--filter", &format!("name={each}"), "--format", "{{.Mode}} {{.Replicas}}"])?;
    same!(listed.ended(0)?.out.trim(), "global job 0/0 (1/1 completed)", "the global job in the list");
    Ok(())
}

fn the_client_scales_replicated_jobs_only(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("job", "true", job(1, 1))?;
    cx.wait_complete(&service, 1)?;
    cx.docker(&["service", "scale", "--detach", &format!("{}=3", cx.name("job"))])?.ended(0)?;
    same!(cx.wait_complete(&service, 3)?.len(), 3, "completed tasks");
    let mode = cx.see_service(&service)?["Spec"]["Mode"].clone();
    same!(mode, json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 3}}), "mode");
    let global = cx.shell_service("each", "true", json!({"Mode": {"GlobalJob": {}}}))?;
    let done = cx.docker(&["service", "scale", "--detach", &format!("{}=3", cx.name("each"))])?.ended(1)?;
    let wanted = "scale can only be used with replicated or replicated-job mode";
    ensure!(done.err.contains(wanted), "{}", done.err);
    cx.wait_complete(&global, 1).map(drop)
}

fn a_removed_job_leaves_nothing(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("job", job(1, 3))?;
    let task = cx.wait_task(&service, "a running task", |t| t["Status"]["State"] == "running")?;
    let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
    cx.delete(&format!("/services/{service}"))?.ok()?;
    cx.until("the task and its container are gone", || {
        same!(cx.get(&format!("/tasks/{}", text(&task["ID"])))?.status, 404, "status of the task");
        same!(cx.get(&format!("/containers/{container}/json"))?.status, 404, "status of the container");
        Ok(())
    })
}
