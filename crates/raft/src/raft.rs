//! One manager's part in consensus: opens log and snapshots, runs the algorithm, keeps the log short.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, Shared};
use openraft::error::{Fatal, InitializeError, RaftError};
use openraft::{Config as RaftConfig, RaftNetworkFactory, ServerState, SnapshotPolicy};
use shoal_store::{Snapshot, Tx};
use shoal_types::spec::RaftConfig as RaftSettings;
use shoal_types::{Timestamp, View};
use tokio::sync::watch;

use crate::feed::{Feed, Publisher};
use crate::frame::DataKey;
use crate::log::{LogStore, OpenError as LogError};
use crate::machine::{Keeper, Machine};
use crate::snapshot::{SnapshotDir, SnapshotError};
use crate::types::{Member, Proposal, Types};
use crate::writer::{Worker, WriteError, Writer, propose};

/// Milliseconds between a leader's heartbeats.
const HEARTBEAT: u64 = 500;
/// Milliseconds without a leader before an election, at least.
const ELECTION: u64 = 2_000;
/// A log larger than this is cut even if it has few entries. Bytes.
const LARGE_LOG: u64 = 64 * 1024 * 1024;
/// How long to wait after a snapshot that could not be written.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);

/// Where and how a manager keeps its part.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory; made where it is missing.
    pub dir: PathBuf,
    /// What log and snapshots are encrypted with.
    pub key: DataKey,
    /// How long the log may grow, where the cluster's settings do not say.
    pub limits: RaftSettings,
}

/// Why consensus cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system's answer.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The file with this manager's number in the log does not hold one.
    #[error("{path} does not hold the number of a member")]
    Number {
        /// The file.
        path: PathBuf,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshot cannot be read.
    #[error("cannot read the snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The algorithm does not accept what it finds.
    #[error("cannot start consensus: {0}")]
    Start(String),
}

/// Why a cluster cannot be begun here.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is one already.
    #[error("this manager already has a log")]
    Exists,
    /// Consensus stopped.
    #[error("consensus stopped on this manager: {0}")]
    Stopped(String),
}

/// A running manager's part in consensus. Cheap to clone; [`Raft::stop`] ends all clones.
#[derive(Clone)]
pub struct Raft {
    raft: openraft::Raft<Types>,
    publisher: Arc<Publisher>,
    writer: Writer,
    leads: watch::Receiver<Option<u64>>,
    stopped: Shared<futures::future::BoxFuture<'static, Arc<str>>>,
    number: u64,
}

impl Raft {
    /// Goes on from what is in the directory, or waits there for [`Self::begin`] or for a leader's call.
    ///
    /// # Errors
    /// [`OpenError`]; nothing that was acknowledged is touched.
    pub async fn open<N: RaftNetworkFactory<Types>>(config: &Config, network: N) -> Result<Self, OpenError> {
        let (log_dir, snapshot_dir) = (config.dir.join("log"), config.dir.join("snapshots"));
        for dir in [&log_dir, &snapshot_dir] {
            std::fs::create_dir_all(dir).map_err(|source| OpenError::Io { path: dir.clone(), source })?;
        }
        let number = member_number(&config.dir.join("member"))?;
        let log = LogStore::open(&log_dir, config.key.clone())?;
        let machine = Machine::open(SnapshotDir::open(&snapshot_dir, config.key.clone())?)?;
        let (publisher, keeper) = (machine.publisher(), machine.keeper());
        let settings = settings(config).validate().map_err(|e| OpenError::Start(e.to_string()))?;
        let raft = openraft::Raft::new(number, Arc::new(settings), network, log.clone(), machine).await;
        let raft = raft.map_err(|e| OpenError::Start(e.to_string()))?;

        let (writer, jobs) = Writer::new();
        let (lead, leads) = watch::channel(None);
        let worker = Worker {
            raft: raft.clone(),
            log: log.clone(),
            publisher: publisher.clone(),
            leads: leads.clone(),
            last: Timestamp::MIN,
        };
        tokio::spawn(worker.run(jobs));
        tokio::spawn(keep_short(raft.clone(), log, keeper, publisher.clone(), config.limits.clone()));
        let watched = tokio::spawn(watch_leadership(raft.clone(), lead));
        let stopped = async move { watched.await.unwrap_or_else(|e| e.to_string().into()) };
        let this = Self { raft, publisher, writer, leads, stopped: stopped.boxed().shared(), number };
        this.stand_if_alone().await?;
        Ok(this)
    }

