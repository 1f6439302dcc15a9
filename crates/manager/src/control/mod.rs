//! What clients ask of the cluster: plain calls with typed refusals, in Docker's words (swarm-semantics 5.1, 8.2, 12, 13).
//!
//! Reads are answered from the state as it is applied here; writes return once they are in it, so a client reads its own.
//! Leaves to others: HTTP and its JSON (`api`), init, join and leave (`node`).

mod cluster;
mod events;
mod filters;
mod logs;
mod node;
mod service;
mod task;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use shoal_raft::{Feed, Raft, Snapshot, Tx, WriteError, WriteFailure};
use shoal_types::{Refusal, RefusalKind};

use crate::leader::Active;
pub use cluster::{ClusterUpdate, Rotate};
pub use events::{EventAction, EventObject, EventStream, SwarmEvent};
pub use filters::Filters;
pub use node::{ManagerStatus, Reachability};
pub use service::{AuthFrom, ServiceStatus, ServiceUpdate};

/// How long a call may take (swarm-semantics 13.1).
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a call waits for a leader.
const LEADERLESS: Duration = Duration::from_secs(10);

/// The control API of one manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    raft: Raft,
    active: Active,
}

impl Control {
    pub(crate) fn new(raft: Raft, active: Active) -> Self {
        Self { raft, active }
    }

    /// The state as it is applied here: for whoever resolves names or joins objects.
    pub fn snapshot(&self) -> Snapshot {
        self.raft.snapshot()
    }

    /// Everything that is applied from now on, tasks included.
    pub fn follow(&self) -> Feed {
        self.raft.subscribe().1
    }

    /// Waits until this manager leads, for as long as a client may wait.
    ///
    /// # Errors
    /// `The swarm does not have a leader. …`
    pub async fn wait_for_leader(&self) -> Result<(), Refusal> {
        let mut leads = self.raft.leadership();
        match tokio::time::timeout(LEADERLESS, leads.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(no_leader()),
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        closure: impl FnOnce(&mut Tx) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        within(async {
            self.wait_for_leader().await?;
            self.raft.write(closure).await.map_err(refusal)
        })
        .await
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::new(RefusalKind::DeadlineExceeded, "context deadline exceeded")),
    }
}

fn refusal(error: WriteError<Refusal>) -> Refusal {
    match error {
        WriteError::Refused(refusal) => refusal,
        WriteError::Failed(failure) => {
            let kind = match &failure {
                WriteFailure::NoSpace(_) | WriteFailure::Stopped(_) => RefusalKind::Unavailable,
                WriteFailure::NotLeader | WriteFailure::TooLarge => RefusalKind::Unknown,
            };
            Refusal::new(kind, failure.to_string())
        }
    }
}

fn no_leader() -> Refusal {
    Refusal::new(
        RefusalKind::Unknown,
        "The swarm does not have a leader. It's possible that too few managers are online. \
         Make sure more than half of the managers are online.",
    )
}
