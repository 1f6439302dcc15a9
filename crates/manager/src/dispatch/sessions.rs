//! Who is in session, and who is expected to be.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_types::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::liveness::{Pulse, Rules};

/// Registrations of one node in [`WINDOW`] that are accepted.
const REGISTRATIONS: usize = 3;
const WINDOW: Duration = Duration::from_secs(8);

/// All sessions of a term.
#[derive(Debug, Default)]
pub struct Sessions {
    by_node: BTreeMap<NodeId, Session>,
    registrations: BTreeMap<NodeId, VecDeque<Instant>>,
    /// Nodes that were there under the leader before, and until when they may come back.
    pub expected: BTreeMap<NodeId, Instant>,
}

/// One node's session.
#[derive(Debug)]
pub struct Session {
    /// Names it.
    pub id: String,
    /// When it was heard of.
    pub pulse: Pulse,
    /// Ends its streams.
    pub end: CancellationToken,
    /// Marked when what the node must know may have changed.
    pub news: watch::Sender<()>,
}

impl Sessions {
    /// Nobody is in session; who is expected, until when.
    pub fn expecting(expected: BTreeMap<NodeId, Instant>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// The session `id` of `node`.
    ///
    /// # Errors
    /// `node not registered`, or `session invalid` where the node has another one.
    pub fn get(&mut self, node: NodeId, id: &str) -> Result<&mut Session, Status> {
        let session = self.by_node.get_mut(&node).ok_or_else(|| Status::not_found("node not registered"))?;
        if session.id == id { Ok(session) } else { Err(Status::invalid_argument("session invalid")) }
    }

    /// Counts a registration.
    ///
    /// # Errors
    /// `node … exceeded rate limit count of registrations` for the fourth within 8 s.
    pub fn count_registration(&mut self, node: NodeId, now: Instant) -> Result<(), Status> {
        let times = self.registrations.entry(node).or_default();
        while times.front().is_some_and(|t| now.duration_since(*t) > WINDOW) {
            times.pop_front();
        }
        if times.len() >= REGISTRATIONS {
            let text = format!("node {node} exceeded rate limit count of registrations");
            return Err(Status::unavailable(text));
        }
        times.push_back(now);
        Ok(())
    }

    /// Begins a session in place of the node's last one.
    pub fn begin(&mut self, node: NodeId, session: Session) {
        self.expected.remove(&node);
        if let Some(old) = self.by_node.insert(node, session) {
            old.end.cancel();
        }
    }

    /// Ends the session of `node`, whatever it is.
    pub fn end(&mut self, node: NodeId) {
        if let Some(session) = self.by_node.remove(&node) {
            session.end.cancel();
        }
        self.registrations.remove(&node);
        self.expected.remove(&node);
    }

    /// The one who listens did not run for `span` before `now`: nobody could be heard.
    pub fn forgive(&mut self, span: Duration, now: Instant) {
        self.by_node.values_mut().for_each(|s| s.pulse.forgive(span, now));
        self.expected.values_mut().for_each(|deadline| *deadline += span);
    }

    /// Takes out the nodes that should have been heard of by `now`: in session, and only expected.
    pub fn take_expired(&mut self, rules: &Rules, now: Instant) -> (Vec<NodeId>, Vec<NodeId>) {
        let silent: Vec<_> = self.by_node.extract_if(.., |_, s| s.pulse.deadline(rules) <= now).collect();
        silent.iter().for_each(|(_, session)| session.end.cancel());
        let missing = self.expected.extract_if(.., |_, deadline| *deadline <= now).map(|(node, _)| node).collect();
        (silent.into_iter().map(|(node, _)| node).collect(), missing)
    }

    /// When the next node will be missing.
    pub fn next_deadline(&self, rules: &Rules) -> Option<Instant> {
        self.by_node.values().map(|s| s.pulse.deadline(rules)).chain(self.expected.values().copied()).min()
    }

    /// Whether `node` is in session.
    pub fn has(&self, node: NodeId) -> bool {
        self.by_node.contains_key(&node)
    }

    /// Marks that something changed for `node`, or for all.
    pub fn announce(&self, node: Option<NodeId>) {
        match node {
            Some(node) => self.by_node.get(&node).into_iter().for_each(|s| s.news.send_replace(())),
            None => self.by_node.values().for_each(|s| s.news.send_replace(())),
        }
    }
}
