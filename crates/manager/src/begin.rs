//! The first write of a cluster, and of one that goes on by force.

use std::sync::Arc;

use shoal_raft::{Raft, Tx, WriteError};
use shoal_store::Conflict;
use shoal_types::spec::{NodeRole, NodeSpec};
use shoal_types::{Change, Cluster, Node, Object, View};

/// Writes the cluster and its first node, where there is none yet. Waits until this manager leads.
///
/// # Errors
/// Consensus stopped, or the disk is full.
pub async fn begin(raft: &Raft, cluster: Cluster, node: Node) -> Result<(), WriteError<Conflict>> {
    lead(raft).await;
    raft.write(move |tx: &mut Tx| {
        if tx.cluster().is_some() {
            return Ok(());
        }
        tx.change(Change::Put(Object::Cluster(Arc::new(cluster))))?;
        tx.change(Change::Put(Object::Node(Arc::new(node))))
    })
    .await
}

/// Says that the managers that were lost are workers, should they come back: none of them may count again unless a user
/// wants it. Waits until this manager leads.
///
/// # Errors
/// Consensus stopped, or the disk is full.
pub async fn go_on_alone(raft: &Raft) -> Result<(), WriteError<Conflict>> {
    lead(raft).await;
    let members = raft.members().1;
    raft.write(move |tx: &mut Tx| {
        let is_member = |node: &Node| members.iter().any(|(_, m)| m.node_id == Some(node.id));
        let lost = tx.nodes().filter(|n| n.spec.role == NodeRole::Manager && !is_member(n));
        let demoted =
            |n: &Arc<Node>| Node { spec: NodeSpec { role: NodeRole::Worker, ..n.spec.clone() }, ..(**n).clone() };
        let lost: Vec<Node> = lost.map(demoted).collect();
        lost.into_iter().try_for_each(|node| tx.change(Change::Put(Object::Node(Arc::new(node)))))
    })
    .await
}

async fn lead(raft: &Raft) {
    // An error means that consensus ended; the write says so.
    drop(raft.leadership().wait_for(Option::is_some).await);
}
