//! Tasks: their containers' names and labels, how they end, when they are tried again, what is kept of them.

use serde_json::{Value, json};

use super::logs::unix_nanos;
use super::services::ids;
use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_023_containers_are_named_after_their_tasks),
    case!(Swarm, item_024_the_six_swarm_labels_and_no_service_labels),
    case!(Swarm, item_025_exit_codes_become_task_states),
    case!(Swarm, item_026_a_failing_task_is_tried_again_every_five_seconds),
    case!(Swarm, item_027_max_attempts_counts_for_each_spec_version),
    case!(Swarm, item_028_five_records_are_kept_of_a_slot),
    case!(Swarm, item_029_a_missing_bind_source_rejects_the_task),
    case!(Swarm, item_030_an_unknown_image_rejects_the_task),
    case!(Swarm, item_030_the_pull_error_is_the_tasks_error, since 1, 51),
    case!(Swarm, restart_conditions_decide_whether_a_task_comes_back),
    case!(Swarm, a_task_whose_container_is_removed_fails_and_comes_back),
    case!(Swarm, a_task_waits_for_its_health_check),
    case!(Swarm, an_unhealthy_task_fails_and_comes_back),
    case!(Swarm, a_removed_service_takes_its_containers_along),
    case!(Swarm, a_task_object_has_the_documented_fields),
    case!(Swarm, task_filters_select),
    case!(Swarm, templates_are_expanded),
    case!(Swarm, a_bad_mount_rejects_the_task),
];

fn item_023_containers_are_named_after_their_tasks(cx: &Cx<'_>) -> Result<()> {
    let web = cx.service("web", json!({}))?;
    let agent = cx.service("agent", json!({"Mode": {"Global": {}}}))?;
    let node = cx.node_id()?;
    for (service, name, middle) in [(web, cx.name("web"), "1"), (agent, cx.name("agent"), node.as_str())] {
        let task = cx.wait_running(&service, 1)?.remove(0);
        let container = cx.inspect(&text(&task["Status"]["ContainerStatus"]["ContainerID"]))?;
        same!(container["Name"], format!("/{name}.{middle}.{}", text(&task["ID"])), "name");
        same!(container["Config"]["Hostname"], text(&container["Id"])[..12], "host name");
        same!(container["State"]["Pid"], task["Status"]["ContainerStatus"]["PID"], "process id");
    }
    Ok(())
}

fn item_024_the_six_swarm_labels_and_no_service_labels(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"Labels": {"outer": "1"}, "TaskTemplate": {"ContainerSpec": {"Labels": {"inner": "2", "com.docker.swarm.task.id": "mine"}}}});
    let service = cx.service("svc", spec)?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    let container = cx.inspect(&text(&task["Status"]["ContainerStatus"]["ContainerID"]))?;
    let (id, name) = (text(&task["ID"]), cx.name("svc"));
    let wanted = json!({
        "inner": "2", "com.docker.swarm.task": "", "com.docker.swarm.task.id": id, "com.docker.swarm.task.name": format!("{name}.1.{id}"),
        "com.docker.swarm.node.id": cx.node_id()?, "com.docker.swarm.service.id": service, "com.docker.swarm.service.name": name,
    });
    same!(container["Config"]["Labels"], wanted, "labels");
    Ok(())
}

fn item_025_exit_codes_become_task_states(cx: &Cx<'_>) -> Result<()> {
    let once = json!({"TaskTemplate": {"RestartPolicy": {"Condition": "none"}}});
    let bad = cx.shell_service("bad", "exit 3", once.clone())?;
    let good = cx.shell_service("good", "exit 0", once)?;
    let failed = cx.wait_task(&bad, "the failing task fails", |task| task["Status"]["State"] == "failed")?;
    same!(failed["Status"]["Err"], "task: non-zero exit (3)", "error");
    same!(failed["Status"]["ContainerStatus"]["ExitCode"], 3, "exit code");
    same!(failed["Status"]["Message"], "started", "message");
    let complete = cx.wait_task(&good, "the other completes", |task| task["Status"]["State"] == "complete")?;
    same!(complete["Status"].get("Err"), None, "error");
    same!(complete["Status"]["Message"], "finished", "message");
    Ok(())
}

