//! The states of a task (swarm-semantics 2.1): observed states only ever grow, desired states likewise.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task is (observed) or is to be (desired). The order is the order of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Made by an orchestrator.
    #[default]
    New,
    /// Has what the allocator gives; waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// The node has seen it.
    Accepted,
    /// The node pulls the image and makes the container.
    Preparing,
    /// Prepared; waits until it is desired running.
    Ready,
    /// Being started; with a health check, until the first healthy answer.
    Starting,
    /// Running (and healthy).
    Running,
    /// Ended with exit code 0.
    Complete,
    /// Stopped because that was desired.
    Shutdown,
    /// Ended with an error at starting or later.
    Failed,
    /// Could not be prepared, or refused by the constraint enforcer.
    Rejected,
    /// Desired only: stop, then forget the task.
    Remove,
    /// Its node is gone.
    Orphaned,
}

impl TaskState {
    /// All states, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// The name in Docker's JSON and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// The state of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(name))
    }

    /// Nothing runs any more.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
