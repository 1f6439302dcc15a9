//! `docker swarm init`: checks, then a new cluster with this node as its only manager (swarm-semantics 13.3).

use std::net::SocketAddr;
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
use tokio_util::sync::CancellationToken;

use crate::addresses::{Addresses, Asked, interfaces, resolve};
use crate::identity::{Identity, Issued};
use crate::member::Member;
use crate::membership::Membership;
use crate::node::{Node, already, locked, unavailable};
use crate::paths::Saved;
use crate::supervise::{Running, Start, Status};
use crate::vault::{Found, Vault};

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
        if request.force_new_cluster {
            return self.force_new(request).await;
        }
        if !matches!(self.status(), Status::Inactive) {
            return Err(already());
        }
        let mut member = self.member.lock().await;
        if member.is_some() || !matches!(self.status(), Status::Inactive) {
            return Err(already());
        }
        let checked = check(request)?;
        self.status.send_replace(Status::Pending);
        match self.begin(checked).await {
            Ok(begun) => {
                let node = begun.membership.node();
                *member = Some(begun);
                self.await_agent(node).await;
                Ok(node)
            }
            Err(refusal) => {
                self.undo("an init");
                Err(refusal)
            }
        }
    }

    /// Nothing remains of what failed.
    pub(crate) fn undo(&self, what: &str) {
        self.set_local(None);
        if let Err(error) = self.paths.wipe() {
            tracing::warn!(%error, "cannot remove what is left of {what} that failed");
        }
        self.status.send_replace(Status::Inactive);
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
        let vault = Vault::new(self.paths.certificates());
        let membership =
            Membership::new(self.paths.clone(), vault, identity.clone(), addresses.clone()).map_err(|e| failed(&e))?;
        let first = Box::new((cluster_object(cluster, root_ca, &checked), node_object(node, &checked, &addresses)));
        let running = Running::start(&membership, Start::Begin(first), &CancellationToken::new()).await;
        let running = running.map_err(|e| failed(&e))?;
        // Only now: an identity on disk means that there is a cluster.
        if let Err(error) = membership.vault.keep(&identity) {
            running.stop(&membership).await;
            return Err(failed(&error));
        }
        self.set_local(Some(membership.clone()));
        let member = Member::start(membership, Some(running), &self.status, &*self.launcher).await;
        member.map_err(|error| failed(&error))
    }

    /// Goes on alone with this manager's state: a cluster that lost its quorum and will not get it back.
    async fn force_new(&self, request: InitRequest) -> Result<NodeId, Refusal> {
        let mut member = self.member.lock().await;
        match self.status() {
            Status::Inactive => {
                drop(member);
                return Box::pin(self.init(InitRequest { force_new_cluster: false, ..request })).await;
            }
            Status::Locked => return Err(locked()),
            Status::Worker => {
                return Err(unavailable(
                    "This node is a worker: it has no state of the swarm that it could go on with.",
                ));
            }
            Status::Pending | Status::Active(_) | Status::Failed(_) => {}
        }
        self.readdress(&request)?;
        self.status.send_replace(Status::Pending);
        if let Some(member) = member.take() {
            member.stop().await;
        }
        match self.return_as(Some(Start::Alone)).await {
            Ok(begun) => {
                let node = begun.membership.node();
                *member = Some(begun);
                self.await_agent(node).await;
                Ok(node)
            }
            Err(refusal) => {
                // As it was, where that goes.
                match self.return_as(None).await {
                    Ok(back) => *member = Some(back),
                    Err(_) => drop(self.status.send_replace(Status::Failed(refusal.message.clone().into()))),
                }
                Err(refusal)
            }
        }
    }

    /// The membership that the files tell of, with the keys that this node had until now.
    async fn return_as(&self, start: Option<Start>) -> Result<Member, Refusal> {
        let (identity, vault) = match self.local() {
            Some(before) => before.vault.reopen().map_err(|e| failed(&e))?,
            None => match Vault::find(&self.paths.certificates()).map_err(|e| failed(&e))? {
                Found::Node(identity, vault) => (identity, vault),
                Found::Locked(_) => return Err(locked()),
                Found::Nothing => return Err(failed(&"there is no state of a manager here")),
            },
        };
        self.come_back(identity, vault, start).await.map_err(|e| failed(&e))
    }

    /// Addresses that the user gives anew.
    fn readdress(&self, request: &InitRequest) -> Result<(), Refusal> {
        let Some(saved) = self.paths.load().map_err(|e| failed(&e))? else { return Ok(()) };
        let or = |given: &str, before: &str| if given.is_empty() { before.to_owned() } else { given.to_owned() };
        let asked = Asked {
            listen: or(&request.listen_addr, &saved.asked.listen),
            advertise: or(&request.advertise_addr, &saved.asked.advertise),
            data_path: or(&request.data_path_addr, &saved.asked.data_path),
        };
        let addresses = addresses(&asked, saved.toward)?;
        self.paths.save(&Saved { asked, addresses, own: Vec::new(), ..saved }).map_err(|e| failed(&e))
    }

    /// Waits a moment until the node is ready. Not an error where it is not: the client sees its state.
    pub(crate) async fn await_agent(&self, node: NodeId) {
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
        blacklist: Default::default(),
        unlock_keys: checked.spec.encryption_config.auto_lock_managers.then(|| ca::UnlockKey::random().to_string()),
        root_rotation: None,
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
        wanted_issuer: None,
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
    let addresses = addresses(&asked, None)?;
    let pool = match request.default_addr_pool {
        pool if pool.is_empty() => vec![DEFAULT_POOL.to_owned()],
        pool => pool,
    };
    let saved = Saved { asked, toward: None, remotes: Vec::new(), own: Vec::new(), addresses };
    Ok(Checked { saved, availability, spec: over_defaults(spec), pool, subnet_size, data_path_port })
}

/// The addresses that `asked` means on this machine.
pub(crate) fn addresses(asked: &Asked, toward: Option<SocketAddr>) -> Result<Addresses, Refusal> {
    let interfaces = interfaces().map_err(|e| failed(&e))?;
    let resolved = resolve(asked, &interfaces, toward);
    resolved.map_err(|e| Refusal::engine(RefusalKind::InvalidArgument, e.to_string()))
}

pub(crate) fn availability(text: &str) -> Result<Availability, Refusal> {
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
pub(crate) fn failed(error: &dyn std::fmt::Display) -> Refusal {
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
    fn an_external_authority_is_refused_by_name() {
        let mut external = InitRequest::default();
        external.spec.ca_config.external_cas = vec!["https://ca".into()];
        assert_eq!(text(check(external)), "an external certificate authority is not supported by Shoal yet");
    }

    #[test]
    fn the_body_reads_as_docker_writes_it() {
        let body = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathPort":0,"Availability":"active",
                       "Spec":{"Labels":null,"Orchestration":{},"CAConfig":{}}}"#;
        let request: InitRequest = shoal_types::json::from_slice(body.as_bytes()).unwrap();
        assert_eq!(request.listen_addr, "0.0.0.0:2377");
    }
}