fn item_026_a_failing_task_is_tried_again_every_five_seconds(cx: &Cx<'_>) -> Result<()> {
    let service = cx.shell_service("svc", "exit 1", json!({}))?;
    let mut tasks = cx.until("three tasks have failed", || {
        let failed: Vec<Value> =
            cx.tasks(&service)?.into_iter().filter(|task| task["Status"]["State"] == "failed").collect();
        ensure!(failed.len() >= 3, "{}", cx.states(&service)?);
        Ok(failed)
    })?;
    tasks.sort_by_key(|task| text(&task["CreatedAt"]));
    for pair in tasks.windows(2) {
        let apart = unix_nanos(&pair[1]["Status"]["Timestamp"])? - unix_nanos(&pair[0]["Status"]["Timestamp"])?;
        // the end of the first begins the delay; how long the second takes after it is up to the machine
        ensure!((5_000_000_000..20_000_000_000).contains(&apart), "two failures are {apart} ns apart");
    }
    Ok(())
}

fn item_027_max_attempts_counts_for_each_spec_version(cx: &Cx<'_>) -> Result<()> {
    let policy =
        json!({"TaskTemplate": {"RestartPolicy": {"Condition": "any", "Delay": 200_000_000, "MaxAttempts": 2}}});
    let service = cx.shell_service("svc", "exit 1", policy)?;
    let ended = |count: usize| {
        cx.until(&format!("{count} tasks have failed and none is to come"), || {
            let tasks = cx.tasks(&service)?;
            let failed = tasks
                .iter()
                .filter(|task| task["Status"]["State"] == "failed" && task["DesiredState"] == "shutdown")
                .count();
            ensure!(failed >= count && failed == tasks.len(), "{}", cx.states(&service)?);
            Ok(tasks)
        })
    };
    let first = ended(3)?;
    same!(first.len(), 3, "tasks of the first spec");
    let last =
        text(&first.iter().max_by_key(|task| text(&task["CreatedAt"])).cloned().unwrap_or_default()["CreatedAt"]);
    cx.update(&service, json!({"TaskTemplate": {"ContainerSpec": {"Env": ["again=1"]}}}))?;
    cx.until("three tasks of the second spec have failed", || {
        let tasks = cx.tasks(&service)?;
        let new =
            tasks.iter().filter(|task| text(&task["CreatedAt"]) > last && task["Status"]["State"] == "failed").count();
        ensure!(
            new == 3 && tasks.iter().all(|task| task["DesiredState"] == "shutdown"),
            "{new} new ones; {}",
            cx.states(&service)?
        );
        Ok(())
    })
}

/// Exits 3 seven times, then sleeps; it counts in a volume.
const SEVEN_FAILURES: &str =
    "n=$(cat /v/n 2>/dev/null || echo 0); echo $((n + 1)) >/v/n; [ $n -ge 7 ] && sleep 1000; exit 3";

fn item_028_five_records_are_kept_of_a_slot(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"TaskTemplate": {"RestartPolicy": {"Condition": "any", "Delay": 100_000_000},
        "ContainerSpec": {"Mounts": [{"Type": "volume", "Source": cx.name("count"), "Target": "/v"}]}}});
    let service = cx.shell_service("svc", SEVEN_FAILURES, spec)?;
    cx.until("the eighth task runs, and five records are left", || {
        let tasks = cx.tasks(&service)?;
        let stays = tasks.iter().find(|task| task["Status"]["State"] == "running" && task["DesiredState"] == "running");
        let failed = tasks.iter().filter(|task| task["Status"]["State"] == "failed").count();
        ensure!(failed == 4 && tasks.len() == 5, "{}", cx.states(&service)?);
        let container = stays.map(|task| text(&task["Status"]["ContainerStatus"]["ContainerID"])).unwrap_or_default();
        let (_, started) = cx.exec(&container, &["cat", "/v/n"], json!({}))?;
        same!(started.out.trim(), "8", "how often it was started");
        Ok(())
    })?;
    let filters = json!({"label": [format!("com.docker.swarm.service.id={service}")]});
    cx.until("as many containers as records", || {
        let containers = cx.engine.list("/containers/json?all=1", &filters)?;
        ensure!(containers.len() == 5, "{} containers", containers.len());
        Ok(())
    })
}

