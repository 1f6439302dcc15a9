//! A container's life: created, started, stopped, killed, restarted, waited for, removed.

use std::time::Instant;

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, a_containers_life_has_the_documented_states),
    case!(Engine, an_inspection_has_the_documented_fields),
    case!(Engine, an_unknown_container_is_404_everywhere),
    case!(Engine, a_name_is_taken_once),
    case!(Engine, a_name_is_made_of_few_characters),
    case!(Engine, clients_racing_for_a_name_get_one_container),
    case!(Engine, a_container_is_found_by_id_prefix_and_name),
    case!(Engine, exit_codes_are_told_truly),
    case!(Engine, a_command_that_cannot_start_is_127_or_126),
    case!(Engine, stop_waits_and_then_kills),
    case!(Engine, stop_sends_the_stop_signal),
    case!(Engine, kill_sends_any_signal),
    case!(Engine, kill_needs_a_running_container_and_a_known_signal),
    case!(Engine, restart_gives_another_process),
    case!(Engine, wait_answers_when_its_condition_holds),
    // Debian's dockerd misses most OOM kills of a hybrid control group hierarchy
    case!(Engine, an_oom_kill_is_told, since 1, 44),
    case!(Engine, a_restart_policy_counts_failures),
    case!(Engine, a_stopped_container_is_not_restarted),
    case!(Engine, a_container_that_is_always_restarted_comes_back),
    case!(Engine, auto_remove_removes),
    case!(Engine, a_running_container_is_removed_only_with_force),
    case!(Engine, clients_racing_to_remove_a_container_leave_nothing),
    case!(Engine, clients_racing_to_start_and_stop_do_no_harm),
    case!(Engine, a_restarted_container_keeps_its_files),
];

fn a_containers_life_has_the_documented_states(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["sleep", "1000"]}))?;
    let state = |wanted: &str| -> Result<Value> {
        let state = cx.inspect(&id)?["State"].clone();
        same!(state["Status"], wanted, "status");
        same!(state["Running"], wanted == "running", "whether it runs");
        Ok(state)
    };
    let never = "0001-01-01T00:00:00Z";
    let created = state("created")?;
    same!(
        (text(&created["StartedAt"]), text(&created["FinishedAt"]), created["Pid"].as_u64()),
        (never.to_owned(), never.to_owned(), Some(0)),
        "times"
    );
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    let running = state("running")?;
    ensure!(running["Pid"].as_u64() > Some(0) && text(&running["StartedAt"]) != never, "{running}");
    cx.act(&format!("/containers/{id}/start"))?.status(304)?;
    cx.act(&format!("/containers/{id}/stop"))?.status(204)?;
    let exited = state("exited")?;
    same!(
        (exited["ExitCode"].as_i64(), exited["Pid"].as_u64(), exited["OOMKilled"].as_bool()),
        (Some(137), Some(0), Some(false)),
        "state"
    );
    ensure!(text(&exited["FinishedAt"]) > text(&exited["StartedAt"]), "{exited}");
    cx.act(&format!("/containers/{id}/stop"))?.status(304)?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    state("running")?;
    cx.delete(&format!("/containers/{id}?force=1"))?.status(204)?;
    cx.get(&format!("/containers/{id}/json"))?.refused(404, &format!("No such container: {id}")).map(drop)
}

fn an_inspection_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"Cmd": ["1000"], "Entrypoint": ["sleep"], "Env": ["A=B"], "Labels": {"l": "m"}, "HostConfig": {"Memory": 33_554_432}});
    let id = cx.run("c", spec)?;
    let seen = cx.inspect(&id)?;
    ensure!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "id {id:?}");
    same!(seen["Id"], id, "id");
    same!(seen["Name"], format!("/{}", cx.name("c")), "name");
    same!((text(&seen["Path"]), seen["Args"].clone()), ("sleep".to_owned(), json!(["1000"])), "what it runs");
    same!(seen["Config"]["Image"], "busybox:latest", "image name");
    same!(seen["Image"], cx.get("/images/busybox:latest/json")?.json()?["Id"], "image id");
    same!(seen["Config"]["Hostname"], id[..12], "host name");
    same!(seen["Config"]["Labels"], json!({"l": "m"}), "labels");
    same!(seen["Config"]["Env"][0], "A=B", "environment");
    ensure!(text(&seen["Config"]["Env"][1]).starts_with("PATH="), "environment {}", seen["Config"]["Env"]);
    same!(seen["HostConfig"]["Memory"], 33_554_432, "memory");
    ensure!(
        ["", "no"].contains(&text(&seen["HostConfig"]["RestartPolicy"]["Name"]).as_str()),
        "restart policy {}",
        seen["HostConfig"]["RestartPolicy"]
    );
    same!(seen["RestartCount"], 0, "restarts");
    same!(seen["Platform"], "linux", "platform");
    same!(seen["Mounts"], json!([]), "mounts");
    ensure!(text(&seen["Created"]).ends_with('Z'), "created {}", seen["Created"]);
    ensure!(
        seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].is_string(),
        "networks {}",
        seen["NetworkSettings"]["Networks"]
    );
    Ok(())
}

