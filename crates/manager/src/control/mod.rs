//! What clients ask of the cluster: plain calls with typed refusals, in Docker's words (swarm-semantics 5.1, 8.2, 12, 13).
//!
//! The same on every manager. Writes are carried out by the leader (`request`), wherever they come in (`forward`), and
//! return once they are applied here. Reads are answered from the state as it is here, after [`Control::catch_up`].
//! Leaves to others: HTTP and its JSON (`api`), init, join and leave (`node`).

#[cfg(test)]
mod again_tests;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod events;
mod filters;
mod forward;
mod logs;
mod node;
mod payload;
mod request;
mod serve;
mod service;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use shoal_raft::{Feed, Raft, Snapshot};
use shoal_types::{ClusterId, Refusal, RefusalKind};
use shoal_wire::Dial;
use shoal_wire::body::decode;

use crate::leader::Active;
pub use cluster::{ClusterUpdate, Rotate};
pub use events::{EventAction, EventObject, EventStream, SwarmEvent};
pub use filters::Filters;
pub(crate) use forward::Way;
pub use node::{ManagerStatus, Reachability};
pub(crate) use request::{Halt, Here, Request};
pub use serve::ControlService;
pub use service::{AuthFrom, ServiceStatus, ServiceUpdate};

/// How long a call may take once there is a leader. Docker's engine waits 20 s.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a call waits for a leader. An election takes a second or two; Docker waits ten.
pub(crate) const LEADERLESS: Duration = Duration::from_secs(5);
/// How long an answer may still come from a leader that leads no more.
const AFTERMATH: Duration = Duration::from_millis(300);

/// The control API of one manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    raft: Raft,
    active: Active,
    way: Arc<Way>,
}

impl Control {
    pub(crate) fn new(raft: Raft, active: Active, dial: Arc<dyn Dial>) -> Self {
        let way = Arc::new(Way::new(raft.clone(), dial));
        Self { raft, active, way }
    }

    /// What other managers call.
    pub(crate) fn service(&self, cluster: ClusterId) -> ControlService {
        ControlService { here: self.way.here(), cluster }
    }

    /// Has the leader carry out a change, and waits until it is applied here.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Refusal> {
        let answer = self.way.carry(&request).await?;
        decode("the answer of the leader", &answer).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))
    }

    /// Waits until reads see everything that any manager has answered before; not for long, and not without a leader.
    /// Whether they do.
    pub async fn catch_up(&self) -> bool {
        self.way.catch_up().await
    }

    /// The state as it is applied here: for whoever resolves names or joins objects.
    pub fn snapshot(&self) -> Snapshot {
        self.raft.snapshot()
    }

    /// Everything that is applied from now on, tasks included.
    pub fn follow(&self) -> Feed {
        self.raft.subscribe().1
    }
}

pub(crate) fn no_leader() -> Refusal {
    Refusal::new(
        RefusalKind::Unknown,
        "The swarm does not have a leader. It's possible that too few managers are online. \
         Make sure more than half of the managers are online.",
    )
}