fn item_029_a_missing_bind_source_rejects_the_task(cx: &Cx<'_>) -> Result<()> {
    let mount = json!({"Type": "bind", "Source": "/no/such/place", "Target": "/a"});
    let service = cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount]}}}))?;
    let task = cx.wait_task(&service, "the task is rejected", |task| task["Status"]["State"] == "rejected")?;
    let wanted = "invalid mount config for type \"bind\": bind source path does not exist: /no/such/place";
    let other = "invalid bind mount source, source path not found: /no/such/place";
    let error = text(&task["Status"]["Err"]);
    ensure!(error == other || error.contains(wanted), "error {error:?}");
    ensure!(!std::path::Path::new("/no/such/place").exists(), "the source was made");
    Ok(())
}

fn item_030_an_unknown_image_rejects_the_task(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Image": "127.0.0.1:1/nothing:1"}}}))?;
    let task = cx.wait_task(&service, "the task is rejected", |task| task["Status"]["State"] == "rejected")?;
    ensure!(!text(&task["Status"]["Err"]).is_empty(), "no error in {}", task["Status"]);
    same!(task["Status"]["Message"], "preparing", "message");
    Ok(())
}

fn item_030_the_pull_error_is_the_tasks_error(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Image": "127.0.0.1:1/nothing:1"}}}))?;
    let task = cx.wait_task(&service, "the task is rejected", |task| task["Status"]["State"] == "rejected")?;
    ensure!(text(&task["Status"]["Err"]).contains("127.0.0.1:1"), "error {}", task["Status"]["Err"]);
    ensure!(!text(&task["Status"]["Err"]).contains("No such image"), "error {}", task["Status"]["Err"]);
    Ok(())
}

fn restart_conditions_decide_whether_a_task_comes_back(cx: &Cx<'_>) -> Result<()> {
    let policy =
        |condition: &str| json!({"TaskTemplate": {"RestartPolicy": {"Condition": condition, "Delay": 100_000_000}}});
    let never = cx.shell_service("never", "exit 1", policy("none"))?;
    let fine = cx.shell_service("fine", "exit 0", policy("on-failure"))?;
    let failing = cx.shell_service("failing", "exit 1", policy("on-failure"))?;
    let always = cx.shell_service("always", "exit 0", policy("any"))?;
    for (service, state) in [(&never, "failed"), (&fine, "complete")] {
        cx.wait_task(service, &format!("{state} for good"), |task| {
            task["Status"]["State"] == state && task["DesiredState"] == "shutdown"
        })?;
    }
    // whatever is decided about them has been decided by the time that the other two have come back again
    for service in [&failing, &always] {
        cx.wait_another(service)?;
    }
    for service in [&never, &fine] {
        same!(cx.tasks(service)?.len(), 1, "tasks: {}", cx.states(service)?);
    }
    Ok(())
}

fn a_task_whose_container_is_removed_fails_and_comes_back(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"TaskTemplate": {"RestartPolicy": {"Delay": 100_000_000}}}))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
    cx.delete(&format!("/containers/{container}?force=1"))?.status(204)?;
    let failed = cx.wait_task(&service, "the task fails", |other| {
        other["ID"] == task["ID"] && other["Status"]["State"] == "failed" && other["DesiredState"] == "shutdown"
    })?;
    ensure!(!text(&failed["Status"]["Err"]).is_empty(), "no error");
    let next = cx.wait_running(&service, 1)?.remove(0);
    ensure!(next["ID"] != task["ID"] && next["Slot"] == 1, "the next task is {next}");
    Ok(())
}

fn a_task_waits_for_its_health_check(cx: &Cx<'_>) -> Result<()> {
    let health = json!({"Test": ["CMD-SHELL", "test -e /tmp/ready"], "Interval": 200_000_000, "Retries": 1000});
    let service = cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Healthcheck": health}}}))?;
    let task = cx.wait_task(&service, "the task is starting", |task| task["Status"]["State"] == "starting")?;
    let name = format!("{}.1.{}", cx.name("svc"), text(&task["ID"]));
    cx.until("a check has failed", || {
        let streak = cx.inspect(&name)?["State"]["Health"]["FailingStreak"].as_i64();
        ensure!(streak >= Some(2), "streak {streak:?}");
        Ok(())
    })?;
    same!(cx.tasks(&service)?[0]["Status"]["State"], "starting", "state while the check fails");
    cx.exec(&name, &["touch", "/tmp/ready"], json!({}))?;
    cx.wait_running(&service, 1).map(drop)
}

