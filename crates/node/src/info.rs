//! What `/info` and `/_ping` say of the swarm (swarm-semantics 13.5).

use std::sync::Arc;

use shoal_types::object::TlsInfo;
use shoal_types::{Cluster, NodeId, View};
use shoal_wire::session::Manager;

use crate::node::Node;
use crate::supervise::Status;

/// Where a node is in its life in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalState {
    /// In no swarm.
    Inactive,
    /// Starting.
    Pending,
    /// In a swarm.
    Active,
    /// In a swarm, but something failed.
    Error,
    /// A manager that needs the unlock key.
    Locked,
}

/// The swarm as this node sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmInfo {
    /// This node.
    pub node_id: Option<NodeId>,
    /// Where it is reached, without port; empty where it is in no swarm.
    pub node_addr: String,
    /// Where it is in its life.
    pub state: LocalState,
    /// Whether it answers calls on the cluster.
    pub control_available: bool,
    /// What failed; empty where nothing did.
    pub error: String,
    /// The managers.
    pub remote_managers: Vec<Manager>,
    /// What only a manager knows.
    pub cluster: Option<ClusterInfo>,
}

/// What a manager says of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterInfo {
    /// All nodes.
    pub nodes: usize,
    /// Those that are managers.
    pub managers: usize,
    /// The cluster. Join tokens are not for `/info`.
    pub cluster: Arc<Cluster>,
    /// The authority of the cluster.
    pub tls: TlsInfo,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

impl LocalState {
    /// The name in Docker's JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

impl Node {
    /// The swarm as this node sees it.
    pub async fn info(&self) -> SwarmInfo {
        let status = self.status();
        let (state, error) = match &status {
            Status::Inactive => (LocalState::Inactive, String::new()),
            Status::Pending => (LocalState::Pending, String::new()),
            Status::Active(_) | Status::Worker => (LocalState::Active, String::new()),
            Status::Failed(reason) => (LocalState::Error, reason.to_string()),
            Status::Locked => (LocalState::Locked, String::new()),
        };
        let local = self.local();
        let mut info = SwarmInfo {
            node_id: local.as_ref().map(|l| l.node()),
            node_addr: local.as_ref().map(|l| l.addresses.borrow().advertise.ip().to_string()).unwrap_or_default(),
            state,
            control_available: matches!(status, Status::Active(_)),
            error,
            remote_managers: local.map(|l| l.remotes.managers()).unwrap_or_default(),
            cluster: None,
        };
        if let Status::Active(control) = status {
            control.catch_up().await;
            let view = control.snapshot();
            let managing = |n: &Arc<shoal_types::Node>| {
                control.manager_status(n.id).map(|m| Manager { node_id: n.id, addr: m.addr })
            };
            info.remote_managers = view.nodes().filter_map(managing).collect();
            let managers = info.remote_managers.len();
            let known = control.get_cluster().ok().zip(control.tls_info().ok());
            info.cluster = known.map(|(cluster, tls)| ClusterInfo {
                nodes: view.nodes().count(),
                managers,
                cluster,
                tls,
                warnings: warnings(managers),
            });
        }
        info
    }

    /// The value of the header `Swarm` of `/_ping`.
    pub fn ping(&self) -> &'static str {
        match self.status() {
            Status::Inactive => "inactive",
            Status::Pending => "pending",
            Status::Active(_) => "active/manager",
            Status::Worker => "active/worker",
            Status::Failed(_) => "error",
            Status::Locked => "locked",
        }
    }
}

/// Docker's words for it.
pub(crate) const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n         \
     no fault tolerance, and poses a high risk to lose control over the cluster.\n         \
     Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n         \
     Swarm for fault-tolerance.";

fn warnings(managers: usize) -> Vec<String> {
    if managers == 2 { vec![TWO_MANAGERS.to_owned()] } else { Vec::new() }
}
