//! The first write of a cluster.

use std::sync::Arc;

use shoal_raft::{Raft, Tx, WriteError};
use shoal_store::Conflict;
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

async fn lead(raft: &Raft) {
    // An error means that consensus ended; the write says so.
    drop(raft.leadership().wait_for(Option::is_some).await);
}
