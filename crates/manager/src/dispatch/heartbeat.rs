//! Nodes that fall silent.

use std::sync::Arc;
use std::time::Duration;

use shoal_raft::Tx;
use shoal_store::Conflict;
use shoal_types::object::NodeState;
use shoal_types::{Change, Node, NodeId, Object, View};
use tokio::time::Instant;

use super::Dispatcher;
use super::sessions::GRACE;

/// How long to sleep at most; sessions that begin meanwhile are seen then.
const NAP: Duration = Duration::from_millis(500);
/// How long to wait after a write that failed.
const RETRY: Duration = Duration::from_millis(500);

impl Dispatcher {
    /// A heartbeat: when the next one is due.
    pub(super) fn beat(&self, node: NodeId, session_id: &str) -> Result<Duration, tonic::Status> {
        let period = self.draw_period();
        self.sessions().get(node, session_id)?.deadline = Instant::now() + period * GRACE;
        Ok(period)
    }

    /// Marks nodes down that are not heard of. Ends where the store cannot be written any more.
    pub(super) async fn watch_heartbeats(&self) -> String {
        if let Err(reason) = self.forget_sessions().await {
            return reason;
        }
        loop {
            let next = self.sessions().next_deadline().unwrap_or_else(|| Instant::now() + NAP);
            tokio::time::sleep_until(next.min(Instant::now() + NAP)).await;
            let (silent, missing) = self.sessions().take_expired(Instant::now());
            if silent.is_empty() && missing.is_empty() {
                continue;
            }
            tracing::warn!(?silent, ?missing, "nodes are not heard of any more");
            while let Err(error) = self.mark_down(silent.clone(), missing.clone()).await {
                tracing::warn!(%error, "cannot mark nodes as down");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// A new leader has heard of nobody yet.
    async fn forget_sessions(&self) -> Result<(), String> {
        let changed = self.raft.write(|tx: &mut Tx| {
            let known: Vec<_> = tx.nodes().filter(|n| n.status.state != NodeState::Down).cloned().collect();
            for node in &known {
                let text = "Node moved to \"unknown\" state due to leadership change in cluster";
                set_state(tx, node, NodeState::Unknown, text)?;
            }
            Ok::<_, Conflict>(known.iter().map(|n| n.id).collect::<Vec<_>>())
        });
        let nodes = changed.await.map_err(|e| e.to_string())?;
        let deadline = Instant::now() + self.draw_period() * GRACE * 2;
        let mut sessions = self.sessions();
        for node in nodes {
            if !sessions.has(node) {
                sessions.expected.insert(node, deadline);
            }
        }
        Ok(())
    }

    async fn mark_down(
        &self,
        silent: Vec<NodeId>,
        missing: Vec<NodeId>,
    ) -> Result<(), shoal_raft::WriteError<Conflict>> {
        // Who has come back in the meantime is not down.
        let gone = |nodes: Vec<NodeId>| {
            let sessions = self.sessions();
            nodes.into_iter().filter(|n| !sessions.has(*n)).collect::<Vec<_>>()
        };
        let (silent, missing) = (gone(silent), gone(missing));
        let write = move |tx: &mut Tx| {
            let texts = ["heartbeat failure", "heartbeat failure for node in \"unknown\" state"];
            for (nodes, text) in [silent, missing].into_iter().zip(texts) {
                for node in nodes {
                    if let Some(node) = tx.node(node).cloned() {
                        set_state(tx, &node, NodeState::Down, text)?;
                    }
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
