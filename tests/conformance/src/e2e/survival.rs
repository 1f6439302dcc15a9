//! What must outlive the daemon's death: containers and tasks with their processes, logs, health checks and exec'd shells, and the
//! truth about whatever happened while no daemon was there.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Tally;
use crate::http::Stream;
use crate::images;
use crate::launch::{Daemon, Kind};
use crate::suite::secrets::{encoded, reference};
use crate::{ensure, same};

/// One story: it gets the daemon, alive and with the images, and leaves it alive.
type Story = (&'static str, fn(&mut Daemon) -> Result<()>);

const STORIES: &[Story] = &[
    ("a container keeps its process and loses no log line", a_container_keeps_its_process_and_its_log),
    ("an exit while no daemon was there is reported truly", an_exit_meanwhile_is_reported_truly),
    ("health checks go on", health_checks_go_on),
    ("an exec'd shell goes on, and is known", a_shell_goes_on),
    ("tasks keep their processes", tasks_keep_their_processes),
    ("tasks keep their secrets, in memory only", tasks_keep_their_secrets),
    ("a task that ended meanwhile is replaced", a_task_that_ended_meanwhile_is_replaced),
    ("acknowledged changes of the cluster are kept", acknowledged_changes_are_kept),
    ("SIGTERM is as harmless as SIGKILL", sigterm_is_as_harmless),
    ("twenty deaths in a row leave nothing behind", twenty_deaths),
];

/// Tells every story to one daemon after the other death.
///
/// # Errors
/// There is no daemon to kill, or it does not come back.
pub fn run(kind: Option<Kind>) -> Result<Option<Tally>> {
    let kind =
        kind.ok_or_else(|| Failure::wrong("survival needs an engine that this program starts: --shoal BINARY"))?;
    let mut daemon = Daemon::new(kind, "survive")?;
    let engine = daemon.start()?;
    images::load_all(&engine)?;
    engine.swarm_init()?;
    let mut tally = Tally::default();
    for (name, story) in STORIES {
        match story(&mut daemon) {
            Ok(()) => {
                tally.passed += 1;
                println!("  ok   {name}");
            }
            Err(error) => {
                tally.failed += 1;
                println!("  FAIL {name}: {error}");
                if daemon.pid().is_none() {
                    daemon.start()?;
                }
            }
        }
    }
    if tally.failed > 0 {
        println!("the daemon's log ends with:\n{}", daemon.log_tail(40));
    }
    Ok(Some(tally))
}

/// Does something before the daemon's death, something without a daemon, and something after its return.
fn across<T>(
    daemon: &mut Daemon,
    name: &str,
    before: impl FnOnce(&Cx<'_>) -> Result<T>,
    without: impl FnOnce(&T) -> Result<()>,
    after: impl FnOnce(&Cx<'_>, T) -> Result<()>,
) -> Result<()> {
    let prefix = format!("sv{}-{name}", std::process::id());
    let engine = daemon.start()?;
    let seen = before(&Cx::new(&engine, prefix.clone()))?;
    daemon.kill()?;
    let meanwhile = without(&seen);
    let engine = daemon.start()?;
    let cx = Cx::new(&engine, prefix);
    let done = meanwhile.and_then(|()| after(&cx, seen));
    done.and(cx.clean())
}

/// Sends a signal to a process on this machine.
fn signal(pid: u64, name: &str) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    kill.args(["-s", name, &pid.to_string()]);
    crate::client::finish(kill, None)?.ok().map(drop)
}

/// Waits for something that no engine can be asked about: there is none just now.
fn await_without_engine(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds()? {
        ensure!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A file in the root of a process, as this machine sees it.
fn file_of(pid: u64, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{path}"))
}

fn pid_of(cx: &Cx<'_>, container: &str) -> Result<u64> {
    let pid = cx.inspect(container)?["State"]["Pid"].as_u64().unwrap_or_default();
    if pid > 0 { Ok(pid) } else { Err(Failure::wrong("the container has no process")) }
}

fn a_container_keeps_its_process_and_its_log(daemon: &mut Daemon) -> Result<()> {
    let line = "i=0; while ! test -e /tmp/stop; do i=$((i + 1)); echo line $i; echo $i >/tmp/n; usleep 10000; done; \
        touch /tmp/stopped; sleep 1000";
    let count = |pid: u64| -> Result<u32> {
        // it may be just writing
        let text = std::fs::read_to_string(file_of(pid, "/tmp/n")).unwrap_or_default();
        Ok(text.trim().parse().unwrap_or(0))
    };
    across(
        daemon,
        "log",
        |cx| {
            let id = cx.run("c", json!({"Cmd": ["sh", "-c", line]}))?;
            let pid = pid_of(cx, &id)?;
            cx.until("its first lines", || {
                ensure!(count(pid)? > 50, "{} lines", count(pid)?);
                Ok(())
            })?;
            Ok((id, pid))
        },
        |(_, pid)| {
            let before = count(*pid)?;
            await_without_engine("lines without a daemon", || Ok(count(*pid)? > before + 50))
        },
        |cx, (id, pid)| {
            same!(pid_of(cx, &id)?, pid, "process id");
            let now = count(pid)?;
            cx.until("lines with the new daemon", || {
                ensure!(count(pid)? > now + 50, "{} lines", count(pid)?);
                Ok(())
            })?;
            std::fs::write(file_of(pid, "/tmp/stop"), "")?;
            cx.until("its last line", || {
                ensure!(file_of(pid, "/tmp/stopped").exists(), "it goes on");
                Ok(())
            })?;
            let wanted: String = (1..=count(pid)?).map(|number| format!("line {number}\n")).collect();
            cx.until("the whole log", || {
                let log = cx.logs(&id, "stdout=1")?.out;
                ensure!(log == wanted, "{} of {} bytes, ends with {:?}", log.len(), wanted.len(), log.lines().last());
                Ok(())
            })
        },
    )
}

fn an_exit_meanwhile_is_reported_truly(daemon: &mut Daemon) -> Result<()> {
    across(
        daemon,
        "exit",
        |cx| {
            let id = cx.ready("c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done", json!({}))?;
            let pid = pid_of(cx, &id)?;
            Ok((id, pid, crate::suite::system::now(cx)?))
        },
        |(_, pid, _)| {
            signal(*pid, "USR1")?;
            await_without_engine("the end of its process", || Ok(!Path::new(&format!("/proc/{pid}")).exists()))
        },
        |cx, (id, _, before)| {
            same!(cx.wait(&id)?, 7, "exit code from wait");
            let state = cx.inspect(&id)?["State"].clone();
            same!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(7)), "state");
            let finished = text(&state["FinishedAt"]);
            ensure!(
                finished > before && finished < crate::suite::system::now(cx)?,
                "finished at {finished}, started the test at {before}"
            );
            Ok(())
        },
    )
}

fn health_checks_go_on(daemon: &mut Daemon) -> Result<()> {
    let health = json!({"Test": ["CMD-SHELL", "test -e /tmp/well"], "Interval": 200_000_000, "Retries": 1000});
    across(
        daemon,
        "health",
        |cx| cx.run("c", json!({"Cmd": ["sleep", "1000"], "Healthcheck": health})),
        |_| Ok(()),
        |cx, id| {
            same!(cx.inspect(&id)?["State"]["Health"]["Status"], "starting", "health at first");
            cx.exec(&id, &["touch", "/tmp/well"], json!({}))?;
            cx.until("it is healthy", || {
                let health = cx.inspect(&id)?["State"]["Health"].clone();
                ensure!(health["Status"] == "healthy", "{health}");
                Ok(())
            })
        },
    )
}

fn a_shell_goes_on(daemon: &mut Daemon) -> Result<()> {
    across(
        daemon,
        "shell",
        |cx| {
            let id = cx.sleeper("c")?;
            let line = "echo began; while ! test -e /tmp/go; do sleep 0.05; done; touch /tmp/done; sleep 1000";
            let exec = cx
                .post(&format!("/containers/{id}/exec"), &json!({"AttachStdout": true, "Cmd": ["sh", "-c", line]}))?
                .status(201)?
                .json()?;
            let exec = text(&exec["Id"]);
            let mut stream: Stream = cx.engine.open(
                "POST",
                &format!("/exec/{exec}/start"),
                &[("Content-Type", "application/json")],
                b"{}",
            )?;
            let mut header = [0; 14];
            stream.read_exact(&mut header)?;
            Ok((id, exec))
        },
        |_| Ok(()),
        |cx, (id, exec)| {
            cx.exec(&id, &["touch", "/tmp/go"], json!({}))?;
            cx.until("the shell has gone on", || {
                let (code, _) = cx.exec(&id, &["test", "-e", "/tmp/done"], json!({}))?;
                ensure!(code == 0, "it has not");
                Ok(())
            })?;
            same!(cx.get(&format!("/exec/{exec}/json"))?.json()?["Running"], true, "the exec is known, and runs");
            Ok(())
        },
    )
}

fn tasks_keep_their_processes(daemon: &mut Daemon) -> Result<()> {
    let processes = |cx: &Cx<'_>, service: &str| -> Result<Vec<(String, u64)>> {
        let tasks = cx.wait_running(service, 3)?;
        let mut pids: Vec<(String, u64)> = tasks
            .iter()
            .map(|task| (text(&task["ID"]), task["Status"]["ContainerStatus"]["PID"].as_u64().unwrap_or_default()))
            .collect();
        pids.sort();
        Ok(pids)
    };
    across(
        daemon,
        "tasks",
        |cx| {
            let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 3}}}))?;
            let pids = processes(cx, &service)?;
            Ok((service, pids))
        },
        |_| Ok(()),
        |cx, (service, pids)| {
            same!(processes(cx, &service)?, pids, "tasks and their processes");
            cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 4}}}))?;
            let now = crate::suite::services::ids(&cx.wait_running(&service, 4)?);
            ensure!(
                pids.iter().all(|(task, _)| now.contains(task)),
                "an old task was replaced: {}",
                cx.states(&service)?
            );
            Ok(())
        },
    )
}

