//! What a person sees who types `docker service …`: the client's own convergence loop and tables.

use crate::client::Done;
use crate::cx::Cx;
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, service_create_converges_and_prints_the_id),
    case!(Swarm, service_ls_and_ps_show_replicas_and_history),
    case!(Swarm, service_update_pauses_with_an_error),
    case!(Swarm, service_scale_rollback_and_rm_print_what_they_did),
    case!(Swarm, service_logs_have_the_task_in_front),
    case!(Swarm, node_ls_ps_and_inspect_show_this_node),
    case!(Swarm, service_flags_reach_the_spec),
];

/// `docker service create` of busybox that sleeps, with these options; it ends when the service has converged.
fn create(cx: &Cx<'_>, name: &str, options: &[&str]) -> Result<Done> {
    let service = ["service", "create", "--name", name, "--stop-signal", "SIGKILL"];
    cx.docker(&[&service[..], options, &["busybox:latest", "sleep", "1000"]].concat())?.ended(0)
}

fn service_create_converges_and_prints_the_id(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    let done = create(cx, &name, &["--replicas", "2"])?;
    let id = done.out.lines().next().unwrap_or_default();
    ensure!(super::services::is_swarm_id(id), "first line {id:?}");
    ensure!(done.out.contains(&format!("verify: Service {id} converged")), "{}", done.out);
    let again = cx.docker(&["service", "create", "--detach", "--name", &name, "busybox"])?.ended(1)?;
    let wanted = format!("name conflicts with an existing object: service {name} already exists");
    ensure!(again.err.contains(&wanted), "{}", again.err);
    Ok(())
}

fn service_ls_and_ps_show_replicas_and_history(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    create(cx, &name, &["--quiet"])?;
    let listed = cx
        .docker(&[
            "service",
            "ls",
            "--filter",
            &format!("name={name}"),
            "--format",
            "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}",
        ])?
        .ok()?;
    same!(listed, format!("{name} replicated 1/1 busybox:latest"), "service ls");
    cx.docker(&["service", "update", "--quiet", "--force", "--update-monitor", "100ms", &name])?.ok()?;
    let tasks =
        cx.docker(&["service", "ps", "--format", "{{.Name}} {{.DesiredState}} {{.CurrentState}}", &name])?.ok()?;
    let lines: Vec<&str> = tasks.lines().collect();
    same!(lines.len(), 2, "lines of service ps: {tasks}");
    ensure!(lines[0].starts_with(&format!("{name}.1 Running Running ")), "{tasks}");
    ensure!(lines[1].starts_with(&format!("{name}.1 Shutdown Shutdown ")), "{tasks}");
    Ok(())
}

fn service_update_pauses_with_an_error(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    create(cx, &name, &["--quiet"])?;
    let done = cx.docker(&["service", "update", "--args", "false", "--restart-delay", "100ms", &name])?.ended(1)?;
    let all = format!("{}{}", done.out, done.err);
    ensure!(all.contains("service update paused: update paused due to failure or early termination of task "), "{all}");
    Ok(())
}

fn service_scale_rollback_and_rm_print_what_they_did(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    create(cx, &name, &["--quiet", "--update-monitor", "100ms", "--rollback-monitor", "100ms"])?;
    let scaled = cx.docker(&["service", "scale", &format!("{name}=3")])?.ok()?;
    ensure!(scaled.starts_with(&format!("{name} scaled to 3")) && scaled.contains("converged"), "{scaled}");
    let back = cx.docker(&["service", "rollback", &name])?.ended(0)?;
    ensure!(
        back.out.contains("rollback: manually requested rollback") || back.out.contains("converged"),
        "{}",
        back.out
    );
    let replicas = cx.docker(&["service", "inspect", "--format", "{{.Spec.Mode.Replicated.Replicas}}", &name])?.ok()?;
    same!(replicas, "1", "replicas after the rollback");
    let pretty = cx.docker(&["service", "inspect", "--pretty", &name])?.ok()?;
    ensure!(pretty.contains("Service Mode:") && pretty.contains("Replicated"), "{pretty}");
    same!(cx.docker(&["service", "rm", &name])?.ok()?, name, "service rm");
    let gone = cx.docker(&["service", "ps", &name])?.ended(1)?;
    ensure!(gone.err.contains(&format!("no such service: {name}")), "{}", gone.err);
    Ok(())
}

