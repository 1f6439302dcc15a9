//! `lab ls`: each node as its own engine sees itself, and what the lab knows from outside.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;

use crate::client::{self, get};
use crate::error::LabError;
use crate::process::{Process, State};
use crate::record::{Lab, Node};
use crate::wiring;

/// How long an engine may take to answer; one that is stalled or has no quorum is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an engine says of itself.
struct Seen {
    role: String,
    leads: bool,
}

/// Prints the table.
pub fn list(lab: &Lab) -> Result<(), LabError> {
    let connected = wiring::connected(lab)?;
    let asked = lab.nodes.iter().map(|node| see(lab, node));
    let seen = client::run(async { Ok(join_all(asked).await) })?;
    println!("{:<5} {:<15} {:<9} {:<7} {:<7} {:<6} SOCKET", "NODE", "ADDRESS", "ROLE", "LEADER", "ENGINE", "CABLE");
    for (node, seen) in lab.nodes.iter().zip(seen) {
        println!(
            "{:<5} {:<15} {:<9} {:<7} {:<7} {:<6} {}",
            node.number,
            node.address.to_string(),
            seen.as_ref().map_or("-", |seen| &seen.role),
            if seen.as_ref().is_some_and(|seen| seen.leads) { "yes" } else { "" },
            engine(lab, node),
            if connected.contains(&node.number) { "in" } else { "cut" },
            lab.socket(node.number).display()
        );
    }
    Ok(())
}

fn engine(lab: &Lab, node: &Node) -> &'static str {
    match Process::load(lab, node).map(Process::state) {
        Some(State::Alive) => "up",
        Some(State::Stopped) => "paused",
        Some(State::Gone) | None => "down",
    }
}

async fn see(lab: &Lab, node: &Node) -> Option<Seen> {
    let socket = lab.socket(node.number);
    let swarm = get(&socket, "/info", PATIENCE).await.ok()?["Swarm"].take();
    let role = match swarm["LocalNodeState"].as_str()? {
        "active" if swarm["ControlAvailable"] == true => "manager",
        "active" => "worker",
        other => other,
    };
    let leads = role == "manager" && leads(&socket, swarm["NodeID"].as_str()?).await;
    Some(Seen { role: role.to_owned(), leads })
}

async fn leads(socket: &Path, id: &str) -> bool {
    let node = get(socket, &format!("/nodes/{id}"), PATIENCE).await;
    node.is_ok_and(|node| node["ManagerStatus"]["Leader"] == true)
}