fn tasks_keep_their_secrets(daemon: &mut Daemon) -> Result<()> {
    let root = daemon.directory().join("data");
    across(
        daemon,
        "keep",
        |cx| {
            let (id, name) = cx.keep("secrets", "pass", b"never-on-a-disk-7413", json!({}))?;
            let secrets = [reference("Secret", &id, &name, &json!({"Name": "pass"}))];
            let service = cx.service("user", json!({"TaskTemplate": {"ContainerSpec": {"Secrets": secrets}}}))?;
            let task = cx.wait_running(&service, 1)?.remove(0);
            Ok((service, text(&task["ID"])))
        },
        |_| {
            let plain = b"never-on-a-disk-7413";
            let found = holding(&root, &[&plain[..], encoded(plain).as_bytes()]);
            ensure!(found.is_empty(), "on the disk: {found:?}");
            Ok(())
        },
        |cx, (service, task)| {
            same!(cx.in_task(&service, "cat /run/secrets/pass")?, "never-on-a-disk-7413", "secret");
            same!(text(&cx.wait_running(&service, 1)?[0]["ID"]), task, "task");
            // the new daemon has the secret again, for the next task
            cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
            cx.until("the secret in the next task", || {
                same!(cx.in_task(&service, "cat /run/secrets/pass")?, "never-on-a-disk-7413", "secret");
                ensure!(text(&cx.wait_running(&service, 1)?[0]["ID"]) != task, "still the same task");
                Ok(())
            })
        },
    )
}