    /// Begins a new cluster whose only voter is this manager.
    ///
    /// # Errors
    /// [`BeginError::Exists`] where there is a log.
    pub async fn begin(&self, me: Member) -> Result<(), BeginError> {
        let members = std::collections::BTreeMap::from([(self.number, me)]);
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(BeginError::Exists),
            Err(other) => Err(BeginError::Stopped(other.to_string())),
        }
    }

    /// The state as it is applied here. A client that has been answered finds its write in it.
    pub fn snapshot(&self) -> Snapshot {
        self.publisher.snapshot()
    }

    /// The state as it is applied here, and everything that follows on it.
    pub fn subscribe(&self) -> (Snapshot, Feed) {
        self.publisher.subscribe()
    }

    /// Runs `closure` on the state as it will be after all writes before it, writes what it changed, and returns once
    /// that is applied here. A closure that changes nothing returns at once.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write<F, T, E>(&self, closure: F) -> Result<T, WriteError<E>>
    where
        F: FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.writer.write(closure).await
    }

    /// The term in which this manager leads, once everything of former terms is applied here; else none.
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.leads.clone()
    }

    /// The leader, where one is known, and all voters, by their numbers in the log.
    pub fn members(&self) -> (Option<u64>, Vec<(u64, Member)>) {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
        let members = membership.nodes().filter(|(id, _)| voters.contains(id)).map(|(id, m)| (*id, m.clone()));
        (metrics.current_leader, members.collect())
    }

    /// This manager's number in the log.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until consensus has ended here; gives the reason. After a failed disk, opening it again is the way on.
    pub async fn stopped(&self) -> Arc<str> {
        self.stopped.clone().await
    }

    /// Ends it. What was acknowledged is on disk. The log can be opened again once this returns.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "consensus ended badly");
        }
        self.stopped().await;
    }

    /// Whether this manager has ever been part of a cluster.
    ///
    /// # Errors
    /// The reason why consensus stopped.
    pub async fn has_begun(&self) -> Result<bool, BeginError> {
        self.raft.is_initialized().await.map_err(|e| BeginError::Stopped(e.to_string()))
    }

    /// The only voter need not wait for anybody.
    async fn stand_if_alone(&self) -> Result<(), OpenError> {
        // Also waits until the algorithm has looked at the log: before, it does not know its members.
        if !self.has_begun().await.map_err(|e| OpenError::Start(e.to_string()))? {
            return Ok(());
        }
        let alone = self.members().1.iter().map(|(id, _)| *id).eq([self.number]);
        let leads = self.raft.metrics().borrow().state == ServerState::Leader;
        if alone && !leads {
            self.raft.trigger().elect().await.map_err(|e| OpenError::Start(e.to_string()))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("number", &self.number)
            .field("leads", &*self.leads.borrow())
            .finish_non_exhaustive()
    }
}

fn settings(config: &Config) -> RaftConfig {
    RaftConfig {
        cluster_name: "shoal".to_owned(),
        heartbeat_interval: HEARTBEAT,
        election_timeout_min: ELECTION,
        election_timeout_max: 2 * ELECTION,
        // `keep_short` decides on both: a full disk must not end consensus, and the cluster's settings may change.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: config.limits.snapshot_interval + config.limits.log_entries_for_slow_followers,
        ..RaftConfig::default()
    }
}

