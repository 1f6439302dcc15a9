//! One swarm of all nodes, as a person would make it: init on the first, join on the others.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Body, CallError, call, get};
use crate::error::LabError;
use crate::record::{Lab, Node};

/// Longer than an engine takes to give up by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the nodes may take until all are seen to be ready.
const READY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const PORT: u16 = 2377;

/// Init on node 1; the managers join one after the other, the workers all at once.
pub async fn make(lab: &Lab) -> Result<(), LabError> {
    let Some((first, others)) = lab.nodes.split_first() else { return Err(LabError::Empty) };
    let init = json!({"ListenAddr": format!("0.0.0.0:{PORT}"), "AdvertiseAddr": address(first)});
    post(lab, first, "make a swarm", "/swarm/init", init).await?;
    let swarm = ask(lab, first, "read the join tokens", "/swarm").await?;
    let (managers, workers): (Vec<&Node>, Vec<&Node>) = others.iter().partition(|node| node.manager);
    for node in managers {
        join(lab, node, first, &swarm["JoinTokens"]["Manager"]).await?;
    }
    try_join_all(workers.into_iter().map(|node| join(lab, node, first, &swarm["JoinTokens"]["Worker"]))).await?;
    until_whole(lab, first).await
}

async fn join(lab: &Lab, node: &Node, first: &Node, token: &Value) -> Result<(), LabError> {
    let body = json!({"ListenAddr": format!("0.0.0.0:{PORT}"), "AdvertiseAddr": address(node),
        "RemoteAddrs": [address(first)], "JoinToken": token});
    post(lab, node, "join the swarm", "/swarm/join", body).await
}

fn address(node: &Node) -> String {
    format!("{}:{PORT}", node.address)
}

/// Waits until the first node sees all of them ready and all managers reachable.
async fn until_whole(lab: &Lab, first: &Node) -> Result<(), LabError> {
    let end = Instant::now() + READY;
    loop {
        let seen = ask(lab, first, "list the nodes", "/nodes").await?;
        let missing = missing(lab, seen.as_array().map_or(&[], Vec::as_slice));
        match missing {
            None => return Ok(()),
            Some(why) if Instant::now() > end => return Err(LabError::NotReady(why)),
            Some(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// What is not yet as it should be.
fn missing(lab: &Lab, seen: &[Value]) -> Option<String> {
    let ready = seen.iter().filter(|node| node["Status"]["State"] == "ready").count();
    let reachable = seen.iter().filter(|node| node["ManagerStatus"]["Reachability"] == "reachable").count();
    let managers = lab.nodes.iter().filter(|node| node.manager).count();
    let whole = ready == lab.nodes.len() && reachable == managers;
    (!whole).then(|| {
        format!("{ready} of {} nodes are ready, {reachable} of {managers} managers reachable", lab.nodes.len())
    })
}

async fn post(lab: &Lab, node: &Node, step: &'static str, path: &str, body: Value) -> Result<(), LabError> {
    let socket = lab.socket(node.number);
    let answer = call(&socket, Method::POST, path, Body::Json(body), PATIENCE).await;
    answer.map(drop).map_err(failed(node, step))
}

async fn ask(lab: &Lab, node: &Node, step: &'static str, path: &str) -> Result<Value, LabError> {
    let socket: PathBuf = lab.socket(node.number);
    get(&socket, path, PATIENCE).await.map_err(failed(node, step))
}

/// A failed call, with whom and what.
pub fn failed(node: &Node, step: &'static str) -> impl FnOnce(CallError) -> LabError {
    let node = node.number;
    move |source| LabError::Call { node, step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_is_whole_when_all_are_ready_and_managers_reachable() {
        let lab = Lab::plan("lab", 1, 1, "10.0.0.0/24".parse().unwrap(), None).unwrap();
        let manager = json!({"Status": {"State": "ready"}, "ManagerStatus": {"Reachability": "reachable"}});
        let worker = |state: &str| json!({"Status": {"State": state}});
        assert_eq!(missing(&lab, &[manager.clone(), worker("ready")]), None);
        let why = missing(&lab, &[manager, worker("unknown")]).unwrap();
        assert_eq!(why, "1 of 2 nodes are ready, 1 of 1 managers reachable");
    }
}