/// The files below a directory that hold one of these texts.
fn holding(dir: &Path, texts: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(holding(&path, texts)),
            Ok(kind) if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == *text)) {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
    found
}

fn a_task_that_ended_meanwhile_is_replaced(daemon: &mut Daemon) -> Result<()> {
    across(
        daemon,
        "ended",
        |cx| {
            let service = cx.service("svc", json!({"TaskTemplate": {"RestartPolicy": {"Delay": 100_000_000}}}))?;
            let task = cx.wait_running(&service, 1)?.remove(0);
            Ok((service, text(&task["ID"]), task["Status"]["ContainerStatus"]["PID"].as_u64().unwrap_or_default()))
        },
        |(_, _, pid)| signal(*pid, "KILL"),
        |cx, (service, task, _)| {
            let failed = cx.wait_task(&service, "the task is known to have failed", |other| {
                other["ID"] == task && other["Status"]["State"] == "failed"
            })?;
            same!(failed["Status"]["Err"], "task: non-zero exit (137)", "error");
            cx.wait_running(&service, 1).map(drop)
        },
    )
}

fn acknowledged_changes_are_kept(daemon: &mut Daemon) -> Result<()> {
    across(
        daemon,
        "kept",
        |cx| {
            let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 0}}}))?;
            for number in 1..=20 {
                cx.update(&service, json!({"Labels": {"number": number.to_string()}}))?;
            }
            Ok((cx.see_service(&service)?, cx.get("/swarm")?.json()?, cx.node_id()?))
        },
        |_| Ok(()),
        |cx, (service, swarm, node)| {
            let now = cx.see_service(&text(&service["ID"]))?;
            same!(now["Spec"], service["Spec"], "spec of the service");
            same!(now["Version"], service["Version"], "version of the service");
            same!(cx.get("/swarm")?.json()?["JoinTokens"], swarm["JoinTokens"], "tokens");
            same!(cx.node_id()?, node, "node id");
            Ok(())
        },
    )
}

fn sigterm_is_as_harmless(daemon: &mut Daemon) -> Result<()> {
    let engine = daemon.start()?;
    let cx = Cx::new(&engine, format!("sv{}-term", std::process::id()));
    let id = cx.sleeper("c")?;
    let pid = pid_of(&cx, &id)?;
    daemon.stop()?;
    let engine = daemon.start()?;
    let cx = Cx::new(&engine, format!("sv{}-term", std::process::id()));
    same!(pid_of(&cx, &id)?, pid, "process id");
    cx.clean()
}

fn twenty_deaths(daemon: &mut Daemon) -> Result<()> {
    let mut engine = daemon.start()?;
    let prefix = format!("sv{}-often", std::process::id());
    let service = Cx::new(&engine, prefix.clone()).service("svc", json!({"Mode": {"Replicated": {"Replicas": 2}}}))?;
    for force in 1..=20 {
        let cx = Cx::new(&engine, prefix.clone());
        cx.update(
            &service,
            json!({"TaskTemplate": {"ForceUpdate": force}, "UpdateConfig": {"Parallelism": 0, "Monitor": 1_000_000}}),
        )?;
        // another instant of the update each time
        std::thread::sleep(Duration::from_millis(30 * force));
        daemon.kill()?;
        engine = daemon.start()?;
    }
    let cx = Cx::new(&engine, prefix);
    cx.until("two tasks of the last spec run", || {
        let running = cx.running(&service)?;
        ensure!(
            running.len() == 2 && running.iter().all(|task| task["Spec"]["ForceUpdate"] == 20),
            "{}",
            cx.states(&service)?
        );
        Ok(())
    })?;
    cx.clean()
}
