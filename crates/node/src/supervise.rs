//! The manager on this node, and that it comes back when it fails: consensus that lost its disk, a port that was taken.
//!
//! The agent is not part of it. It and its tasks go on, and it looks for the manager until it finds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_manager::{Control, Manager};
use shoal_raft::{Config, DataKey, Member, NoPeers, Raft};
use shoal_types::spec::ClusterSpec;
use shoal_types::{Cluster, Node};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::identity::{Identity, IdentityError};
use crate::paths::{FileError, Paths};
use crate::renew;
use crate::server::{Serving, bind};

/// The pause before a manager that failed starts again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long a manager may take until it leads.
const LEAD: Duration = Duration::from_secs(10);

/// What a manager needs to start.
pub struct Plan {
    /// Where its files are.
    pub paths: Paths,
    /// Who it is.
    pub identity: watch::Sender<Identity>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
}

/// Where the manager on this node is in its life.
#[derive(Debug, Clone)]
pub enum Status {
    /// There is none: the node is in no swarm.
    Inactive,
    /// It starts, or starts again.
    Pending,
    /// It works.
    Active(Control),
    /// It failed for this reason, and will be started again.
    Failed(Arc<str>),
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
    /// Its certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
}

/// A manager that works.
pub struct Running {
    manager: Manager,
    serving: Serving,
    renewal: JoinHandle<()>,
}

impl Running {
    /// Starts a manager; with `first`, a new cluster.
    ///
    /// # Errors
    /// [`StartError`]; nothing of it runs then.
    pub async fn start(plan: &Plan, first: Option<(Cluster, Node)>) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { addr: plan.listen, source };
        let listener = bind(plan.listen).await.map_err(listen)?;
        let key = DataKey::new(&plan.paths.data_key()?);
        let config = Config { dir: plan.paths.raft(), key, limits: ClusterSpec::initial().raft };
        let raft = Raft::open(&config, NoPeers).await?;
        match tokio::time::timeout(LEAD, Self::lead(plan, &raft, first)).await {
            Ok(Ok(manager)) => {
                let serving = Serving::start(listener, plan.identity.subscribe(), manager.routes());
                let renewal = renew::run(plan.identity.clone(), plan.paths.certificates(), manager.control());
                Ok(Self { manager, serving, renewal: tokio::spawn(renewal) })
            }
            failed => {
                raft.stop().await;
                Err(failed.map_or(StartError::NoLeader, |lead| lead.err().unwrap_or(StartError::NoLeader)))
            }
        }
    }

    async fn lead(plan: &Plan, raft: &Raft, first: Option<(Cluster, Node)>) -> Result<Manager, StartError> {
        let (node, cluster) = {
            let identity = plan.identity.borrow();
            (identity.node, identity.cluster)
        };
        let addr = plan.advertise.to_string();
        if first.is_some() {
            raft.begin(Member { node_id: Some(node), addr: addr.clone() }).await?;
        }
        let manager = Manager::start(raft.clone(), cluster);
        match first {
            Some((cluster, node)) => shoal_manager::begin(raft, cluster, node).await?,
            None => shoal_manager::announce(raft, node, addr).await?,
        }
        Ok(manager)
    }

    /// What clients ask for.
    pub fn control(&self) -> Control {
        self.manager.control()
    }

    /// Ends it. What was acknowledged is on disk, the port is free.
    pub async fn stop(self) {
        self.renewal.abort();
        let raft = self.manager.raft().clone();
        drop(self.manager);
        self.serving.stop().await;
        raft.stop().await;
    }
}

/// Keeps a manager running until `stop`; begins with one that runs, if there is one.
pub async fn run(plan: Arc<Plan>, running: Option<Running>, status: watch::Sender<Status>, stop: CancellationToken) {
    let mut running = running;
    let mut backoff = BACKOFF.0;
    loop {
        let started = match running.take() {
            Some(running) => Ok(running),
            None => Running::start(&plan, None).await.map_err(|e| e.to_string()),
        };
        let reason = match started {
            Ok(manager) => {
                status.send_replace(Status::Active(manager.control()));
                let raft = manager.manager.raft().clone();
                let ended = tokio::select! {
                    reason = raft.stopped() => Some(reason),
                    () = stop.cancelled() => None,
                };
                manager.stop().await;
                let Some(reason) = ended else { return };
                backoff = BACKOFF.0;
                reason.to_string()
            }
            Err(reason) => reason,
        };
        tracing::error!(reason, "the manager on this node failed; starting it again");
        status.send_replace(Status::Failed(reason.into()));
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = stop.cancelled() => return,
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}
