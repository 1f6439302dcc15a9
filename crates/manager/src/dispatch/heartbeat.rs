//! Nodes that fall silent.

use std::sync::Arc;
use std::time::Duration;

use shoal_raft::Tx;
use shoal_store::Conflict;
use shoal_types::object::NodeState;
use shoal_types::{Change, Node, NodeId, Object, View};
use tokio::time::Instant;

use super::Dispatcher;

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
        // It may have come back in the very moment in which it was given up, and the cluster has it as lost since: it has to
        // introduce itself again.
        let is_ready = self.raft.snapshot().node(node).is_some_and(|n| n.status.state == NodeState::Ready);
        if is_ready { Ok(period) } else { Err(tonic::Status::aborted("node must disconnect")) }
    }

    /// Marks nodes down that are not heard of. Ends where the store cannot be written any more.
    pub(super) async fn watch_heartbeats(&self) -> String {
        if let Err(reason) = self.forget_sessions().await {
            return reason;
        }
        self.begun.send_replace(true);
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

    /// A new leader has heard of nobody yet.
    async fn forget_sessions(&self) -> Result<(), String> {
        let known: Vec<_> = {
            let view = self.raft.snapshot();
            view.nodes().filter(|n| n.status.state != NodeState::Down).map(|n| n.id).collect()
        };
        let text = "Node moved to \"unknown\" state due to leadership change in cluster";
        for nodes in known.chunks(TOGETHER) {
            self.set_states(nodes.to_vec(), NodeState::Unknown, text).await.map_err(|e| e.to_string())?;
        }
        let deadline = Instant::now() + self.rules().return_within();
        self.sessions().expected.extend(known.into_iter().map(|node| (node, deadline)));
        Ok(())
    }

    /// Marks nodes down that were in session or expected to be, however often it takes.
    async fn mark_down(&self, silent: Vec<NodeId>, missing: Vec<NodeId>) {
        let texts = ["heartbeat failure", "heartbeat failure for node in \"unknown\" state"];
        for (nodes, text) in [silent, missing].into_iter().zip(texts) {
            if !nodes.is_empty() {
                tracing::warn!(?nodes, "{text}");
            }
            for nodes in nodes.chunks(TOGETHER) {
                // Who has come back in the meantime is not down.
                let gone = || nodes.iter().copied().filter(|n| !self.sessions().has(*n)).collect();
                while let Err(error) = self.set_states(gone(), NodeState::Down, text).await {
                    tracing::warn!(%error, "cannot mark nodes as down");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn set_states(
        &self,
        nodes: Vec<NodeId>,
        state: NodeState,
        text: &'static str,
    ) -> Result<(), shoal_raft::WriteError<Conflict>> {
        let write = move |tx: &mut Tx| {
            for node in nodes {
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
