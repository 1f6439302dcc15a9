//! `cargo xtask up` and `down`: an engine with a sample service, from sources to live log lines.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use conformance::client::{Engine, finish};
use conformance::cx::{Cx, text};
use conformance::error::{Failure, Result};
use conformance::images;
use conformance::launch::{Daemon, Kind, clear};
use serde_json::json;

use crate::packages::{self, For};
use crate::shell::{build, demand_root, say};

/// Everything that the engine keeps lies here.
const DIRECTORY: &str = "/var/lib/shoal-up";
/// Its network namespace: it disturbs no other engine of this machine.
const NAMESPACE: &str = "shoal-up";
/// The sample service.
const SERVICE: &str = "clock";
const REPLICAS: u64 = 2;
/// How long its log lines are shown.
const SHOWN: Duration = Duration::from_secs(5);

/// Builds, starts, shows, and leaves it running.
///
/// # Errors
/// Any step fails; the sentence says which.
pub fn up() -> Result<()> {
    demand_root()?;
    packages::ensure(For::Up)?;
    let shoal = build("shoal", true)?;
    say("building the image shoal/clock:1.0 from examples/clock");
    let image = images::clock_alone("1.0")?;
    stop_earlier()?;
    say(&format!(
        "starting {} in network namespace {NAMESPACE}, with everything it keeps under {DIRECTORY}",
        shoal.display()
    ));
    let engine = Daemon::lasting(Kind::Shoal(shoal), NAMESPACE, Path::new(DIRECTORY))?.start()?;
    say("loading the image");
    engine.load(&image.archive())?;
    if engine.in_swarm()? {
        say("the swarm of the run before is there again");
    } else {
        say("making a swarm of this one node");
        engine.swarm_init()?;
    }
    let service = ensure_service(&engine)?;
    let cx = Cx::new(&engine, SERVICE.to_owned());
    cx.wait_running(&service, REPLICAS as usize)?;
    show_tasks(&cx, &service)?;
    show_log(&cx, &service)?;
    let host = engine.address.url();
    say("the service keeps running, and so does the engine");
    println!("to look at it:  DOCKER_HOST={host} docker service ps {SERVICE}");
    println!("to stop it:     cargo xtask down");
    Ok(())
}

/// Stops and removes what `up` left running.
///
/// # Errors
/// The engine does not end, or something of it cannot be removed.
pub fn down() -> Result<()> {
    demand_root()?;
    let address = conformance::http::Address::Unix(Path::new(DIRECTORY).join("engine.sock"));
    if let Ok(engine) = Engine::connect(address) {
        if engine.in_swarm()? {
            say("leaving the swarm, which removes its containers");
            engine.swarm_leave()?;
        }
        for container in engine.list("/containers/json?all=1", &json!({}))? {
            engine.delete(&format!("/containers/{}?force=1", text(&container["Id"])))?.ok()?;
        }
    }
    stop_earlier()?;
    say(&format!("removing {DIRECTORY} and network namespace {NAMESPACE}"));
    clear(NAMESPACE, Path::new(DIRECTORY))
}

/// Ends the daemon of an earlier `up`, if there is one; its containers go on.
fn stop_earlier() -> Result<()> {
    let Ok(pid) = fs::read_to_string(Path::new(DIRECTORY).join("pid")) else { return Ok(()) };
    let process = Path::new("/proc").join(pid.trim());
    let is_ours =
        || fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(DIRECTORY));
    if !is_ours() {
        return Ok(());
    }
    say("stopping the daemon of an earlier run; its containers go on");
    let mut kill = Command::new("kill");
    kill.arg(pid.trim());
    finish(kill, None)?.ok()?;
    let end = Instant::now() + Duration::from_secs(30);
    while is_ours() {
        if Instant::now() > end {
            return Err(Failure::wrong(format!("the daemon of an earlier run, process {}, does not end", pid.trim())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn ensure_service(engine: &Engine) -> Result<String> {
    let there = engine.list("/services", &json!({"name": [SERVICE]}))?;
    if let Some(service) = there.first() {
        say(&format!("the service {SERVICE} of the run before is there again"));
        return Ok(text(&service["ID"]));
    }
    say(&format!("creating the service {SERVICE} with {REPLICAS} replicas"));
    let spec = json!({"Name": SERVICE, "Mode": {"Replicated": {"Replicas": REPLICAS}},
        "TaskTemplate": {"ContainerSpec": {"Image": "shoal/clock:1.0"}}});
    Ok(text(&engine.post("/services/create", &spec)?.json()?["ID"]))
}

/// What `docker service ps` shows, for machines without a client.
fn show_tasks(cx: &Cx<'_>, service: &str) -> Result<()> {
    say(&format!("service ps {SERVICE}"));
    println!("{:<26} {:<9} {:<16} {:<14} {:<14} ERROR", "ID", "NAME", "IMAGE", "DESIRED STATE", "CURRENT STATE");
    for task in cx.tasks(service)? {
        let name = format!("{SERVICE}.{}", task["Slot"]);
        let image = text(&task["Spec"]["ContainerSpec"]["Image"]);
        let (desired, current) = (text(&task["DesiredState"]), text(&task["Status"]["State"]));
        println!(
            "{:<26} {name:<9} {image:<16} {desired:<14} {current:<14} {}",
            text(&task["ID"]),
            text(&task["Status"]["Err"])
        );
    }
    Ok(())
}

/// Shows the service's new log lines as they come.
fn show_log(cx: &Cx<'_>, service: &str) -> Result<()> {
    say(&format!("service logs --follow {SERVICE}, for {} seconds", SHOWN.as_secs()));
    let mut stream =
        cx.engine.open("GET", &format!("/services/{service}/logs?stdout=1&stderr=1&follow=1&tail=1"), &[], b"")?;
    stream.connection().set_read_timeout(Duration::from_millis(500))?;
    let end = Instant::now() + SHOWN;
    let mut bytes = Vec::new();
    while Instant::now() < end {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(line) = take_frame(&mut bytes) {
            print!("{SERVICE} | {line}");
        }
    }
    Ok(())
}

/// Takes the first whole frame of a multiplexed stream off the front.
fn take_frame(bytes: &mut Vec<u8>) -> Option<String> {
    let length = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    let payload = String::from_utf8_lossy(bytes.get(8..8 + length)?).into_owned();
    bytes.drain(..8 + length);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_only_when_they_are_whole() {
        let mut bytes = b"\x01\0\0\0\0\0\0\x03ab\n\x02\0\0\0\0\0\0\x05c".to_vec();
        assert_eq!(take_frame(&mut bytes).as_deref(), Some("ab\n"));
        assert_eq!(take_frame(&mut bytes), None);
        assert_eq!(bytes.len(), 9);
    }
}