fn an_unknown_container_is_404_everywhere(cx: &Cx<'_>) -> Result<()> {
    let wanted = "No such container: nosuchcontainer";
    for path in ["json", "logs?stdout=1"] {
        cx.get(&format!("/containers/nosuchcontainer/{path}"))?.refused(404, wanted)?;
    }
    for path in ["start", "stop", "kill", "restart", "wait", "resize?h=1&w=1"] {
        let answer = cx.act(&format!("/containers/nosuchcontainer/{path}"))?;
        answer.refused(404, wanted).map_err(|error| Failure::wrong(format!("{path}: {error}")))?;
    }
    let attach = cx.act("/containers/nosuchcontainer/attach?stdout=1&stream=1")?;
    ensure!(attach.status == 404 && attach.text().contains(wanted), "attach: {} {}", attach.status, attach.text());
    cx.post("/containers/nosuchcontainer/exec", &json!({"Cmd": ["true"]}))?.refused(404, wanted)?;
    cx.delete("/containers/nosuchcontainer")?.refused(404, wanted).map(drop)
}

fn a_name_is_taken_once(cx: &Cx<'_>) -> Result<()> {
    let first = cx.create("c", json!({}))?;
    let name = cx.name("c");
    let wanted = format!(
        "The container name \"/{name}\" is already in use by container \"{first}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    cx.try_create("c", json!({}))?.refused(409, &wanted)?;
    cx.delete(&format!("/containers/{first}"))?.status(204)?;
    cx.create("c", json!({})).map(drop)
}

fn a_name_is_made_of_few_characters(cx: &Cx<'_>) -> Result<()> {
    for bad in ["a%20b", "%2Fa%2Fb", "-a", "a", "a%3Ab", "%C3%A4%C3%A4"] {
        let answer = cx.post(&format!("/containers/create?name={bad}"), &json!({"Image": "busybox"}))?;
        answer
            .refused(400, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            .map_err(|error| Failure::wrong(format!("{bad}: {error}")))?;
    }
    Ok(())
}

/// Does the same thing in many threads at once; what each got.
fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let act = &act;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || act(number))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn clients_racing_for_a_name_get_one_container(cx: &Cx<'_>) -> Result<()> {
    let answers: Result<Vec<u16>> =
        at_once(12, |_| cx.try_create("c", json!({})).map(|answer| answer.status)).into_iter().collect();
    let answers = answers?;
    same!(answers.iter().filter(|status| **status == 201).count(), 1, "containers made, of {answers:?}");
    ensure!(answers.iter().all(|status| [201, 409].contains(status)), "{answers:?}");
    same!(cx.engine.list("/containers/json?all=1", &json!({"name": [cx.name("c")]}))?.len(), 1, "containers there");
    Ok(())
}

fn a_container_is_found_by_id_prefix_and_name(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({}))?;
    for reference in [id[..12].to_owned(), id[..20].to_owned(), cx.name("c")] {
        same!(cx.inspect(&crate::http::encode(&reference))?["Id"], id, "found by {reference}");
    }
    Ok(())
}

