//! A manager with one node for tests: real log on a real disk.

use shoal_raft::{Config, DataKey, Member, NoPeers, Raft, Update};
use shoal_types::spec::{
    ClusterSpec, ContainerSpec, NodeRole, NodeSpec, Replicated, ServiceMode, ServiceSpec, TaskSpec,
};
use shoal_types::{Cluster, ClusterId, Meta, Node, NodeId, Timestamp};
use tempfile::TempDir;

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
        let config = Config { dir: dir.path().to_owned(), key, limits: spec.raft.clone() };
        let raft = Raft::open(&config, NoPeers).await.unwrap();
        let (node, cluster) = (NodeId::new(&mut RandomIds), ClusterId::new(&mut RandomIds));
        raft.begin(Member { node_id: Some(node), addr: "10.0.0.1:2377".into() }).await.unwrap();
        let first = Node {
            id: node,
            meta: Meta::default(),
            spec: NodeSpec { role: NodeRole::Manager, ..NodeSpec::default() },
            role: NodeRole::Manager,
            description: None,
            status: Default::default(),
            manager_addr: Some("10.0.0.1:2377".into()),
        };
        let object = Cluster {
            id: cluster,
            meta: Meta::default(),
            spec,
            root_ca: ca::new_root(Timestamp::now()).unwrap(),
            default_addr_pool: vec!["10.0.0.0/8".into()],
            subnet_size: 24,
            data_path_port: 4789,
        };
        let manager = Manager::start(raft.clone(), cluster);
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
