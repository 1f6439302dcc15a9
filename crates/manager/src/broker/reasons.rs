//! Why lines are missing, in Docker's words.

use shoal_types::{NodeId, TaskId};

/// Why some lines could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The task has no node.
    #[error("task {0} has not been scheduled")]
    NotScheduled(TaskId),
    /// The node is not connected.
    #[error("node {0} is not available")]
    NotAvailable(NodeId),
    /// The node went away in the middle.
    #[error("node {0} disconnected unexpectedly")]
    Disconnected(NodeId),
    /// The node says so.
    #[error("node {node}: {error}")]
    Node {
        /// The node.
        node: NodeId,
        /// What it says.
        error: String,
    },
    /// Nobody brings lines any more.
    #[error("the swarm has lost its leader")]
    NoLeader,
}

/// The last thing of a stream that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("warning: incomplete log stream. some logs could not be retrieved for the following reasons: {0}")]
pub struct LogEnd(pub(super) String);

impl LogEnd {
    /// All reasons in one sentence.
    pub fn new(reasons: &[Reason]) -> Self {
        Self(reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}
