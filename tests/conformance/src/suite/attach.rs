//! A container's own streams, over raw HTTP and as the client types them.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::json;

use crate::client::finish;
use crate::cx::{Cx, demultiplex};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::Stream;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, attach_before_start_sees_everything),
    case!(Engine, attach_sends_standard_input),
    case!(Engine, attach_without_upgrade_works_too),
    case!(Engine, attach_can_begin_with_the_log),
    case!(Engine, attach_to_a_terminal_is_raw_and_resizes),
    case!(Engine, several_clients_attach_at_once),
    case!(Engine, a_client_that_goes_away_harms_nobody),
    case!(Engine, cli_run_behaves_as_typed),
    case!(Engine, cli_run_in_the_background_and_attach),
    case!(Engine, cli_run_on_a_terminal),
    case!(Engine, cli_run_forwards_signals),
    case!(Engine, cli_logs_and_ps_and_inspect_formats),
];

const UPGRADE: &[(&str, &str)] = &[("Connection", "Upgrade"), ("Upgrade", "tcp")];

impl Cx<'_> {
    fn attach(&self, container: &str, query: &str) -> Result<Stream> {
        let stream = self.engine.open("POST", &format!("/containers/{container}/attach?{query}"), UPGRADE, b"")?;
        same!(stream.head.status, 101, "status of attach");
        Ok(stream)
    }
}

fn rest(mut stream: Stream) -> Result<Vec<u8>> {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen)?;
    Ok(seen)
}

fn attach_before_start_sees_everything(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create(
        "c",
        json!({"Cmd": ["sh", "-c", "echo out; echo err >&2"], "AttachStdout": true, "AttachStderr": true}),
    )?;
    let stream = cx.attach(&id, "stream=1&stdout=1&stderr=1")?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    let output = demultiplex(&rest(stream)?)?;
    same!((output.out.as_str(), output.err.as_str()), ("out\n", "err\n"), "output");
    Ok(())
}

fn attach_sends_standard_input(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": true, "StdinOnce": true, "AttachStdin": true});
    let id = cx.create("c", spec)?;
    let mut stream = cx.attach(&id, "stream=1&stdin=1&stdout=1")?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    stream.connection().write_all(b"hello\n")?;
    stream.connection().shutdown(std::net::Shutdown::Write)?;
    same!(demultiplex(&rest(stream)?)?.out, "hello\nend\n", "output");
    same!(cx.wait(&id)?, 0, "exit code");
    Ok(())
}

fn attach_without_upgrade_works_too(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["echo", "said"]}))?;
    let stream = cx.engine.open("POST", &format!("/containers/{id}/attach?stream=1&stdout=1"), &[], b"")?;
    same!(stream.head.status, 200, "status");
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    same!(demultiplex(&rest(stream)?)?.out, "said\n", "output");
    Ok(())
}

fn attach_can_begin_with_the_log(cx: &Cx<'_>) -> Result<()> {
    let id = cx.ready("c", "echo ready; while ! test -e /tmp/go; do sleep 0.05; done; echo later", json!({}))?;
    let stream = cx.attach(&id, "logs=1&stream=1&stdout=1")?;
    cx.exec(&id, &["touch", "/tmp/go"], json!({}))?;
    same!(demultiplex(&rest(stream)?)?.out, "ready\nlater\n", "log and stream");
    let only = cx.engine.open("POST", &format!("/containers/{id}/attach?logs=1&stdout=1"), &[], b"")?;
    same!(demultiplex(&rest(only)?)?.out, "ready\nlater\n", "the log alone");
    Ok(())
}

fn attach_to_a_terminal_is_raw_and_resizes(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["sh"], "Tty": true, "OpenStdin": true}))?;
    let mut stream = cx.attach(&id, "stream=1&stdin=1&stdout=1")?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    cx.act(&format!("/containers/{id}/resize?h=44&w=99"))?.status(200)?;
    stream.connection().write_all(b"stty size; exit 3\n")?;
    let seen = String::from_utf8_lossy(&rest(stream)?).into_owned();
    ensure!(seen.contains("44 99\r\n"), "{seen:?}");
    same!(cx.wait(&id)?, 3, "exit code");
    Ok(())
}

fn several_clients_attach_at_once(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done"]}))?;
    let streams: Result<Vec<Stream>> = (0..5).map(|_| cx.attach(&id, "stream=1&stdout=1")).collect();
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    for stream in streams? {
        same!(demultiplex(&rest(stream)?)?.out, "line 1\nline 2\nline 3\nline 4\nline 5\n", "output");
    }
    Ok(())
}

fn a_client_that_goes_away_harms_nobody(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create(
        "c",
        json!({"Cmd": ["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done; echo end"]}),
    )?;
    let gone = cx.attach(&id, "stream=1&stdout=1")?;
    // this one never reads
    let lazy = cx.attach(&id, "stream=1&stdout=1")?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    drop(gone);
    same!(cx.wait(&id)?, 0, "exit code");
    let log = cx.logs(&id, "stdout=1")?.out;
    ensure!(log.lines().count() == 3001 && log.ends_with("end\n"), "{} lines", log.lines().count());
    drop(lazy);
    Ok(())
}

