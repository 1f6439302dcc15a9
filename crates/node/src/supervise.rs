//! The manager on this node while the node is one: that it starts, that it comes back when it fails (consensus that lost its
//! disk, a port that was taken), and that it ends when the node becomes a worker.
//!
//! The agent is not part of it. It and its tasks go on, and it looks for a manager until it finds one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_manager::{Control, GrpcTransport, Manager};
use shoal_raft::{Config, DataKey, Member, Raft};
use shoal_types::spec::{ClusterSpec, NodeRole};
use shoal_types::{Cluster, Node};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::identity::IdentityError;
use crate::lock;
use crate::membership::{Membership, Own};
use crate::paths::FileError;
use crate::server::{Serving, bind};
use crate::uplink::reachable;

/// The pause before a manager that failed starts again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long a manager that begins a cluster may take until it leads.
const LEAD: Duration = Duration::from_secs(10);
/// How long a node whose manager was removed may take to hear what it is now.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a manager that comes back waits for a leader before it answers clients with what it has.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What a manager is told that comes back after another one has gone on by force.
const SUPERSEDED: &str = "the swarm goes on without this manager: another one was made a new cluster by force \
                          (docker swarm init --force-new-cluster)";

/// Where this machine is in its life in a swarm.
#[derive(Debug, Clone)]
pub enum Status {
    /// In none.
    Inactive,
    /// It starts, or starts again.
    Pending,
    /// A manager that works.
    Active(Control),
    /// A worker.
    Worker,
    /// It failed for this reason, and will be started again.
    Failed(Arc<str>),
    /// A manager whose keys are sealed: it needs the unlock key.
    Locked,
}

/// How a manager starts.
pub enum Start {
    /// With what is on disk; where there is nothing, it joins the managers that are known.
    Resume,
    /// As the first of a new cluster.
    Begin(Box<(Cluster, Node)>),
    /// Alone with what is on disk, in place of a cluster that lost its quorum.
    Alone,
}

