//! Nodes that fall silent.

use std::sync::Arc;
use std::time::Duration;

use shoal_raft::Tx;
use shoal_store::Conflict;
use shoal_types::object::NodeState;
use shoal_types::{Change, Node, NodeId, Object, View};
use tokio::time::Instant;

use super::Dispatcher;

/// How long a new leader waits for all nodes before it marks the missing ones and gives tasks to the others. They come back
/// one after the other: what waits for a node would all go to the first.
const RETURN: Duration = Duration::from_secs(1);
/// How long to sleep at most; sessions that begin meanwhile are seen then.
const NAP: Duration = Duration::from_millis(250);
/// A timer that comes this late is usual. One that comes later means that this process did not run: it was stopped, or
/// the machine was.
const USUAL: Duration = Duration::from_millis(200);
/// A stall that the log is to tell of.
const NOTABLE: Duration = Duration::from_secs(1);
/// How long to wait after a write that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Nodes in one write: their descriptions must fit into an entry of the log.
const TOGETHER: usize = 128;

impl Dispatcher {
    /// A heartbeat: when the next one is due.
    pub(super) fn beat(&self, node: NodeId, session_id: &str) -> Result<Duration, tonic::Status> {
        let period = self.draw_period();
        self.sessions().get(node, session_id)?.pulse.beat(Instant::now());
        Ok(period)
    }

    /// Marks nodes down that are not heard of. Ends where the store cannot be written any more.
    pub(super) async fn watch_heartbeats(self: &Arc<Self>) -> String {
        if let Err(error) = self.gather().await {
            return error.to_string();
        }
        self.gathered.send_replace(true);
        loop {
            let rules = self.renew_rules();
            let nap = Instant::now() + NAP;
            let planned = self.sessions().next_deadline(&rules).map_or(nap, |next| next.clamp(Instant::now(), nap));
            tokio::time::sleep_until(planned).await;
            let now = Instant::now();
            let stall = now.saturating_duration_since(planned);
            if stall > USUAL {
                if stall > NOTABLE {
                    tracing::warn!(?stall, "this manager did not run; its nodes are waited for anew");
                }
                self.sessions().forgive(stall, now);
            }
            let (silent, missing) = self.sessions().take_expired(&rules, now);
            self.mark_down(silent, missing).await;
        }
    }

    /// Waits for the nodes that the leader before had in session, and marks those that take long as unknown.
    async fn gather(self: &Arc<Self>) -> Result<(), shoal_raft::WriteError<Conflict>> {
        let mut came = self.came.subscribe();
        // An error would mean that the dispatcher, and this with it, is gone.
        let all = came.wait_for(|()| self.sessions().expected.is_empty());
        if tokio::time::timeout(RETURN, all).await.is_ok() {
            return Ok(());
        }
        let late: Vec<_> = self.sessions().expected.keys().copied().collect();
        tracing::info!(nodes = late.len(), "not all nodes have come back yet");
        let text = "Node moved to \"unknown\" state due to leadership change in cluster";
        for nodes in late.chunks(TOGETHER) {
            self.set_states(nodes.to_vec(), NodeState::Unknown, text).await?;
        }
        Ok(())
    }

    /// Marks nodes down that were in session or expected to be, however often it takes.
    async fn mark_down(self: &Arc<Self>, silent: Vec<NodeId>, missing: Vec<NodeId>) {
        let texts = ["heartbeat failure", "heartbeat failure for node in \"unknown\" state"];
        for (nodes, text) in [silent, missing].into_iter().zip(texts) {
            if !nodes.is_empty() {
                tracing::warn!(?nodes, "{text}");
            }
            for nodes in nodes.chunks(TOGETHER) {
                while let Err(error) = self.set_states(nodes.to_vec(), NodeState::Down, text).await {
                    tracing::warn!(%error, "cannot mark nodes as down");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Writes what has become of nodes that are not in session. A session begins before its node is written as ready, so
    /// whichever of the two writes comes first, who has come back in the meantime ends as ready.
    async fn set_states(
        self: &Arc<Self>,
        nodes: Vec<NodeId>,
        state: NodeState,
        text: &'static str,
    ) -> Result<(), shoal_raft::WriteError<Conflict>> {
        let me = self.clone();
        let write = move |tx: &mut Tx| {
            for node in nodes.into_iter().filter(|node| !me.sessions().has(*node)) {
                if let Some(node) = tx.node(node).cloned() {
                    set_state(tx, &node, state, text)?;
                }
            }
            Ok(())
        };
        self.raft.write(write).await
    }
}

fn set_state(tx: &mut Tx, node: &Arc<Node>, state: NodeState, message: &str) -> Result<(), Conflict> {
    if node.status.state == state {
        return Ok(());
    }
    let mut node = node.as_ref().clone();
    node.status.state = state;
    message.clone_into(&mut node.status.message);
    tx.change(Change::Put(Object::Node(Arc::new(node))))
}