fn cli_run_behaves_as_typed(cx: &Cx<'_>) -> Result<()> {
    let done = cx
        .docker(&["run", "--rm", "--name", &cx.name("a"), "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])?
        .ended(7)?;
    same!((done.out.as_str(), done.err.as_str()), ("out\n", "err\n"), "output");
    let piped = cx
        .engine
        .docker(&["run", "--rm", "-i", "--name", &cx.name("b"), "busybox", "wc", "-c"], Some(&[b'x'; 1_000_000]))?;
    same!(piped.ok()?.trim(), "1000000", "bytes through standard input");
    let missing = cx.docker(&["run", "--rm", "--name", &cx.name("c"), "busybox", "nosuchcommand"])?.ended(127)?;
    ensure!(missing.err.contains("nosuchcommand"), "{}", missing.err);
    cx.docker(&["run", "--rm", "--name", &cx.name("d"), "busybox", "/etc"])?.ended(126)?;
    let flags = cx.docker(&["run", "--rm", "--no-such-flag", "busybox"])?.ended(125)?;
    ensure!(flags.err.contains("unknown flag"), "{}", flags.err);
    let left = cx.docker(&["ps", "-aq", "--filter", &format!("name={}", cx.name(""))])?.ok()?;
    same!(left, "", "containers left by --rm");
    Ok(())
}

fn cli_run_in_the_background_and_attach(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("c");
    let line = "while ! test -e /tmp/go; do sleep 0.05; done; echo now; exit 6";
    let id = cx.docker(&["run", "-d", "--name", &name, "busybox", "sh", "-c", line])?.ok()?;
    same!(id.len(), 64, "length of {id:?}");
    std::thread::scope(|scope| -> Result<()> {
        let attached = scope.spawn(|| cx.docker(&["attach", &name]));
        cx.until("the client is attached, and sees the end", || {
            cx.docker(&["exec", &name, "touch", "/tmp/go"])?;
            let state = cx.inspect(&name)?["State"]["Status"].clone();
            ensure!(state == "exited", "{state}");
            Ok(())
        })?;
        let done = attached.join().map_err(|_| Failure::wrong("the attached client ended badly"))??;
        ensure!([6, 1].contains(&done.code), "{done:?}");
        Ok(())
    })?;
    let late = cx.docker(&["attach", &name])?.ended(1)?;
    ensure!(late.err.to_lowercase().contains("cannot attach to a stopped container"), "{}", late.err);
    same!(cx.docker(&["wait", &name])?.ok()?, "6", "docker wait");
    same!(cx.docker(&["start", "-a", &name])?.ended(6)?.out, "now\n", "docker start -a");
    Ok(())
}

/// Runs a client's command on a terminal of its own.
fn on_a_terminal(cx: &Cx<'_>, arguments: &str) -> Result<String> {
    let client = cx
        .engine
        .cli
        .clone()
        .ok_or_else(|| Failure::Skipped("no docker client here that the engine accepts".to_owned()))?;
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("stty rows 31 cols 97; {client} {arguments}"), "/dev/null"])
        .env("DOCKER_HOST", cx.engine.address.url());
    Ok(finish(command, None)?.out)
}

fn cli_run_on_a_terminal(cx: &Cx<'_>) -> Result<()> {
    let line = "sh -c 'i=0; while [ $i -lt 400 ] && ! stty size | grep -q 31; do i=$((i + 1)); sleep 0.05; done; test -t 0 && stty size'";
    let seen = on_a_terminal(cx, &format!("run --rm -it --name {} busybox {line}", cx.name("c")))?;
    ensure!(seen.contains("31 97"), "{seen:?}");
    cx.sleeper("d")?;
    let seen = on_a_terminal(cx, &format!("exec -it {} {line}", cx.name("d")))?;
    ensure!(seen.contains("31 97"), "{seen:?}");
    Ok(())
}

fn cli_run_forwards_signals(cx: &Cx<'_>) -> Result<()> {
    let client = cx
        .engine
        .cli
        .clone()
        .ok_or_else(|| Failure::Skipped("no docker client here that the engine accepts".to_owned()))?;
    let line = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = Command::new(client);
    child
        .args(["run", "--rm", "--name", &cx.name("c"), "busybox", "sh", "-c", line])
        .env("DOCKER_HOST", cx.engine.address.url());
    let mut child = child.stdout(std::process::Stdio::piped()).spawn()?;
    let mut first = [0; 6];
    if let Some(out) = child.stdout.as_mut() {
        out.read_exact(&mut first)?;
    }
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &child.id().to_string()]);
    finish(kill, None)?.ok()?;
    same!(child.wait()?.code(), Some(9), "exit code of docker run");
    Ok(())
}

fn cli_logs_and_ps_and_inspect_formats(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("c");
    cx.docker(&["run", "--name", &name, "--label", "a=b", "busybox", "sh", "-c", "echo one; echo two; exit 3"])?
        .ended(3)?;
    same!(cx.docker(&["logs", "--tail", "1", &name])?.ok()?, "two", "docker logs");
    let format = "{{.Names}} {{.Image}} {{.State}} {{.Labels}} {{.Command}}";
    let seen = cx.docker(&["ps", "-a", "--no-trunc", "--filter", &format!("name={name}"), "--format", format])?.ok()?;
    same!(seen, format!("{name} busybox exited a=b \"sh -c 'echo one; echo two; exit 3'\""), "docker ps");
    let status = cx.docker(&["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.Status}}"])?.ok()?;
    ensure!(status.starts_with("Exited (3) ") && status.ends_with(" ago"), "{status}");
    same!(
        cx.docker(&["inspect", "-f", "{{.State.ExitCode}} {{.Config.Labels.a}}", &name])?.ok()?,
        "3 b",
        "docker inspect"
    );
    same!(cx.docker(&["rm", &name])?.ok()?, name, "docker rm");
    Ok(())
}
