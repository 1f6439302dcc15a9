//! News of this machine's place in a swarm, for whoever holds on to something of the cluster.

use tokio::sync::watch;

use crate::node::Node;
use crate::supervise::Status;

/// Wakes when the answer of [`Node::control`] may have changed.
#[derive(Clone)]
pub struct Changes(watch::Receiver<Status>);

impl Node {
    /// Changes from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.status.subscribe())
    }
}

impl Changes {
    /// Waits for the next one. `false`: there will be none, the node has ended.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
