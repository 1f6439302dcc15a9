//! Commands in running containers.

use std::io::{Read, Write};

use serde_json::json;

use crate::client::Api;
use crate::cx::{Cx, demultiplex, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, exec_tells_exit_code_and_both_streams),
    case!(Engine, exec_options_are_obeyed),
    case!(Engine, a_privileged_exec_has_all_capabilities),
    case!(Engine, exec_reads_its_standard_input),
    case!(Engine, exec_of_a_terminal_is_raw),
    case!(Engine, a_detached_exec_goes_on_alone),
    case!(Engine, an_exec_object_has_the_documented_fields),
    case!(Engine, an_exec_needs_a_running_container),
    case!(Engine, an_exec_that_cannot_start_says_why),
    case!(Engine, an_exec_shares_the_containers_limits_and_sandbox),
    case!(Engine, many_execs_at_once),
    case!(Engine, cli_exec_behaves_as_typed),
];

fn exec_tells_exit_code_and_both_streams(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    for code in [0, 3, 255] {
        let (ended, output) =
            cx.exec(&id, &["sh", "-c", &format!("echo out; echo err >&2; exit {code}")], json!({}))?;
        same!((ended, output.out.as_str(), output.err.as_str()), (code, "out\n", "err\n"), "exit {code}");
    }
    same!(cx.exec(&id, &["sh", "-c", "kill -9 $$"], json!({}))?.0, 137, "a killed one");
    Ok(())
}

fn exec_options_are_obeyed(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["sleep", "1000"], "Env": ["A=1", "B=2"], "WorkingDir": "/etc"}))?;
    let line = ["sh", "-c", "echo $A $B $C; pwd; id -u"];
    same!(cx.exec(&id, &line, json!({}))?.1.out, "1 2\n/etc\n0\n", "as the container");
    let options = json!({"Env": ["B=3", "C=4"], "WorkingDir": "/tmp", "User": "guest"});
    same!(cx.exec(&id, &line, options)?.1.out, "1 3 4\n/tmp\n405\n", "with options");
    Ok(())
}

fn a_privileged_exec_has_all_capabilities(cx: &Cx<'_>) -> Result<()> {
    let most = super::sandbox::most_capabilities(cx)?;
    let id = cx.sleeper("c")?;
    let seen = cx.exec(&id, &["grep", "CapEff", "/proc/self/status"], json!({"Privileged": true}))?.1.out;
    ensure!(seen.trim().ends_with(&most), "{seen} instead of {most}");
    Ok(())
}

const UPGRADE: &[(&str, &str)] = &[("Content-Type", "application/json"), ("Connection", "Upgrade"), ("Upgrade", "tcp")];

fn exec_reads_its_standard_input(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let body = json!({"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", "cat; echo end >&2"]});
    let exec = text(&cx.post(&format!("/containers/{id}/exec"), &body)?.status(201)?.json()?["Id"]);
    let mut stream = cx.engine.open("POST", &format!("/exec/{exec}/start"), UPGRADE, b"{}")?;
    same!(stream.head.status, 101, "status");
    stream.connection().write_all(b"hello\n")?;
    stream.connection().shutdown(std::net::Shutdown::Write)?;
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen)?;
    let output = demultiplex(&seen)?;
    same!((output.out.as_str(), output.err.as_str()), ("hello\n", "end\n"), "output");
    Ok(())
}

fn exec_of_a_terminal_is_raw(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let body = json!({"AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": ["sh"]});
    let exec = text(&cx.post(&format!("/containers/{id}/exec"), &body)?.status(201)?.json()?["Id"]);
    let mut stream = cx.engine.open("POST", &format!("/exec/{exec}/start"), UPGRADE, br#"{"Tty": true}"#)?;
    cx.act(&format!("/exec/{exec}/resize?h=33&w=77"))?.ok()?;
    stream.connection().write_all(b"stty size; exit 4\n")?;
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen)?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    ensure!(seen.contains("33 77\r\n"), "{seen:?}");
    same!(cx.get(&format!("/exec/{exec}/json"))?.json()?["ExitCode"], 4, "exit code");
    Ok(())
}

fn a_detached_exec_goes_on_alone(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let body = json!({"Cmd": ["sh", "-c", "sleep 0.3; touch /tmp/done"]});
    let exec = text(&cx.post(&format!("/containers/{id}/exec"), &body)?.status(201)?.json()?["Id"]);
    let started = cx.post(&format!("/exec/{exec}/start"), &json!({"Detach": true}))?.status(200)?;
    same!(started.text(), "", "answer");
    cx.until("it has done its work", || {
        same!(cx.exec(&id, &["test", "-e", "/tmp/done"], json!({}))?.0, 0, "whether the file is there");
        let state = cx.get(&format!("/exec/{exec}/json"))?.json()?;
        same!((state["Running"].as_bool(), state["ExitCode"].as_i64()), (Some(false), Some(0)), "state");
        Ok(())
    })
}

