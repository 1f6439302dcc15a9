//! Managers for tests: real logs on a real disk.

mod trio;

use std::sync::Arc;

use shoal_raft::{Config, DataKey, Member, NoPeers, Raft, Update};
use shoal_types::object::TaskStatus;
use shoal_types::spec::{
    ClusterSpec, ContainerSpec, NodeRole, NodeSpec, Replicated, ServiceMode, ServiceSpec, TaskSpec,
};
use shoal_types::{Cluster, ClusterId, Meta, Node, NodeId, ServiceId, Task, TaskId, TaskState, Timestamp};
use shoal_wire::{Dial, UplinkError};
use tempfile::TempDir;
use tonic::transport::Channel;

pub use trio::Trio;

use crate::ids::RandomIds;
use crate::{Control, Manager, begin, ca};

/// A manager with one node that is not in session.
pub struct Fixture {
    pub raft: Raft,
    pub manager: Manager,
    pub control: Control,
    pub node: NodeId,
    _dir: TempDir,
}

impl Fixture {
    pub async fn new(spec: ClusterSpec) -> Self {
        let dir = TempDir::new().unwrap();
        let key = DataKey::new(&[1; 32]);
        let config = Config { dir: dir.path().to_owned(), key, limits: spec.raft.clone(), force_new: false };
        let raft = Raft::open(&config, std::sync::Arc::new(NoPeers)).await.unwrap();
        let (node, cluster) = (NodeId::new(&mut RandomIds), ClusterId::new(&mut RandomIds));
        raft.begin(Member { node_id: Some(node), addr: "10.0.0.1:2377".into(), ..Member::default() }).await.unwrap();
        let (object, first) = (new_cluster(cluster, spec), first_node(node, "10.0.0.1:2377"));
        let manager = Manager::start(raft.clone(), cluster, Arc::new(NoWay));
        begin(&raft, object, first).await.unwrap();
        Self { control: manager.control(), raft, manager, node, _dir: dir }
    }

    /// Waits until `holds` is true of the state.
    pub async fn until(&self, holds: impl Fn(&shoal_raft::Snapshot) -> bool) {
        let (snapshot, mut feed) = self.raft.subscribe();
        let mut holding = holds(&snapshot);
        while !holding {
            holding = match feed.next().await {
                Update::Commit(commit) => holds(&commit.snapshot),
                Update::Resync(snapshot) => holds(&snapshot),
            };
        }
    }
}

pub fn first_node(id: NodeId, addr: &str) -> Node {
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec { role: NodeRole::Manager, ..NodeSpec::default() },
        role: NodeRole::Manager,
        description: None,
        status: Default::default(),
        manager_addr: Some(addr.into()),
        wanted_issuer: None,
    }
}

fn new_cluster(id: ClusterId, spec: ClusterSpec) -> Cluster {
    Cluster {
        id,
        meta: Meta::default(),
        spec,
        root_ca: ca::new_root(Timestamp::now()).unwrap(),
        default_addr_pool: vec!["10.0.0.0/8".into()],
        subnet_size: 24,
        data_path_port: 4789,
        blacklist: Default::default(),
        unlock_keys: None,
        root_rotation: None,
    }
}

/// There are no other managers.
pub struct NoWay;

#[tonic::async_trait]
impl Dial for NoWay {
    async fn dial(&self, _addr: &str) -> Result<Channel, UplinkError> {
        Err(UplinkError::NoManager)
    }
}

/// A running task of `service` on `node`.
pub fn task(service: ServiceId, node: NodeId) -> Task {
    Task {
        id: TaskId::new(&mut RandomIds),
        meta: Meta::default(),
        service_id: service,
        slot: 1,
        node_id: Some(node),
        annotations: Default::default(),
        spec: Default::default(),
        spec_version: 0,
        endpoint: None,
        registry_auth: None,
        status: TaskStatus { state: TaskState::Running, ..TaskStatus::default() },
        desired_state: TaskState::Running,
        job_iteration: None,
        assigned_generic: Vec::new(),
    }
}

pub fn service(name: &str, replicas: i64) -> ServiceSpec {
    let container = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    let mode = ServiceMode { replicated: Some(Replicated { replicas: Some(replicas) }), ..ServiceMode::default() };
    ServiceSpec {
        name: name.into(),
        task_template: TaskSpec { container_spec: Some(container), ..TaskSpec::default() },
        mode,
        ..ServiceSpec::default()
    }
}