fn an_unhealthy_task_fails_and_comes_back(cx: &Cx<'_>) -> Result<()> {
    let health = json!({"Test": ["CMD-SHELL", "test ! -e /tmp/sick"], "Interval": 200_000_000, "Retries": 2});
    let spec =
        json!({"TaskTemplate": {"ContainerSpec": {"Healthcheck": health}, "RestartPolicy": {"Delay": 100_000_000}}});
    let service = cx.service("svc", spec)?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    cx.exec(&text(&task["Status"]["ContainerStatus"]["ContainerID"]), &["touch", "/tmp/sick"], json!({}))?;
    let failed = cx.wait_task(&service, "the task fails", |other| {
        other["ID"] == task["ID"] && other["Status"]["State"] == "failed"
    })?;
    same!(failed["Status"]["Err"], "task: non-zero exit (137): dockerexec: unhealthy container", "error");
    cx.wait_running(&service, 1).map(drop)
}

fn a_removed_service_takes_its_containers_along(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
    cx.wait_running(&service, 3)?;
    cx.delete(&format!("/services/{service}"))?.status(200)?;
    let filters = json!({"label": [format!("com.docker.swarm.service.id={service}")]});
    cx.until("no container is left", || {
        let left = cx.engine.list("/containers/json?all=1", &filters)?.len();
        ensure!(left == 0, "{left} left");
        let tasks = cx
            .engine
            .list("/tasks", &json!({}))?
            .into_iter()
            .filter(|task| task["ServiceID"] == service.as_str())
            .count();
        ensure!(tasks == 0, "{tasks} tasks left");
        Ok(())
    })
}

fn a_task_object_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Env": ["a=b"]}}}))?;
    let listed = cx.wait_running(&service, 1)?.remove(0);
    let task = cx.get(&format!("/tasks/{}", text(&listed["ID"])))?.json()?;
    same!(task["ID"], listed["ID"], "id");
    same!(task["ServiceID"], service, "service");
    same!(task["Slot"], 1, "slot");
    same!(task["NodeID"], cx.node_id()?, "node");
    same!(task["Labels"], json!({}), "labels");
    same!(task["Spec"]["ContainerSpec"]["Env"], json!(["a=b"]), "environment");
    same!(task["DesiredState"], "running", "desired state");
    same!(task["Status"]["Message"], "started", "message");
    same!(task["Status"]["PortStatus"], json!({}), "port status");
    same!(task["Status"]["ContainerStatus"]["ExitCode"], 0, "exit code");
    ensure!(task["Status"]["ContainerStatus"]["PID"].as_u64() > Some(0), "process id {}", task["Status"]);
    ensure!(text(&task["Status"]["Timestamp"]).ends_with('Z'), "time {}", task["Status"]);
    Ok(())
}

fn task_filters_select(cx: &Cx<'_>) -> Result<()> {
    let service =
        cx.service("svc", json!({"Labels": {"tier": cx.name("t")}, "Mode": {"Replicated": {"Replicas": 2}}}))?;
    let old = ids(&cx.wait_running(&service, 2)?);
    cx.update(
        &service,
        json!({"TaskTemplate": {"ForceUpdate": 1}, "UpdateConfig": {"Parallelism": 0, "Monitor": 1_000_000}}),
    )?;
    let new = cx.until("two other tasks run", || {
        let running = ids(&cx.running(&service)?);
        ensure!(running.len() == 2 && running.iter().all(|id| !old.contains(id)), "{}", cx.states(&service)?);
        Ok(running)
    })?;
    let both = {
        let mut all = [old.clone(), new.clone()].concat();
        all.sort();
        all
    };
    let select = |filters: Value| -> Result<Vec<String>> { Ok(ids(&cx.engine.list("/tasks", &filters)?)) };
    same!(select(json!({"service": [service]}))?, both, "by service id");
    same!(select(json!({"service": [cx.name("svc")]}))?, both, "by service name");
    same!(select(json!({"service": [service], "desired-state": ["running"]}))?, new, "by desired state");
    same!(
        select(json!({"service": [service], "desired-state": ["running", "shutdown"]}))?,
        both,
        "by either desired state"
    );
    same!(select(json!({"service": [service], "node": [cx.node_id()?]}))?, both, "by node");
    same!(select(json!({"id": [new[0][..20].to_owned()]}))?, vec![new[0].clone()], "by id prefix");
    same!(select(json!({"label": [format!("tier={}", cx.name("t"))]}))?, both, "by the service's label");
    same!(select(json!({"service": [service], "_up-to-date": ["true"]}))?, new, "up to date");
    same!(
        select(json!({"name": [format!("{}.1", cx.name("svc"))], "desired-state": ["running"]}))?.len(),
        1,
        "by name prefix"
    );
    Ok(())
}