fn exit_codes_are_told_truly(cx: &Cx<'_>) -> Result<()> {
    for (number, (line, code)) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$; sleep 9", 143),
        ("nosuchcommand", 127),
    ]
    .iter()
    .enumerate()
    {
        let id = cx.run(&format!("c{number}"), json!({"Cmd": ["sh", "-c", format!("sh -c '{line}'; exit $?")]}))?;
        same!(cx.wait(&id)?, *code, "{line}");
        same!(cx.inspect(&id)?["State"]["ExitCode"], *code, "{line}, inspected");
    }
    let direct = cx.run("direct", json!({"Cmd": ["sh", "-c", "kill -9 $$; sleep 1000"]}))?;
    cx.act(&format!("/containers/{direct}/kill?signal=KILL"))?.status(204)?;
    same!(cx.wait(&direct)?, 137, "killed from outside");
    Ok(())
}

fn a_command_that_cannot_start_is_127_or_126(cx: &Cx<'_>) -> Result<()> {
    for (name, command, code) in
        [("missing", "nosuchcommand", 127), ("directory", "/etc", 126), ("file", "/etc/passwd", 126)]
    {
        let id = cx.create(name, json!({"Cmd": [command]}))?;
        let answer = cx.act(&format!("/containers/{id}/start"))?;
        ensure!(
            answer.status >= 400 && answer.text().contains(command),
            "{command}: {} {}",
            answer.status,
            answer.text()
        );
        let state = cx.inspect(&id)?["State"].clone();
        same!(
            (state["Status"].as_str(), state["ExitCode"].as_i64()),
            (Some("created"), Some(code)),
            "state of {command}"
        );
        ensure!(text(&state["Error"]).contains(command), "error {}", state["Error"]);
    }
    Ok(())
}

const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

impl Cx<'_> {
    /// Starts a shell line and waits for the word `ready` in its log.
    ///
    /// # Errors
    /// The engine refuses, or the word does not come.
    pub fn ready(&self, suffix: &str, line: &str, spec: Value) -> Result<String> {
        let mut body = json!({"Cmd": ["sh", "-c", line], "StopSignal": ""});
        crate::cx::merge(&mut body, spec);
        let id = self.run(suffix, body)?;
        self.until("the program says that it is ready", || {
            let log = self.logs(&id, "stdout=1&stderr=1")?;
            ensure!(log.out.contains("ready"), "{log:?}");
            Ok(())
        })?;
        Ok(id)
    }
}

fn stop_waits_and_then_kills(cx: &Cx<'_>) -> Result<()> {
    let id = cx.ready("c", DEAF, json!({}))?;
    let start = Instant::now();
    cx.act(&format!("/containers/{id}/stop?t=1"))?.status(204)?;
    let took = start.elapsed().as_secs_f32();
    // ten seconds are the default
    ensure!((1.0..9.5).contains(&took), "stopping took {took} s");
    same!(cx.inspect(&id)?["State"]["ExitCode"], 137, "exit code");
    let timed = cx.ready("timed", DEAF, json!({"StopTimeout": 1}))?;
    let start = Instant::now();
    cx.act(&format!("/containers/{timed}/stop"))?.status(204)?;
    ensure!(start.elapsed().as_millis() < 9500, "StopTimeout was not obeyed: {:?}", start.elapsed());
    Ok(())
}

fn stop_sends_the_stop_signal(cx: &Cx<'_>) -> Result<()> {
    let id = cx.ready(
        "c",
        "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done",
        json!({"StopSignal": "SIGUSR1"}),
    )?;
    cx.act(&format!("/containers/{id}/stop?t=20"))?.status(204)?;
    same!(cx.inspect(&id)?["State"]["ExitCode"], 5, "exit code");
    Ok(())
}

fn kill_sends_any_signal(cx: &Cx<'_>) -> Result<()> {
    let id = cx.ready(
        "c",
        "trap 'echo got usr1' USR1; trap 'exit 4' USR2; echo ready; while :; do sleep 0.05; done",
        json!({}),
    )?;
    cx.act(&format!("/containers/{id}/kill?signal=SIGUSR1"))?.status(204)?;
    cx.until("the trap has run", || {
        ensure!(cx.logs(&id, "stdout=1")?.out.contains("got usr1"), "it has not");
        Ok(())
    })?;
    cx.act(&format!("/containers/{id}/kill?signal=12"))?.status(204)?;
    same!(cx.wait(&id)?, 4, "exit code");
    Ok(())
}