/// Why a manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its port.
    #[error("failed to listen on remote API address: listen tcp {addr}: bind: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Its files.
    #[error(transparent)]
    Files(#[from] FileError),
    /// Its certificate or keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is a log, and no key for it.
    #[error("the key of the log is missing (swarm-node.key)")]
    NoLogKey,
    /// Its log.
    #[error(transparent)]
    Open(#[from] shoal_raft::OpenError),
    /// A new cluster cannot begin.
    #[error(transparent)]
    Begin(#[from] shoal_raft::BeginError),
    /// What it writes first cannot be written.
    #[error(transparent)]
    Write(#[from] shoal_raft::WriteError<shoal_store::Conflict>),
    /// It does not get to lead.
    #[error("the manager did not get to lead in time")]
    NoLeader,
    /// The other managers do not take it in.
    #[error("the managers of the swarm do not take this one in: {0}")]
    Admission(#[from] admission::AdmissionError),
}

/// A manager that works.
pub struct Running {
    manager: Manager,
    serving: Serving,
    /// What goes on beside it.
    aside: JoinSet<()>,
    /// Said by the managers when it was taken in.
    pub managers: Option<u32>,
}

impl Running {
    /// Starts the manager of this node.
    ///
    /// # Errors
    /// [`StartError`]; nothing of it runs then.
    pub async fn start(
        membership: &Arc<Membership>,
        start: Start,
        quit: &CancellationToken,
    ) -> Result<Self, StartError> {
        let addr = membership.addresses.borrow().listen;
        let listener = bind(addr).await.map_err(|source| StartError::Listen { addr, source })?;
        if !membership.vault.has_log_key() && membership.paths.raft().exists() {
            return Err(StartError::NoLogKey);
        }
        let (key, older) = membership.vault.log_keys()?;
        let config = Config {
            dir: membership.paths.raft(),
            key: DataKey::after(&key, &older),
            limits: ClusterSpec::initial().raft,
            force_new: matches!(start, Start::Alone),
        };
        let dialer = membership.dialer.clone();
        let raft = Raft::open(&config, Arc::new(GrpcTransport::new(dialer.clone()))).await?;
        let cluster = membership.identity.borrow().cluster;
        let manager = Manager::start(raft.clone(), cluster, dialer);
        // The others must reach it before it can be one of them.
        let serving = Serving::start(listener, membership.identity.subscribe(), manager.routes());
        let mut this = Self { manager, serving, aside: JoinSet::new(), managers: None };
        match this.take_place(membership, &raft, start, quit).await {
            Ok(managers) => {
                this.managers = managers;
                let own = Own { addr: reachable(addr), authority: this.manager.authority() };
                membership.own.send_replace(Some(own));
                this.aside.spawn(lock::follow(membership.clone(), this.control(), raft.clone(), key));
                Ok(this)
            }
            Err(error) => {
                this.stop(membership).await;
                Err(error)
            }
        }
    }

    async fn take_place(
        &mut self,
        membership: &Arc<Membership>,
        raft: &Raft,
        start: Start,
        quit: &CancellationToken,
    ) -> Result<Option<u32>, StartError> {
        if let Start::Begin(first) = start {
            let addr = membership.addresses.borrow().advertise.to_string();
            let (cluster, node) = *first;
            raft.begin(Member { node_id: Some(node.id), addr, ..Member::default() }).await?;
            let begun = tokio::time::timeout(LEAD, shoal_manager::begin(raft, cluster, node)).await;
            begun.map_err(|_| StartError::NoLeader)??;
            return Ok(None);
        }
        if !raft.has_begun().await? {
            return Ok(Some(admission::join(membership, raft, quit).await?));
        }
        if matches!(start, Start::Alone) {
            let alone = tokio::time::timeout(LEAD, shoal_manager::go_on_alone(raft)).await;
            alone.map_err(|_| StartError::NoLeader)??;
        }
        // Its address may have changed. The others may not be there yet: that must not keep it from starting.
        self.aside.spawn(admission::announce(membership.clone(), raft.clone()));
        let mut leader = raft.leader();
        drop(tokio::time::timeout(CATCH_UP, leader.wait_for(Option::is_some)).await);
        Ok(None)
    }

    /// What clients ask for.
    pub fn control(&self) -> Control {
        self.manager.control()
    }

    /// Ends it. What was acknowledged is on disk, the port is free.
    pub async fn stop(mut self, membership: &Membership) {
        membership.own.send_replace(None);
        self.aside.shutdown().await;
        let raft = self.manager.raft().clone();
        drop(self.manager);
        self.serving.stop().await;
        raft.stop().await;
    }
}

/// Keeps this node what its certificate says, manager or worker, until `stop`; begins with a manager that runs, if there is
/// one. Where it is told how the first manager starts, later ones resume.
pub async fn run(
    membership: Arc<Membership>,
    mut running: Option<Running>,
    status: watch::Sender<Status>,
    stop: CancellationToken,
) {
    loop {
        match membership.role() {
            NodeRole::Manager => {
                manage(&membership, running.take(), &status, &stop).await;
                if !stop.is_cancelled() {
                    // It was dismissed; should it be a manager again by now, it is another one.
                    forget(&membership);
                }
            }
            NodeRole::Worker => {
                forget(&membership);
                status.send_replace(Status::Worker);
                until_not(&membership, NodeRole::Worker, &stop).await;
                if !stop.is_cancelled() {
                    status.send_replace(Status::Pending);
                }
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Waits until the certificate says another role, or until the end.
async fn until_not(membership: &Membership, role: NodeRole, stop: &CancellationToken) {
    let mut identity = membership.identity.subscribe();
    tokio::select! {
        // An error is the end, too.
        changed = identity.wait_for(|i| i.role != role) => drop(changed),
        () = stop.cancelled() => {}
    }
}

/// Nothing of the cluster's state stays on a worker.
fn forget(membership: &Membership) {
    if !membership.vault.has_log_key() && !membership.paths.raft().exists() {
        return;
    }
    let forgotten = membership.paths.forget_raft().map_err(|e| e.to_string());
    let forgotten = forgotten.and_then(|()| membership.vault.forget_log().map_err(|e| e.to_string()));
    if let Err(error) = forgotten {
        tracing::warn!(error, "cannot remove what this node had as a manager");
    }
}

/// The others may decide without this manager that it is none any more: the node then asks what it is. Ends when it has
/// had the time to hear of it: if it still is to be one, or again, what this manager has is of no use.
async fn removed(membership: &Membership, raft: &Raft) {
    if raft.removed().wait_for(|removed| *removed).await.is_ok() {
        tracing::warn!("this manager was removed from the managers of the swarm");
        membership.doubt.notify_one();
    }
    tokio::time::sleep(SETTLE).await;
}

/// Keeps the manager running while the node is one.
async fn manage(
    membership: &Arc<Membership>,
    mut running: Option<Running>,
    status: &watch::Sender<Status>,
    stop: &CancellationToken,
) {
    let quit = stop.child_token();
    let mut over = JoinSet::new();
    let (watched, token) = (membership.clone(), quit.clone());
    over.spawn(async move {
        until_not(&watched, NodeRole::Manager, &token).await;
        token.cancel();
    });
    let mut backoff = BACKOFF.0;
    let mut addresses = membership.addresses.subscribe();
    loop {
        let started = match running.take() {
            Some(running) => Ok(running),
            None if quit.is_cancelled() => return,
            None => Running::start(membership, Start::Resume, &quit).await.map_err(|e| e.to_string()),
        };
        let reason = match started {
            Ok(manager) => {
                status.send_replace(Status::Active(manager.control()));
                let raft = manager.manager.raft().clone();
                let (ended, is_removed) = tokio::select! {
                    reason = raft.stopped() => (Some(reason), false),
                    () = quit.cancelled() => (None, false),
                    _ = addresses.changed() => {
                        // It listens and is known elsewhere from now on.
                        manager.stop(membership).await;
                        status.send_replace(Status::Pending);
                        continue;
                    }
                    () = removed(membership, &raft) => (Some("it was removed, and joins anew".into()), true),
                };
                manager.stop(membership).await;
                let Some(reason) = ended else { return };
                if is_removed {
                    forget(membership);
                }
                backoff = BACKOFF.0;
                match raft.is_superseded() {
                    true => {
                        // What this node is now, the others say.
                        membership.doubt.notify_one();
                        SUPERSEDED.to_owned()
                    }
                    false => reason.to_string(),
                }
            }
            Err(reason) => reason,
        };
        if quit.is_cancelled() {
            return;
        }
        tracing::error!(reason, "the manager on this node failed; starting it again");
        status.send_replace(Status::Failed(reason.into()));
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = quit.cancelled() => {}
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}