/// Says whether this manager leads and knows everything that was agreed on before. Ends with consensus; gives the reason.
async fn watch_leadership(raft: openraft::Raft<Types>, lead: watch::Sender<Option<u64>>) -> Arc<str> {
    let mut metrics = raft.metrics();
    let reason = loop {
        let (state, term, running) = {
            let now = metrics.borrow_and_update();
            (now.state, now.current_term, now.running_state.clone())
        };
        if let Err(fatal) = running {
            break fatal.to_string().into();
        }
        if state != ServerState::Leader {
            lead.send_if_modified(|l| l.take().is_some());
        } else if *lead.borrow() != Some(term) {
            // Once an entry of ours is applied, so is everything before it.
            let barrier = Proposal { time: Timestamp::now(), changes: Arc::new([]) };
            match propose(&raft, barrier).await {
                Ok(_) => drop(lead.send_replace(Some(term))),
                Err(error) => tracing::debug!(%error, term, "lost leadership before it began"),
            }
        }
        if metrics.changed().await.is_err() {
            break "it was stopped".into();
        }
    };
    lead.send_replace(None);
    reason
}

/// Writes a snapshot whenever the log has grown enough, then lets go of the entries that it holds.
async fn keep_short(
    raft: openraft::Raft<Types>,
    log: LogStore,
    keeper: Keeper,
    publisher: Arc<Publisher>,
    fallback: RaftSettings,
) {
    let mut metrics = raft.data_metrics();
    let mut saved_size = log.size();
    while metrics.changed().await.is_ok() {
        let (applied, saved) = {
            let now = metrics.borrow_and_update();
            (now.last_applied.map_or(0, |id| id.index), now.snapshot.map_or(0, |id| id.index))
        };
        let limits = publisher.snapshot().cluster().map_or_else(|| fallback.clone(), |c| c.spec.raft.clone());
        let interval = if limits.snapshot_interval > 0 { limits.snapshot_interval } else { fallback.snapshot_interval };
        let large = log.size().saturating_sub(saved_size) > LARGE_LOG;
        if applied.saturating_sub(saved) < interval && !(large && applied > saved) {
            continue;
        }
        if let Err(error) = keeper.save(limits.keep_old_snapshots.unwrap_or(0)).await {
            tracing::warn!(%error, "cannot write a snapshot of the cluster's state; trying again later");
            tokio::time::sleep(SNAPSHOT_RETRY).await;
            continue;
        }
        saved_size = log.size();
        if let Err(ended) = let_go(&raft, saved, limits.log_entries_for_slow_followers).await {
            tracing::debug!(%ended, "the log is not cut any more");
            return;
        }
    }
}

/// Tells the algorithm of a snapshot beyond `before`, then cuts the log behind it but for `keep` entries.
async fn let_go(raft: &openraft::Raft<Types>, before: u64, keep: u64) -> Result<(), Fatal<u64>> {
    raft.trigger().snapshot().await?;
    let beyond = |m: &openraft::RaftMetrics<u64, Member>| m.snapshot.is_some_and(|s| s.index > before);
    let seen = raft.wait(None).metrics(beyond, "a new snapshot").await.map_err(|_| Fatal::Stopped)?;
    let upto = seen.snapshot.map_or(0, |s| s.index).saturating_sub(keep);
    if upto > 0 { raft.trigger().purge_log(upto).await } else { Ok(()) }
}

/// This manager's number in the log: random, not zero, chosen once.
fn member_number(path: &Path) -> Result<u64, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| OpenError::Number { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let number = rand::random_range(1..=u64::MAX >> 1);
            let temp = path.with_extension("tmp");
            let write = || {
                let file = std::fs::File::create(&temp)?;
                io::Write::write_all(&mut &file, format!("{number}\n").as_bytes())?;
                file.sync_all()?;
                std::fs::rename(&temp, path)?;
                path.parent().map_or(Ok(()), crate::log::sync_dir)
            };
            write().map_err(io)?;
            Ok(number)
        }
        Err(e) => Err(io(e)),
    }
}
