//! What nodes are to the cluster: brings the members of consensus in line with the roles that users want, says on each node
//! what it is now, and changes the certificate authority node by node.
//!
//! A node learns from its session what it is, gets the certificate for that, and starts or stops its manager; a manager joins
//! consensus by itself. So nothing here waits for a node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_raft::{DismissError, Feed, Participant, Raft, Snapshot, Tx, Update};
use shoal_store::Conflict;
use shoal_types::spec::NodeRole;
use shoal_types::{Change, Event, Node, NodeId, Object, View};
use tokio::time::Instant;

use crate::ca::rotation;

/// How often the members are looked at: no event tells of them.
const LOOK: Duration = Duration::from_millis(250);
/// The pause after something that did not work.
const RETRY: Duration = Duration::from_secs(2);
/// How long a manager may take to be dismissed.
const DISMISS: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Members of consensus that are no managers any more.
    dismiss: Vec<u64>,
    /// Nodes as they are from now on.
    nodes: Vec<Node>,
}

/// Runs until leadership or consensus ends; gives the reason.
pub async fn run(raft: Raft) -> String {
    let (mut view, mut feed) = raft.subscribe();
    let mut seen = None;
    loop {
        let participants = raft.participants();
        let is_news = seen.as_ref() != Some(&participants);
        if is_news {
            let plan = plan(&view, &participants);
            match apply(&raft, plan, &view).await {
                Ok(()) => seen = Some(participants),
                Err(error) => {
                    tracing::warn!(error, "cannot bring the managers in line with the roles of nodes yet");
                    tokio::time::sleep(RETRY).await;
                    view = raft.snapshot();
                    continue;
                }
            }
        }
        tokio::select! {
            changed = concerned(&mut feed, &mut view) => if changed { seen = None },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Waits for a commit; whether it has to do with nodes or the cluster.
async fn concerned(feed: &mut Feed, view: &mut Snapshot) -> bool {
    match feed.next().await {
        Update::Commit(commit) => {
            *view = commit.snapshot.clone();
            commit.events.iter().any(|event| matches!(event, Event::Node(_) | Event::Cluster(_)))
        }
        Update::Resync(snapshot) => {
            *view = snapshot;
            true
        }
    }
}

/// What has to change, by what is wanted and what is.
fn plan(view: &impl View, participants: &[Participant]) -> Plan {
    // Before the first write of a cluster there are members without nodes.
    if view.cluster().is_none() {
        return Plan::default();
    }
    let mut members: BTreeMap<NodeId, Vec<&Participant>> = BTreeMap::new();
    for participant in participants {
        if let Some(node) = participant.member.node_id {
            members.entry(node).or_default().push(participant);
        }
    }
    let mut plan = Plan::default();
    for node in view.nodes() {
        let own = members.remove(&node.id).unwrap_or_default();
        if node.spec.role == NodeRole::Worker {
            plan.dismiss.extend(own.iter().map(|p| p.number));
        }
        // A manager stays one until it has no part in consensus any more.
        let role = if node.spec.role == NodeRole::Worker && !own.is_empty() { node.role } else { node.spec.role };
        let manager_addr = own.iter().find(|p| p.is_voter).map(|p| p.member.addr.clone());
        if (node.role, &node.manager_addr) != (role, &manager_addr) {
            plan.nodes.push(Node { role, manager_addr, ..node.as_ref().clone() });
        }
    }
    // Those whose nodes were removed.
    plan.dismiss.extend(members.values().flatten().map(|p| p.number));
    plan
}

async fn apply(raft: &Raft, plan: Plan, view: &Snapshot) -> Result<(), String> {
    for number in plan.dismiss {
        tracing::info!(number, "dismissing a manager");
        // By itself: a leader that is dismissed hands over first, and everything here ends with its term.
        let (dismissing, began) = (raft.clone(), Instant::now());
        let dismissed = tokio::spawn(async move {
            let dismissed = dismissing.dismiss(number).await;
            if let Err(error) = &dismissed
                && number == dismissing.number()
            {
                tracing::warn!(%error, "this manager, which leads, cannot be dismissed yet");
            }
            dismissed
        });
        match tokio::time::timeout(DISMISS, dismissed).await {
            Ok(Ok(Ok(()))) => tracing::debug!(number, took = ?began.elapsed(), "dismissed"),
            Ok(Ok(Err(error @ DismissError::NotLeader))) => return Err(error.to_string()),
            Ok(Ok(Err(error))) => return Err(format!("manager {number} stays one: {error}")),
            Ok(Err(panic)) => return Err(panic.to_string()),
            Err(_) => return Err(format!("manager {number} was not dismissed in time")),
        }
    }
    let mut changes: Vec<Change> = plan.nodes.into_iter().map(|n| Change::Put(Object::Node(Arc::new(n)))).collect();
    if changes.is_empty() {
        changes = rotation::plan_step(view);
    }
    if changes.is_empty() {
        return Ok(());
    }
    let seen = view.clone();
    let write = move |tx: &mut Tx| {
        // What was written meanwhile is looked at anew.
        let is_overtaken = changes.iter().any(|change| match change {
            Change::Put(Object::Node(node)) => tx.node(node.id) != seen.node(node.id),
            _ => tx.cluster() != seen.cluster(),
        });
        if is_overtaken { Ok(()) } else { changes.into_iter().try_for_each(|change| tx.change(change)) }
    };
    raft.write(write).await.map_err(|error: shoal_raft::WriteError<Conflict>| error.to_string())
}