fn service_logs_have_the_task_in_front(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    let line = ["busybox", "sh", "-c", "echo said; sleep 1000"];
    cx.docker(&[&["service", "create", "--quiet", "--name", &name, "--stop-signal", "SIGKILL"], &line[..]].concat())?
        .ok()?;
    let logs = cx.until("the line is in the log", || {
        let logs = cx.docker(&["service", "logs", &name])?.ok()?;
        ensure!(logs.ends_with("| said"), "{logs}");
        Ok(logs)
    })?;
    ensure!(logs.starts_with(&format!("{name}.1.")) && logs.contains('@'), "{logs}");
    Ok(())
}

fn node_ls_ps_and_inspect_show_this_node(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    create(cx, &name, &["--quiet"])?;
    let format = "{{.Self}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.TLSStatus}}";
    same!(cx.docker(&["node", "ls", "--format", format])?.ok()?, "true Ready Active Leader Ready", "node ls");
    let tasks =
        cx.docker(&["node", "ps", "self", "--filter", &format!("name={name}"), "--format", "{{.Name}}"])?.ok()?;
    same!(tasks, format!("{name}.1"), "node ps");
    let pretty = cx.docker(&["node", "inspect", "--pretty", "self"])?.ok()?;
    ensure!(
        pretty.contains("Raft Status:") && pretty.contains("Reachable") && pretty.contains("Availability:"),
        "{pretty}"
    );
    Ok(())
}

fn service_flags_reach_the_spec(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("web");
    let flags = [
        "--replicas",
        "0",
        "--env",
        "A=B",
        "--label",
        "l=m",
        "--container-label",
        "c=d",
        "--hostname",
        "h",
        "--user",
        "405",
        "--workdir",
        "/tmp",
        "--mount",
        "type=tmpfs,target=/m",
        "--limit-memory",
        "32M",
        "--limit-cpu",
        "0.5",
        "--reserve-memory",
        "8M",
        "--restart-condition",
        "on-failure",
        "--restart-max-attempts",
        "3",
        "--constraint",
        "node.role==manager",
        "--placement-pref",
        "spread=node.labels.x",
        "--health-cmd",
        "true",
        "--stop-grace-period",
        "7s",
        "--update-parallelism",
        "2",
        "--update-order",
        "start-first",
        "--rollback-failure-action",
        "continue",
        "--init",
    ];
    cx.docker(
        &[&["service", "create", "--detach", "--quiet", "--name", &name], &flags[..], &["busybox", "sleep", "9"]]
            .concat(),
    )?
    .ok()?;
    let spec = cx.see_service(&name)?["Spec"].clone();
    let (template, container) = (&spec["TaskTemplate"], &spec["TaskTemplate"]["ContainerSpec"]);
    same!(container["Env"][0], "A=B", "env");
    same!(container["Args"], serde_json::json!(["sleep", "9"]), "args");
    same!(container["Mounts"][0]["Type"], "tmpfs", "mount");
    same!(container["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]), "health");
    same!(container["StopGracePeriod"], 7_000_000_000_u64, "grace period");
    same!(template["Resources"]["Limits"]["NanoCPUs"], 500_000_000, "cpus");
    same!(template["RestartPolicy"]["MaxAttempts"], 3, "attempts");
    same!(template["Placement"]["Preferences"][0]["Spread"]["SpreadDescriptor"], "node.labels.x", "preference");
    same!(spec["UpdateConfig"]["Order"], "start-first", "order");
    same!(spec["RollbackConfig"]["FailureAction"], "continue", "rollback action");
    Ok(())
}
