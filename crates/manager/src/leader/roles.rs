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
        plan.nodes.extend(settled(node, &own));
    }
    // Those whose nodes were removed.
    plan.dismiss.extend(members.values().flatten().map(|p| p.number));
    plan
}

/// `node` as it is with `own` as its part in consensus, if that is news.
fn settled(node: &Node, own: &[&Participant]) -> Option<Node> {
    // A manager stays one until it has no part in consensus any more.
    let role = if node.spec.role == NodeRole::Worker && !own.is_empty() { node.role } else { node.spec.role };
    let manager_addr = own.iter().find(|p| p.is_voter).map(|p| p.member.addr.clone());
    let is_news = (node.role, &node.manager_addr) != (role, &manager_addr);
    is_news.then(|| Node { role, manager_addr, ..node.clone() })
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

#[cfg(test)]
mod tests {
    use shoal_raft::Member;
    use shoal_types::spec::ClusterSpec;

    use super::*;
    use crate::ids::RandomIds;
    use crate::testing::Fixture;

    fn participant(number: u64, node: NodeId, is_voter: bool) -> Participant {
        Participant {
            number,
            member: Member { node_id: Some(node), addr: format!("10.0.0.{number}:2377"), ..Member::default() },
            is_voter,
        }
    }

    #[tokio::test]
    async fn a_node_is_a_manager_at_once_and_a_worker_once_it_has_no_part_in_consensus() {
        let f = Fixture::new(ClusterSpec::initial()).await;
        let (manager, worker) = (NodeRole::Manager, NodeRole::Worker);
        let node = |wanted, role| {
            let mut node = f.raft.snapshot().node(f.node).unwrap().as_ref().clone();
            (node.spec.role, node.role, node.manager_addr) = (wanted, role, None);
            node
        };
        let role = |node: &Node, own: &[&Participant]| settled(node, own).map(|n| n.role);
        let part = participant(7, f.node, false);
        assert_eq!(role(&node(manager, worker), &[]), Some(manager));
        assert_eq!(role(&node(worker, manager), &[&part]), None, "it is one until it is dismissed");
        assert_eq!(role(&node(worker, manager), &[]), Some(worker));
        assert_eq!(role(&node(worker, worker), &[&part]), None);
    }

    #[tokio::test]
    async fn addresses_follow_the_members_and_members_without_a_node_are_dismissed() {
        let f = Fixture::new(ClusterSpec::initial()).await;
        let view = f.raft.snapshot();
        let moved = plan(&view, &[participant(7, f.node, true)]);
        assert_eq!(moved.nodes[0].manager_addr.as_deref(), Some("10.0.0.7:2377"));
        let learning = plan(&view, &[participant(7, f.node, false)]);
        assert_eq!(learning.nodes[0].manager_addr, None, "it has no vote yet");
        let stranger = NodeId::new(&mut RandomIds);
        assert_eq!(plan(&view, &[participant(9, stranger, true)]).dismiss, [9]);
    }
}
