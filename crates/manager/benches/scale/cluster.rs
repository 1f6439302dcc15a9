//! The real side: a manager on a log on disk, its nodes and services.

use std::sync::Arc;

use shoal_manager::ca::Subject;
use shoal_manager::{Control, Manager, Peer, RandomIds, begin, ca};
use shoal_raft::{Config, DataKey, Member, NoPeers, Raft, Snapshot, Tx};
use shoal_types::spec::{
    ClusterSpec, ContainerSpec, NodeRole, NodeSpec, Replicated, ServiceMode, ServiceSpec, TaskSpec,
};
use shoal_types::{Change, ClusterId, Meta, Node, NodeId, Object, Timestamp};
use shoal_wire::{Dial, UplinkError};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Server};

use crate::agent::{self, Agents};
use crate::pipe::Door;

/// Nodes in one write.
const TOGETHER: usize = 128;

/// A manager that serves, and the nodes that it knows.
pub struct Cluster {
    /// Its part in consensus.
    pub raft: Raft,
    control: Control,
    id: ClusterId,
    nodes: Vec<NodeId>,
    door: Door,
    _manager: Manager,
    _dir: TempDir,
}

/// There are no other managers.
struct Alone;

#[tonic::async_trait]
impl Dial for Alone {
    async fn dial(&self, _addr: &str) -> Result<Channel, UplinkError> {
        Err(UplinkError::NoManager)
    }
}

impl Cluster {
    /// A new cluster whose log is in a directory of its own; `nodes` nodes are to come into session.
    pub async fn start(nodes: u64) -> Self {
        let dir = TempDir::new().expect("a directory for the log");
        let spec = ClusterSpec::initial();
        let config = Config {
            dir: dir.path().to_owned(),
            key: DataKey::new(&[1; 32]),
            limits: spec.raft.clone(),
            force_new: false,
        };
        let raft = Raft::open(&config, Arc::new(NoPeers)).await.expect("an empty log");
        let (id, first) = (ClusterId::new(&mut RandomIds), NodeId::new(&mut RandomIds));
        let addr = "10.0.0.1:2377";
        raft.begin(Member { node_id: Some(first), addr: addr.into(), ..Member::default() })
            .await
            .expect("a new cluster");
        let manager = Manager::start(raft.clone(), id, Arc::new(Alone));
        let cluster = shoal_types::Cluster {
            id,
            meta: Meta::default(),
            spec,
            root_ca: ca::new_root(Timestamp::now()).expect("an authority"),
            default_addr_pool: vec!["10.0.0.0/8".into()],
            subnet_size: 24,
            data_path_port: 4789,
            blacklist: Default::default(),
            unlock_keys: None,
            root_rotation: None,
        };
        begin(&raft, cluster, node(first, NodeRole::Manager, Some(addr))).await.expect("a first write");
        let (door, incoming) = unbounded_channel();
        let routes = Server::builder().add_routes(manager.routes());
        tokio::spawn(routes.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        let mut this =
            Self { control: manager.control(), raft, id, nodes: vec![first], door, _manager: manager, _dir: dir };
        this.join(nodes.saturating_sub(1)).await;
        this
    }

    /// Nodes as the authority makes them when they join.
    async fn join(&mut self, count: u64) {
        let ids: Vec<NodeId> = (0..count).map(|_| NodeId::new(&mut RandomIds)).collect();
        for ids in ids.chunks(TOGETHER) {
            let nodes: Vec<_> = ids.iter().map(|id| node(*id, NodeRole::Worker, None)).collect();
            let write = |tx: &mut Tx| {
                nodes.into_iter().try_for_each(|node| tx.change(Change::Put(Object::Node(Arc::new(node)))))
            };
            self.raft.write(write).await.expect("a write");
        }
        self.nodes.extend(ids);
    }

    /// Starts an agent for each node.
    pub fn connect_agents(&self, threads: &Handle) -> Agents {
        let agents = Agents::default();
        for (number, id) in self.nodes.iter().enumerate() {
            let role = if number == 0 { NodeRole::Manager } else { NodeRole::Worker };
            let subject = Subject { node: *id, role, cluster: self.id };
            let octets = (number as u32 + 1).to_be_bytes();
            let peer = Peer { subject, addr: format!("10.{}.{}.{}", octets[1], octets[2], octets[3]) };
            threads.spawn(agent::run(self.door.clone(), peer, number, agents.clone()));
        }
        agents
    }

    /// Asks for all services, as several clients would, each for one after the other.
    pub async fn create_services(&self, services: u64, tasks: u64, clients: u64) {
        let mut creating = JoinSet::new();
        for client in 0..clients {
            let control = self.control.clone();
            creating.spawn(async move {
                for n in (client..services).step_by(clients as usize) {
                    let replicas = tasks / services + u64::from(n < tasks % services);
                    control.create_service(service(n, replicas), None).await.expect("a service");
                }
            });
        }
        creating.join_all().await;
    }

    /// The state as it is now.
    pub fn view(&self) -> Snapshot {
        self.raft.snapshot()
    }
}

fn node(id: NodeId, role: NodeRole, addr: Option<&str>) -> Node {
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec { role, ..NodeSpec::default() },
        role,
        description: None,
        status: Default::default(),
        manager_addr: addr.map(Into::into),
        wanted_issuer: None,
    }
}

fn service(n: u64, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec {
        image: "registry.example.com/team/application:1.2.3".into(),
        env: vec!["MODE=production".into(), "LOG_LEVEL=info".into()],
        ..ContainerSpec::default()
    };
    let replicas = Some(i64::try_from(replicas).expect("not that many"));
    ServiceSpec {
        name: format!("service-{n}"),
        task_template: TaskSpec { container_spec: Some(container), ..TaskSpec::default() },
        mode: ServiceMode { replicated: Some(Replicated { replicas }), ..ServiceMode::default() },
        ..ServiceSpec::default()
    }
}
