//! `docker swarm init`: checks, then a new cluster with this node as its only manager (swarm-semantics 13.3).

use std::time::Duration;

use ipnet::IpNet;
use rcgen::KeyPair;
use serde::Deserialize;
use shoal_manager::{RandomIds, ca};
use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, ClusterSpec, NodeRole, NodeSpec};
use shoal_types::{
    Cluster, ClusterId, Meta, Node as NodeObject, NodeId, Refusal, RefusalKind, Timestamp, View, validate,
};
use tokio::sync::watch;

use crate::addresses::{Addresses, Asked, interfaces, resolve};
use crate::identity::{Identity, Issued};
use crate::member::Member;
use crate::node::{Node, already};
use crate::paths::Saved;
use crate::supervise::{Plan, Running, Status};

/// The pools that overlay subnets come from when nothing is said.
const DEFAULT_POOL: &str = "10.0.0.0/8";
const DEFAULT_SUBNET_SIZE: u32 = 24;
const MAX_SUBNET_SIZE: u32 = 29;
/// The UDP port of the data path when nothing is said.
const DEFAULT_DATA_PORT: u32 = 4789;
/// How long to wait until the agent is in session, so that the first service finds a node.
const READY: Duration = Duration::from_secs(5);

/// The body of `POST /swarm/init`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    /// Where to listen: address or interface, with or without port.
    pub listen_addr: String,
    /// Where others reach this node: the same; empty: found out.
    pub advertise_addr: String,
    /// Where the traffic of containers goes: address or interface; empty: as advertised.
    pub data_path_addr: String,
    /// The UDP port of that traffic; 0: 4789.
    pub data_path_port: u32,
    /// The pools that overlay subnets are cut from; empty: `10.0.0.0/8`.
    pub default_addr_pool: Vec<String>,
    /// The length of the subnets' prefix; 0: 24.
    pub subnet_size: u32,
    /// Go on with the state of a cluster that lost its quorum.
    pub force_new_cluster: bool,
    /// Managers need a key after a restart.
    pub auto_lock_managers: bool,
    /// Whether this node takes tasks; empty: `active`.
    pub availability: String,
    /// Settings; what is left out gets its default.
    pub spec: ClusterSpec,
}

/// What was checked.
struct Checked {
    saved: Saved,
    availability: Availability,
    spec: ClusterSpec,
    pool: Vec<String>,
    subnet_size: u32,
    data_path_port: u32,
}

impl Node {
    /// Makes a new cluster with this node as its only manager.
    ///
    /// # Errors
    /// What the request cannot mean, in Docker's words; `This node is already part of a swarm. …`; what the machine refuses.
    /// Nothing remains of an init that failed.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, Refusal> {
        let mut member = self.member.lock().await;
        if request.force_new_cluster {
            return Err(Refusal::unsupported("forcing a new cluster from an old one's state (ForceNewCluster)"));
        }
        if member.is_some() || !matches!(self.status(), Status::Inactive) {
            return Err(already());
        }
        let checked = check(request)?;
        self.status.send_replace(Status::Pending);
        match self.begin(checked).await {
            Ok(begun) => {
                let node = begun.identity.borrow().node;
                *member = Some(begun);
                self.await_agent(node).await;
                Ok(node)
            }
            Err(refusal) => {
                self.set_local(None);
                if let Err(error) = self.paths.wipe() {
                    tracing::warn!(%error, "cannot remove what is left of an init that failed");
                }
                self.status.send_replace(Status::Inactive);
                Err(refusal)
            }
        }
    }

    async fn begin(&self, checked: Checked) -> Result<Member, Refusal> {
        // What a crash during an earlier init may have left.
        self.paths.wipe().map_err(|e| failed(&e))?;
        let ids = &mut RandomIds;
        let (node, cluster) = (NodeId::new(ids), ClusterId::new(ids));
        let now = Timestamp::now();
        let root_ca = ca::new_root(now).map_err(|e| failed(&e))?;
        let identity = first_identity(&root_ca, node, cluster, &checked.spec, now)?;
        let addresses = checked.saved.addresses.clone();
        self.paths.save(&checked.saved).map_err(|e| failed(&e))?;
        let plan = Plan {
            paths: self.paths.clone(),
            identity: watch::channel(identity.clone()).0,
            listen: addresses.listen,
            advertise: addresses.advertise,
        };
        let first = (cluster_object(cluster, root_ca, &checked), node_object(node, &checked, &addresses));
        let running = Running::start(&plan, Some(first)).await.map_err(|e| failed(&e))?;
        // Only now: an identity on disk means that there is a cluster.
        if let Err(error) = identity.save(&self.paths.certificates()) {
            running.stop().await;
            return Err(failed(&error));
        }
        self.set_local(Some((node, addresses)));
        let member = Member::start(plan, Some(running), &self.status, &*self.launcher).await;
        member.map_err(|error| failed(&error))
    }

    /// Waits a moment until the node is ready. Not an error where it is not: the client sees its state.
    async fn await_agent(&self, node: NodeId) {
        let Status::Active(control) = self.status() else { return };
        let is_ready = || control.snapshot().node(node).is_some_and(|n| n.status.state == NodeState::Ready);
        let ready = async {
            let mut changes = control.follow();
            while !is_ready() {
                changes.next().await;
            }
        };
        if tokio::time::timeout(READY, ready).await.is_err() {
            tracing::warn!("the agent of this node is not in session yet");
        }
    }
}

