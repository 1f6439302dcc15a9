//! `cargo xtask up` and `down`: a cluster of three nodes on this machine with a sample service, from sources to live log lines
//! and a node that is lost.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use conformance::client::{Engine, finish};
use conformance::cx::{Cx, text};
use conformance::ensure;
use conformance::error::Result;
use conformance::http::Address;
use conformance::images;
use serde_json::json;

use crate::packages::{self, For};
use crate::shell::{build, demand_root, say};

/// Everything lies here: the program, and the lab with what its engines keep.
const DIRECTORY: &str = "/var/lib/shoal-up";
/// The lab's name. Its engines disturb no other engine of this machine: each has a network namespace of its own.
const LAB: &str = "shoal-up";
const NODES: usize = 3;
/// The node whose cable is pulled.
const LOST: usize = NODES;
/// The sample service.
const SERVICE: &str = "clock";
const REPLICAS: usize = 6;
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
    let image = images::clock_alone("1.0")?.archive();
    remove_earlier()?;
    say(&format!("making {NODES} nodes, each an engine in a network namespace of its own, and one swarm of them"));
    fs::create_dir_all(DIRECTORY)?;
    // what runs is a copy: nothing changes under it when the project is built anew
    fs::copy(shoal, program())?;
    let (nodes, place) = (NODES.to_string(), Path::new(DIRECTORY).join("lab").display().to_string());
    lab(&["up", "--managers", &nodes, "--workers", "0", "--dir", &place])?;
    say("loading the image into each node");
    let engines = (1..=NODES).map(|node| Engine::connect(socket(node))).collect::<Result<Vec<_>>>()?;
    engines.iter().try_for_each(|engine| engine.load(&image).map(drop))?;
    let cx = Cx::new(&engines[0], SERVICE.to_owned());
    let service = create_service(&cx)?;
    cx.wait_running(&service, REPLICAS)?;
    show_tasks(&cx, &service)?;
    show_log(&cx, &service)?;
    lose_a_node(&cx, &service)?;
    say("the service keeps running, and so do the nodes");
    println!("to look at it:  DOCKER_HOST={} docker service ps {SERVICE}", engines[0].address.url());
    println!("to play on:     {} lab --name {LAB} --help", program().display());
    println!("to stop it:     cargo xtask down");
    Ok(())
}

/// Removes what `up` left running.
///
/// # Errors
/// Something of it cannot be removed.
pub fn down() -> Result<()> {
    demand_root()?;
    remove_earlier()
}

/// Removes the nodes of an earlier `up` and all that they keep, if there are any.
fn remove_earlier() -> Result<()> {
    if !Path::new(DIRECTORY).exists() {
        return Ok(());
    }
    say(&format!("removing the nodes of an earlier run, their containers, and {DIRECTORY}"));
    if program().exists() {
        match lab(&["down"]) {
            // it ended before there was one
            Err(error) if error.to_string().contains("there is no lab") => {}
            done => done?,
        }
    }
    Ok(fs::remove_dir_all(DIRECTORY)?)
}

fn program() -> PathBuf {
    Path::new(DIRECTORY).join("shoal")
}

/// Where a node serves.
fn socket(node: usize) -> Address {
    Address::Unix(Path::new(DIRECTORY).join(format!("lab/{node}/sock")))
}

/// A command of the lab.
fn lab(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program());
    command.args(["lab", "--name", LAB]).args(arguments);
    finish(command, None)?.ok().map(drop)
}

fn create_service(cx: &Cx<'_>) -> Result<String> {
    say(&format!("service create --name {SERVICE} --replicas {REPLICAS} shoal/clock:1.0"));
    let spec = json!({"Name": SERVICE, "Mode": {"Replicated": {"Replicas": REPLICAS}},
        "TaskTemplate": {"ContainerSpec": {"Image": "shoal/clock:1.0"}}});
    Ok(text(&cx.post("/services/create", &spec)?.json()?["ID"]))
}

/// The identifier of a node's engine in the swarm.
fn id_of(node: usize) -> Result<String> {
    Ok(text(&Engine::connect(socket(node))?.get("/info")?.json()?["Swarm"]["NodeID"]))
}

/// What `docker service ps` shows, for machines without a client: the tasks that are wanted.
fn show_tasks(cx: &Cx<'_>, service: &str) -> Result<()> {
    say(&format!("service ps --filter desired-state=running {SERVICE}"));
    let ids = (1..=NODES).map(id_of).collect::<Result<Vec<_>>>()?;
    let mut tasks = cx.running(service)?;
    tasks.sort_by_key(|task| task["Slot"].as_u64());
    println!("{:<26} {:<9} {:<16} {:<8} CURRENT STATE", "ID", "NAME", "IMAGE", "NODE");
    for task in tasks {
        let name = format!("{SERVICE}.{}", task["Slot"]);
        let image = text(&task["Spec"]["ContainerSpec"]["Image"]);
        let node = ids.iter().position(|id| task["NodeID"] == id.as_str()).map_or(0, |place| place + 1);
        let node = format!("node {node}");
        println!("{:<26} {name:<9} {image:<16} {node:<8} {}", text(&task["ID"]), text(&task["Status"]["State"]));
    }
    Ok(())
}

/// Pulls the cable of a node, shows that the others take over, and plugs it in again.
fn lose_a_node(cx: &Cx<'_>, service: &str) -> Result<()> {
    let (node, lost) = (LOST.to_string(), id_of(LOST)?);
    say(&format!("pulling the cable of node {LOST}: lab cut {LOST}"));
    lab(&["cut", &node])?;
    let start = Instant::now();
    cx.until("every task runs on another node", || {
        let running = cx.running(service)?;
        let elsewhere = running.iter().filter(|task| task["NodeID"] != lost.as_str()).count();
        ensure!(elsewhere == REPLICAS, "{elsewhere} of {REPLICAS} do");
        Ok(())
    })?;
    say(&format!("after {:.1} s all of its tasks run elsewhere", start.elapsed().as_secs_f32()));
    show_tasks(cx, service)?;
    say(&format!("plugging it in again: lab mend {LOST}"));
    lab(&["mend", &node])?;
    cx.until("the node is ready again", || {
        let state = cx.get(&format!("/nodes/{lost}"))?.json()?["Status"]["State"].clone();
        ensure!(state == "ready", "it is {state}");
        Ok(())
    })?;
    say(&format!("node {LOST} is ready again; tasks stay where they are until there is a reason to move them"));
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