fn an_exec_object_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let body = json!({"Cmd": ["sleep", "1000"], "User": "405"});
    let exec = text(&cx.post(&format!("/containers/{id}/exec"), &body)?.status(201)?.json()?["Id"]);
    let before = cx.get(&format!("/exec/{exec}/json"))?.json()?;
    same!((before["ID"].clone(), before["ContainerID"].clone()), (json!(exec), json!(id)), "ids");
    same!((before["Running"].as_bool(), before["ExitCode"].is_null()), (Some(false), true), "before its start");
    let config = &before["ProcessConfig"];
    same!(
        (text(&config["entrypoint"]), config["arguments"].clone(), text(&config["user"])),
        ("sleep".to_owned(), json!(["1000"]), "405".to_owned()),
        "process"
    );
    cx.post(&format!("/exec/{exec}/start"), &json!({"Detach": true}))?.status(200)?;
    let after = cx.get(&format!("/exec/{exec}/json"))?.json()?;
    ensure!(after["Running"] == true && after["Pid"].as_u64() > Some(0), "{after}");
    ensure!(cx.inspect(&id)?["ExecIDs"].as_array().is_some_and(|ids| ids.contains(&json!(exec))), "ExecIDs");
    cx.post(&format!("/exec/{exec}/start"), &json!({"Detach": true}))?.refused(409, "already running").map(drop)
}

fn an_exec_needs_a_running_container(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({}))?;
    cx.post(&format!("/containers/{id}/exec"), &json!({"Cmd": ["true"]}))?.refused(409, "is not running")?;
    cx.post("/exec/nosuchexec/start", &json!({}))?.refused(404, "No such exec instance: nosuchexec")?;
    cx.get("/exec/nosuchexec/json")?.refused(404, "No such exec instance")?;
    let running = cx.sleeper("d")?;
    let answer = cx.post(&format!("/containers/{running}/exec"), &json!({"Cmd": []}))?;
    ensure!(
        answer.status == 400 && answer.text().contains("No exec command specified"),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn an_exec_that_cannot_start_says_why(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    for (command, code) in [("nosuchcommand", 127), ("/etc", 126)] {
        let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": [command]});
        let exec = text(&cx.post(&format!("/containers/{id}/exec"), &body)?.status(201)?.json()?["Id"]);
        let answer = cx.post(&format!("/exec/{exec}/start"), &json!({}))?;
        ensure!(answer.text().contains(command), "{} {:?}", answer.status, answer.text());
        let state = cx.get(&format!("/exec/{exec}/json"))?.json()?;
        let fine = state["ExitCode"] == code || state["ExitCode"] == 126 && cx.engine.api < Api(1, 44);
        ensure!(fine && state["Running"] == false, "state of {command}: {state}");
    }
    same!(cx.exec(&id, &["true"], json!({}))?.0, 0, "one afterwards");
    Ok(())
}

fn an_exec_shares_the_containers_limits_and_sandbox(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["sleep", "1000"], "HostConfig": {"CapDrop": ["ALL"], "PidsLimit": 50}}))?;
    let line = "grep -E '^(CapEff|Seccomp):' /proc/self/status | tr -d '\\t '; cat /proc/self/cgroup >/tmp/mine; cmp /proc/1/cgroup /tmp/mine && echo same";
    same!(
        cx.exec(&id, &["sh", "-c", line], json!({}))?.1.out,
        "CapEff:0000000000000000\nSeccomp:2\nsame\n",
        "seen inside"
    );
    Ok(())
}

fn many_execs_at_once(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let outputs: Vec<Result<(i64, String)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|number| {
                let id = &id;
                scope.spawn(move || {
                    cx.exec(id, &["sh", "-c", &format!("echo {number}; exit {number}")], json!({}))
                        .map(|(code, output)| (code, output.out))
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    for (number, outcome) in outputs.into_iter().enumerate() {
        same!(outcome?, (number as i64, format!("{number}\n")), "exec {number}");
    }
    Ok(())
}

fn cli_exec_behaves_as_typed(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("c");
    cx.sleeper("c")?;
    same!(cx.docker(&["exec", &name, "echo", "hello"])?.ok()?, "hello", "output");
    cx.docker(&["exec", &name, "sh", "-c", "exit 9"])?.ended(9)?;
    let missing = cx.docker(&["exec", &name, "nosuchcommand"])?;
    ensure!(missing.code == 127 || missing.code == 126 && cx.engine.api < Api(1, 44), "{missing:?}");
    let piped = cx.engine.docker(&["exec", "-i", &name, "wc", "-c"], Some(&[b'x'; 300_000]))?.ok()?;
    same!(piped.trim(), "300000", "bytes through standard input");
    same!(
        cx.docker(&["exec", "-e", "X=1", "-w", "/tmp", "-u", "405", &name, "sh", "-c", "echo $X $PWD $(id -u)"])?
            .ok()?,
        "1 /tmp 405",
        "options"
    );
    let gone = cx.docker(&["exec", "nosuchcontainer", "true"])?.ended(1)?;
    ensure!(gone.err.contains("No such container: nosuchcontainer"), "{}", gone.err);
    Ok(())
}