fn templates_are_expanded(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"TaskTemplate": {"ContainerSpec": {
        "Hostname": "{{.Service.Name}}-{{.Task.Slot}}",
        "Env": ["TASK={{.Task.ID}}", "NAME={{.Task.Name}}", "NODE={{.Node.ID}}", "HOST={{.Node.Hostname}}", "SVC={{.Service.ID}}",
            "LABEL={{index .Service.Labels \"tier\"}}", "PLATFORM={{.Node.Platform.OS}}", "PLAIN=a b"],
        "Mounts": [{"Type": "volume", "Source": "{{.Service.Name}}-{{.Task.Slot}}", "Target": "/v"}]}}, "Labels": {"tier": "front"}});
    let service = cx.service("svc", spec)?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    let container = cx.inspect(&text(&task["Status"]["ContainerStatus"]["ContainerID"]))?;
    let node = cx.get(&format!("/nodes/{}", cx.node_id()?))?.json()?;
    let (id, name) = (text(&task["ID"]), cx.name("svc"));
    same!(container["Config"]["Hostname"], format!("{name}-1"), "host name");
    let environment = container["Config"]["Env"].to_string();
    for wanted in [
        format!("TASK={id}"),
        format!("NAME={name}.1.{id}"),
        format!("NODE={}", text(&node["ID"])),
        format!("SVC={service}"),
        format!("HOST={}", text(&node["Description"]["Hostname"])),
        "LABEL=front".to_owned(),
        "PLATFORM=linux".to_owned(),
        "PLAIN=a b".to_owned(),
    ] {
        ensure!(environment.contains(&format!("\"{wanted}\"")), "no {wanted} in {environment}");
    }
    same!(container["Mounts"][0]["Name"], format!("{name}-1"), "volume");
    let bad = cx.service("bad", json!({"TaskTemplate": {"ContainerSpec": {"Hostname": "{{.Nothing}}"}}}));
    match bad {
        // either at once or when the task is made
        Err(_) => Ok(()),
        Ok(service) => cx
            .wait_task(&service, "a bad template rejects the task", |task| task["Status"]["State"] == "rejected")
            .map(drop),
    }
}

fn a_bad_mount_rejects_the_task(cx: &Cx<'_>) -> Result<()> {
    for (number, (mount, wanted)) in [
        (json!({"Type": "tmpfs", "Target": "relative"}), "invalid mount target, must be an absolute path: relative"),
        (
            json!({"Type": "bind", "Source": "relative", "Target": "/a"}),
            "invalid bind mount source, must be an absolute path: relative",
        ),
        (
            json!({"Type": "volume", "Source": "/absolute", "Target": "/a"}),
            "invalid volume mount source, must not be an absolute path: /absolute",
        ),
        (json!({"Type": "tmpfs", "Source": "x", "Target": "/a"}), "invalid tmpfs source, source must be empty"),
    ]
    .into_iter()
    .enumerate()
    {
        let service =
            cx.service(&format!("svc{number}"), json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount]}}}))?;
        let task = cx.wait_task(&service, "the task is rejected", |task| task["Status"]["State"] == "rejected")?;
        ensure!(text(&task["Status"]["Err"]).contains(wanted), "wanted {wanted}: {}", task["Status"]["Err"]);
    }
    Ok(())
}
