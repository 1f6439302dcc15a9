//! The first write of a cluster, and what a manager says of itself when it starts.

use std::sync::Arc;

use shoal_raft::{Raft, Tx, WriteError};
use shoal_store::Conflict;
use shoal_types::{Change, Cluster, Node, NodeId, Object, View};

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

/// Says where the manager on `node` listens now: an address is data, it may change. Waits until this manager leads.
///
/// # Errors
/// Consensus stopped, or the disk is full.
pub async fn announce(raft: &Raft, node: NodeId, addr: String) -> Result<(), WriteError<Conflict>> {
    lead(raft).await;
    raft.write(move |tx: &mut Tx| {
        let Some(before) = tx.node(node).filter(|n| n.manager_addr.as_ref() != Some(&addr)) else { return Ok(()) };
        let after = Node { manager_addr: Some(addr), ..before.as_ref().clone() };
        tx.change(Change::Put(Object::Node(Arc::new(after))))
    })
    .await
}

async fn lead(raft: &Raft) {
    // An error means that consensus ended; the write says so.
    drop(raft.leadership().wait_for(Option::is_some).await);
}