fn first_identity(
    root: &shoal_types::object::RootCa,
    node: NodeId,
    cluster: ClusterId,
    spec: &ClusterSpec,
    now: Timestamp,
) -> Result<Identity, Refusal> {
    let key = KeyPair::generate().map_err(|e| failed(&e))?;
    let subject = ca::Subject { node, role: NodeRole::Manager, cluster };
    let cert = ca::issue(root, &subject, &key, spec.ca_config.node_cert_expiry, now).map_err(|e| failed(&e))?;
    let issued = Issued { cert_pem: cert, key_pem: key.serialize_pem() };
    Identity::new(issued, root.cert_pem.clone()).map_err(|e| failed(&e))
}

fn cluster_object(id: ClusterId, root_ca: shoal_types::object::RootCa, checked: &Checked) -> Cluster {
    Cluster {
        id,
        meta: Meta::default(),
        spec: checked.spec.clone(),
        root_ca,
        default_addr_pool: checked.pool.clone(),
        subnet_size: checked.subnet_size,
        data_path_port: checked.data_path_port,
    }
}

fn node_object(id: NodeId, checked: &Checked, addresses: &Addresses) -> NodeObject {
    NodeObject {
        id,
        meta: Meta::default(),
        spec: NodeSpec { role: NodeRole::Manager, availability: checked.availability, ..NodeSpec::default() },
        role: NodeRole::Manager,
        description: None,
        status: Default::default(),
        manager_addr: Some(addresses.advertise.to_string()),
    }
}

fn check(request: InitRequest) -> Result<Checked, Refusal> {
    let mut spec = request.spec;
    spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
    validate::new_cluster(&spec)?;
    let availability = availability(&request.availability)?;
    let subnet_size = if request.subnet_size == 0 { DEFAULT_SUBNET_SIZE } else { request.subnet_size };
    pools(&request.default_addr_pool, subnet_size)?;
    let data_path_port = data_path_port(request.data_path_port)?;
    let asked =
        Asked { listen: request.listen_addr, advertise: request.advertise_addr, data_path: request.data_path_addr };
    let interfaces = interfaces().map_err(|e| failed(&e))?;
    let addresses =
        resolve(&asked, &interfaces).map_err(|e| Refusal::engine(RefusalKind::InvalidArgument, e.to_string()))?;
    let pool = match request.default_addr_pool {
        pool if pool.is_empty() => vec![DEFAULT_POOL.to_owned()],
        pool => pool,
    };
    let saved = Saved { asked, addresses };
    Ok(Checked { saved, availability, spec: over_defaults(spec), pool, subnet_size, data_path_port })
}

fn availability(text: &str) -> Result<Availability, Refusal> {
    match text {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(Refusal::engine(RefusalKind::InvalidArgument, format!("invalid Availability: {other:?}"))),
    }
}