fn kill_needs_a_running_container_and_a_known_signal(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["sleep", "1000"]}))?;
    cx.act(&format!("/containers/{id}/kill"))?.refused(409, "is not running")?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    let answer = cx.act(&format!("/containers/{id}/kill?signal=NOSUCH"))?;
    ensure!(
        [400, 500].contains(&answer.status) && answer.text().contains("nvalid signal: NOSUCH"),
        "{} {}",
        answer.status,
        answer.text()
    );
    same!(cx.inspect(&id)?["State"]["Running"], true, "it runs");
    Ok(())
}

fn restart_gives_another_process(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let first = cx.inspect(&id)?["State"].clone();
    cx.act(&format!("/containers/{id}/restart?t=1"))?.status(204)?;
    let second = cx.inspect(&id)?;
    ensure!(
        second["State"]["Pid"] != first["Pid"] && text(&second["State"]["StartedAt"]) > text(&first["StartedAt"]),
        "{}",
        second["State"]
    );
    same!(second["RestartCount"], 0, "restarts by policy");
    Ok(())
}

fn wait_answers_when_its_condition_holds(cx: &Cx<'_>) -> Result<()> {
    let done = cx.run("done", json!({"Cmd": ["sh", "-c", "exit 6"]}))?;
    same!(cx.wait(&done)?, 6, "of a running one");
    same!(cx.wait(&done)?, 6, "of an ended one");
    let id = cx.create("c", json!({"Cmd": ["sh", "-c", "exit 7"]}))?;
    std::thread::scope(|scope| -> Result<()> {
        let mut next = cx.engine.open("POST", &format!("/containers/{id}/wait?condition=next-exit"), &[], b"")?;
        let mut gone = cx.engine.open("POST", &format!("/containers/{id}/wait?condition=removed"), &[], b"")?;
        let waiter = scope.spawn(move || next.line().map(Option::unwrap_or_default));
        cx.act(&format!("/containers/{id}/start"))?.status(204)?;
        let answer = waiter.join().map_err(|_| Failure::wrong("the waiting thread ended badly"))??;
        same!(serde_json::from_str::<Value>(&answer)?["StatusCode"], 7, "of the next exit");
        cx.delete(&format!("/containers/{id}"))?.status(204)?;
        let answer = gone.line()?.unwrap_or_default();
        same!(serde_json::from_str::<Value>(&answer)?["StatusCode"], 7, "of the removal");
        Ok(())
    })
}

fn an_oom_kill_is_told(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run(
        "c",
        json!({"Cmd": ["sh", "-c", "sleep 1; exec tail /dev/zero"], "HostConfig": {"Memory": 16_777_216, "MemorySwap": 16_777_216}}),
    )?;
    same!(cx.wait(&id)?, 137, "exit code");
    let state = cx.inspect(&id)?["State"].clone();
    same!(state["OOMKilled"], true, "OOMKilled");
    let fine = cx.run("fine", json!({"Cmd": ["sh", "-c", "kill -9 $$"], "HostConfig": {"Memory": 16_777_216}}))?;
    cx.wait(&fine)?;
    same!(cx.inspect(&fine)?["State"]["OOMKilled"], false, "OOMKilled of one that was not");
    Ok(())
}

fn a_restart_policy_counts_failures(cx: &Cx<'_>) -> Result<()> {
    let policy = json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}});
    let id = cx.run("c", json!({"Cmd": ["sh", "-c", "echo run; exit 9"], "HostConfig": policy}))?;
    cx.until("it gives up", || {
        let seen = cx.inspect(&id)?;
        ensure!(
            seen["State"]["Status"] == "exited" && seen["RestartCount"] == 2,
            "{} after {} restarts",
            seen["State"]["Status"],
            seen["RestartCount"]
        );
        Ok(())
    })?;
    same!(cx.logs(&id, "stdout=1")?.out, "run\nrun\nrun\n", "log of three runs");
    same!(cx.inspect(&id)?["State"]["ExitCode"], 9, "exit code");
    let fine = cx.run("fine", json!({"Cmd": ["true"], "HostConfig": policy}))?;
    cx.wait(&fine)?;
    same!(cx.inspect(&fine)?["RestartCount"], 0, "restarts of one that succeeded");
    Ok(())
}

fn a_stopped_container_is_not_restarted(cx: &Cx<'_>) -> Result<()> {
    for policy in ["always", "unless-stopped"] {
        let id =
            cx.run(policy, json!({"Cmd": ["sleep", "1000"], "HostConfig": {"RestartPolicy": {"Name": policy}}}))?;
        cx.act(&format!("/containers/{id}/stop"))?.status(204)?;
        let seen = cx.inspect(&id)?;
        same!(
            (seen["State"]["Status"].as_str(), seen["RestartCount"].as_u64()),
            (Some("exited"), Some(0)),
            "state with {policy}"
        );
    }
    // a container between two tries can be stopped too
    let id =
        cx.run("failing", json!({"Cmd": ["sh", "-c", "exit 1"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}))?;
    cx.until("it was restarted", || {
        ensure!(cx.inspect(&id)?["RestartCount"].as_u64() >= Some(2), "it was not");
        Ok(())
    })?;
    cx.act(&format!("/containers/{id}/stop"))?.ok()?;
    same!(cx.inspect(&id)?["State"]["Restarting"], false, "restarting after the stop");
    Ok(())
}

fn a_container_that_is_always_restarted_comes_back(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run(
        "c",
        json!({"Cmd": ["sh", "-c", "echo run; sleep 0.2"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}),
    )?;
    cx.until("it has run three times", || {
        let runs = cx.logs(&id, "stdout=1")?.out.lines().count();
        ensure!(runs >= 3 && cx.inspect(&id)?["RestartCount"].as_u64() >= Some(2), "{runs} runs");
        Ok(())
    })
}

fn auto_remove_removes(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["sh", "-c", "exit 8"], "HostConfig": {"AutoRemove": true}}))?;
    let mut gone = cx.engine.open("POST", &format!("/containers/{id}/wait?condition=removed"), &[], b"")?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    let answer = gone.line()?.unwrap_or_default();
    same!(serde_json::from_str::<Value>(&answer)?["StatusCode"], 8, "exit code");
    cx.get(&format!("/containers/{id}/json"))?.refused(404, "No such container").map(drop)
}

fn a_running_container_is_removed_only_with_force(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let refusal = cx.delete(&format!("/containers/{id}"))?.refused(409, "running")?;
    ensure!(refusal.text().contains("force remove"), "{}", refusal.text());
    same!(cx.inspect(&id)?["State"]["Running"], true, "it runs");
    cx.delete(&format!("/containers/{id}?force=1"))?.status(204).map(drop)
}

fn clients_racing_to_remove_a_container_leave_nothing(cx: &Cx<'_>) -> Result<()> {
    for round in 0..3 {
        let id = cx.sleeper(&format!("c{round}"))?;
        let answers: Result<Vec<u16>> =
            at_once(8, |_| cx.delete(&format!("/containers/{id}?force=1")).map(|answer| answer.status))
                .into_iter()
                .collect();
        let answers = answers?;
        ensure!(answers.contains(&204) && answers.iter().all(|status| [204, 404, 409].contains(status)), "{answers:?}");
        cx.get(&format!("/containers/{id}/json"))?.refused(404, "No such container")?;
        let again = cx.create(&format!("c{round}"), json!({}))?;
        cx.delete(&format!("/containers/{again}"))?.status(204)?;
    }
    Ok(())
}

fn clients_racing_to_start_and_stop_do_no_harm(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["sleep", "1000"]}))?;
    let answers = at_once(12, |number| {
        cx.act(&format!("/containers/{id}/{}", ["start", "stop?t=1", "kill", "restart?t=1"][number % 4]))
            .map(|answer| answer.status)
    });
    let answers: Result<Vec<u16>> = answers.into_iter().collect();
    let answers = answers?;
    ensure!(answers.iter().all(|status| [204, 304, 409, 500].contains(status)), "{answers:?}");
    cx.act(&format!("/containers/{id}/kill"))?;
    cx.wait(&id)?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    same!(cx.exec(&id, &["echo", "fine"], json!({}))?.1.out, "fine\n", "an exec afterwards");
    Ok(())
}

fn a_restarted_container_keeps_its_files(cx: &Cx<'_>) -> Result<()> {
    let id =
        cx.run("c", json!({"Cmd": ["sh", "-c", "echo x >>/file; cat /file; ls /dev/shm | wc -l; touch /dev/shm/y"]}))?;
    cx.wait(&id)?;
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    cx.wait(&id)?;
    same!(cx.logs(&id, "stdout=1")?.out, "x\n0\nx\nx\n0\n", "log of both runs");
    Ok(())
}