fn pools(pools: &[String], subnet_size: u32) -> Result<(), Refusal> {
    let refused = |text: String| Err(Refusal::engine(RefusalKind::Unknown, text));
    if subnet_size > MAX_SUBNET_SIZE {
        return refused(format!("subnet size is out of range: {subnet_size}"));
    }
    for pool in pools {
        match pool.parse::<IpNet>() {
            Err(_) => return refused(format!("invalid base pool {pool}: invalid CIDR address: {pool}")),
            Ok(net) if u32::from(net.prefix_len()) > subnet_size => {
                return refused(format!("invalid CIDR: {pool:?}. Subnet size is too small for pool: {subnet_size}"));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

fn data_path_port(port: u32) -> Result<u32, Refusal> {
    match port {
        0 => Ok(DEFAULT_DATA_PORT),
        1024..=49151 => Ok(port),
        _ => {
            let text = format!("Datapath port number is not in valid range (1024-49151) : {port}");
            Err(Refusal::engine(RefusalKind::Unknown, text))
        }
    }
}

/// What was left out gets the default of a new cluster.
fn over_defaults(mut spec: ClusterSpec) -> ClusterSpec {
    fn fill<T: Default + PartialEq>(value: &mut T, default: T) {
        if *value == T::default() {
            *value = default;
        }
    }
    let default = ClusterSpec::initial();
    fill(&mut spec.name, default.name);
    fill(&mut spec.orchestration.task_history_retention_limit, default.orchestration.task_history_retention_limit);
    fill(&mut spec.raft.snapshot_interval, default.raft.snapshot_interval);
    fill(&mut spec.raft.keep_old_snapshots, default.raft.keep_old_snapshots);
    fill(&mut spec.raft.log_entries_for_slow_followers, default.raft.log_entries_for_slow_followers);
    fill(&mut spec.raft.election_tick, default.raft.election_tick);
    fill(&mut spec.raft.heartbeat_tick, default.raft.heartbeat_tick);
    fill(&mut spec.dispatcher.heartbeat_period, default.dispatcher.heartbeat_period);
    fill(&mut spec.ca_config.node_cert_expiry, default.ca_config.node_cert_expiry);
    spec
}

/// The machine refuses, not the request: HTTP 500 with the reason.
fn failed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::engine(RefusalKind::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T>(result: Result<T, Refusal>) -> String {
        result.err().map(|r| r.to_string()).unwrap_or_default()
    }

    #[test]
    fn pools_and_ports_are_checked_in_dockers_words() {
        let pool = |p: &str, size| text(pools(&[p.to_owned()], size));
        assert_eq!(pool("10.0.0.0/8", 24), "");
        assert_eq!(pool("10.0.0.0/8", 30), "subnet size is out of range: 30");
        assert_eq!(pool("nonsense", 24), "invalid base pool nonsense: invalid CIDR address: nonsense");
        let small = "invalid CIDR: \"10.0.0.0/25\". Subnet size is too small for pool: 24";
        assert_eq!(pool("10.0.0.0/25", 24), small);
        let range = "Datapath port number is not in valid range (1024-49151) : ";
        for bad in [1, 1023, 49_152] {
            assert_eq!(text(data_path_port(bad)), format!("{range}{bad}"));
        }
        assert_eq!(data_path_port(0).unwrap(), 4789);
        assert_eq!(text(availability("x")), "invalid Availability: \"x\"");
    }

    #[test]
    fn settings_that_are_left_out_get_their_defaults_and_others_stay() {
        assert_eq!(over_defaults(ClusterSpec::default()), ClusterSpec::initial());
        let mut given = ClusterSpec::default();
        given.raft.snapshot_interval = 7;
        given.orchestration.task_history_retention_limit = Some(0);
        let filled = over_defaults(given);
        assert_eq!(filled.raft.snapshot_interval, 7);
        assert_eq!(filled.orchestration.task_history_retention_limit, Some(0));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let locked = InitRequest { auto_lock_managers: true, ..InitRequest::default() };
        assert_eq!(text(check(locked)), "locking managers (autolock) is not supported by Shoal yet");
    }

    #[test]
    fn the_body_reads_as_docker_writes_it() {
        let body = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathPort":0,"Availability":"active",
                       "Spec":{"Labels":null,"Orchestration":{},"CAConfig":{}}}"#;
        let request: InitRequest = shoal_types::json::from_slice(body.as_bytes()).unwrap();
        assert_eq!(request.listen_addr, "0.0.0.0:2377");
    }
}
