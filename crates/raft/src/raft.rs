//! One manager's part in consensus: opens log and snapshots, runs the algorithm, answers what others ask of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, Shared};
use openraft::error::{InitializeError, RaftError};
use openraft::{Config as RaftConfig, ServerState, SnapshotPolicy};
use rand::Rng;
use shoal_store::{Snapshot, Tx};
use shoal_types::Timestamp;
use shoal_types::spec::RaftConfig as RaftSettings;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::doubt::Doubt;
use crate::election::{LEASE, is_voter};
use crate::feed::{Feed, Publisher};
use crate::force::{ForceError, ensure_alone};
use crate::frame::DataKey;
use crate::log::{LogStore, OpenError as LogError};
use crate::machine::{Keeper, Machine};
use crate::media::{Files, Media, read_whole, write_whole};
use crate::members::Participant;
use crate::network::{Mesh, Transport};
use crate::peer::Peers;
use crate::reign::{self, Reign};
use crate::snapshot::{SnapshotDir, SnapshotError};
use crate::transfer::Inbox;
use crate::trim::{Shed, ShedError, Trim};
use crate::types::{Core, Member};
use crate::writer::{Worker, WriteError, Writer};

/// Milliseconds between a leader's heartbeats, at least; half as much again at most, for the algorithm looks at its clock
/// only so often.
const HEARTBEAT: u64 = 100;
/// For this long after a majority has answered, a leader knows that there is no other. Shorter than [`LEASE`], by more
/// than two clocks drift apart meanwhile.
pub const READ_LEASE: Duration = Duration::from_millis(400);
/// How late a message may come that was sent before its sender stopped sending.
pub const SLACK: Duration = Duration::from_millis(100);
/// How long a leader asks whether it still is one.
const CONFIRM: Duration = Duration::from_secs(1);
/// Entries in one message, at most; they may be fewer because of their size.
const ENTRIES: u64 = 1_000;

/// Where and how a manager keeps its part.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory; made where it is missing.
    pub dir: PathBuf,
    /// What log and snapshots are encrypted with.
    pub key: DataKey,
    /// How long the log may grow, where the cluster's settings do not say.
    pub limits: RaftSettings,
    /// Before it opens, this manager becomes the only member of its cluster, and keeps everything that it has.
    pub force_new: bool,
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
    /// It cannot go on alone.
    #[error("cannot make a new cluster of this manager: {0}")]
    Force(#[from] ForceError),
    /// The only manager has lost what it had said was safe: nobody can send it again.
    #[error(
        "the end of the log in {dir} is damaged, and entries that were safe are lost; \
         only --force-new-cluster goes on with what is left"
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
    },
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
    pub(crate) core: Core,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) keeper: Keeper,
    pub(crate) reign: Reign,
    pub(crate) inbox: Inbox,
    /// Held by whoever changes the list of members, or hands over.
    pub(crate) changes: Arc<Mutex<()>>,
    doubt: Arc<Doubt>,
    removed: Arc<watch::Sender<bool>>,
    publisher: Arc<Publisher>,
    writer: Writer,
    key: DataKey,
    shed: mpsc::Sender<Shed>,
    stopped: Shared<futures::future::BoxFuture<'static, Arc<str>>>,
}

impl Raft {
    /// Goes on from what is in the directory, or waits there for [`Self::begin`] or for a leader's call.
    ///
    /// # Errors
    /// [`OpenError`]; nothing that was acknowledged is touched.
    pub async fn open(config: &Config, transport: Arc<dyn Transport>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Files), config, transport).await
    }

    /// Like [`Self::open`], with the directory on `media`.
    ///
    /// # Errors
    /// [`OpenError`]; nothing that was acknowledged is touched.
    pub async fn open_on(
        media: Arc<dyn Media>,
        config: &Config,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, OpenError> {
        let (log_dir, snapshot_dir) = (config.dir.join("log"), config.dir.join("snapshots"));
        for dir in [&log_dir, &snapshot_dir] {
            media.create_dir(dir).map_err(|source| OpenError::Io { path: dir.clone(), source })?;
        }
        let number = member_number(&*media, &config.dir.join("member"))?;
        let doubt = Arc::new(Doubt::open(media.clone(), config.dir.join("doubt")));
        let mut log = LogStore::open(media.clone(), &log_dir, config.key.clone(), &mut || doubt.raise())?;
        let mut machine = Machine::open(SnapshotDir::open(media, &snapshot_dir, config.key.clone())?)?;
        if config.force_new {
            ensure_alone(number, &mut log, &mut machine).await?;
            doubt.forgive().map_err(|source| OpenError::Io { path: config.dir.join("doubt"), source })?;
        }
        if doubt.is_on() {
            log.disown_vote();
        }
        let (publisher, keeper) = (machine.publisher(), machine.keeper());
        let settings = settings(config).validate().map_err(|e| OpenError::Start(e.to_string()))?;
        let mesh = Arc::new(Mesh::new(number, transport, log.clone()));
        let core = Core::new(number, Arc::new(settings), Peers(mesh.clone()), log.clone(), machine).await;
        let core = core.map_err(|e| OpenError::Start(e.to_string()))?;
        mesh.follow(core.metrics());
        let (shed, sheds) = mpsc::channel(1);
        let trim = Trim {
            key: config.key.clone(),
            sheds,
            core: core.clone(),
            log: log.clone(),
            keeper: keeper.clone(),
            publisher: publisher.clone(),
            fallback: config.limits.clone(),
        };
        tokio::spawn(trim.run());
        let this = Self::start(core, mesh, keeper, publisher, log, doubt, (config.key.clone(), shed));
        if let Err(error) = this.stand_if_alone(&config.dir).await {
            this.stop().await;
            return Err(error);
        }
        tokio::spawn(this.clone().run_elections());
        tokio::spawn(this.clone().run_changes());
        tokio::spawn(this.clone().end_when_superseded());
        Ok(this)
    }

    fn start(
        core: Core,
        mesh: Arc<Mesh>,
        keeper: Keeper,
        publisher: Arc<Publisher>,
        log: LogStore,
        doubt: Arc<Doubt>,
        secret: (DataKey, mpsc::Sender<Shed>),
    ) -> Self {
        let (reign, watcher) = reign::watch(core.clone(), mesh.clone());
        let (writer, jobs) = Writer::new();
        let worker = Worker {
            core: core.clone(),
            log,
            publisher: publisher.clone(),
            reign: reign.clone(),
            last: Timestamp::MIN,
        };
        tokio::spawn(worker.run(jobs));
        let watched = tokio::spawn(watcher.run());
        let stopped = async move { watched.await.unwrap_or_else(|e| e.to_string().into()) };
        let inbox = Inbox::new(core.clone(), keeper.clone());
        let (changes, removed) = (Arc::default(), Arc::new(watch::Sender::new(false)));
        let stopped = stopped.boxed().shared();
        let (key, shed) = secret;
        Self { core, mesh, keeper, reign, inbox, changes, doubt, removed, publisher, writer, key, shed, stopped }
    }

    /// Begins a new cluster whose only voter is this manager.
    ///
    /// # Errors
    /// [`BeginError::Exists`] where there is a log.
    pub async fn begin(&self, me: Member) -> Result<(), BeginError> {
        let members = std::collections::BTreeMap::from([(self.number(), me)]);
        match self.core.initialize(members).await {
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

    /// The term in which this manager leads, with a majority behind it and everything of former terms applied here; else
    /// none.
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.reign.leads.clone()
    }

    /// The leader, where one is heard. This manager itself, once it takes writes.
    pub fn leader(&self) -> watch::Receiver<Option<(u64, Member)>> {
        self.reign.leader.clone()
    }

    /// The leader, where one is heard, and all voters, by their numbers in the log.
    pub fn members(&self) -> (Option<u64>, Vec<(u64, Member)>) {
        let leader = self.reign.leader.borrow().as_ref().map(|(number, _)| *number);
        let voters = self.participants().into_iter().filter(|p| p.is_voter);
        (leader, voters.map(|p| (p.number, p.member)).collect())
    }

    /// All members, also those that have no vote yet.
    pub fn participants(&self) -> Vec<Participant> {
        let config = self.core.metrics().borrow().membership_config.clone();
        let members = config.membership();
        let listed = members.nodes().map(|(number, member)| (*number, member.clone()));
        listed.map(|(number, member)| Participant { number, member, is_voter: is_voter(members, number) }).collect()
    }

    /// Whether a manager can be reached, as the leader sees it: the leader tells all others. Without a leader, whether
    /// anything came from it of late.
    pub fn reachable(&self, number: u64) -> bool {
        let contacts = &self.mesh.contacts;
        let leader = self.reign.leader.borrow().as_ref().map(|(number, _)| *number);
        match leader {
            _ if number == self.number() => true,
            Some(leader) if leader == number => true,
            Some(leader) if leader != self.number() => !contacts.is_down(number),
            _ => contacts.is_near(number),
        }
    }

    /// The place in the log up to which a read must have been applied to see everything that was answered before this
    /// call. None where this manager does not lead, or cannot confirm that it does.
    pub async fn read_index(&self) -> Option<u64> {
        (*self.reign.leads.borrow())?;
        let index = *self.keeper.applied().borrow();
        tokio::time::timeout(CONFIRM, self.confirm()).await.ok().flatten()?;
        Some(index)
    }

    /// Waits until it is sure that this manager led when this was called. Everything that any leader had answered by then
    /// is applied here: what this one answers is applied first, and what others had answered was before it began.
    async fn confirm(&self) -> Option<()> {
        let asked = Instant::now();
        let mut acks = self.mesh.contacts.acks();
        loop {
            (*self.reign.leads.borrow())?;
            let followed = {
                let metrics = self.core.metrics();
                let now = metrics.borrow();
                self.mesh.followed(now.membership_config.membership(), now.vote)
            };
            // The lease, or else an answer to something that was sent since.
            if followed.is_some_and(|at| at.elapsed() < READ_LEASE || at >= asked) {
                return Some(());
            }
            self.core.trigger().heartbeat().await.ok()?;
            drop(tokio::time::timeout(SLACK, acks.changed()).await);
        }
    }

    /// Waits until the log is applied here up to `index`; whether it is. It is not where consensus ends here before.
    pub async fn applied(&self, index: u64) -> bool {
        let mut applied = self.keeper.applied();
        tokio::select! {
            biased;
            reached = applied.wait_for(|now| *now >= index) => reached.is_ok(),
            _ = self.stopped() => false,
        }
    }

    /// Whether this manager was removed from its cluster: it has to forget the cluster's state.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// Whether this member has a vote, as far as it knows.
    pub fn has_vote(&self) -> bool {
        self.members().1.iter().any(|(number, _)| *number == self.number())
    }

    /// The leader says that this manager was removed.
    pub fn set_removed(&self) {
        if !self.removed.send_replace(true) {
            tracing::info!("this manager was removed from the cluster");
        }
    }

    /// Whether this member's word does not count for now.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt.is_on()
    }

    /// The leader by `vote`, which has entries up to `last`, has given this member everything up to `index`.
    pub(crate) fn caught_up(&self, vote: crate::types::Vote, index: Option<u64>, last: u64) {
        self.doubt.lift(vote, index, last);
    }

    /// From now on log and snapshots are encrypted with `key`. Returns once nothing on disk needs another one: what is in the
    /// log has to be agreed on for that.
    ///
    /// # Errors
    /// [`ShedError`]: what is written now is encrypted with `key`, but the keys of before are still needed.
    pub async fn change_key(&self, key: &[u8; 32]) -> Result<(), ShedError> {
        self.key.renew(key);
        self.shed_older_keys().await
    }

    /// The end of a change of keys, where a restart came between.
    ///
    /// # Errors
    /// [`ShedError`].
    pub async fn shed_older_keys(&self) -> Result<(), ShedError> {
        let (done, shed) = oneshot::channel();
        self.shed.send(done).await.map_err(|_| ShedError::Stopped)?;
        shed.await.map_err(|_| ShedError::Stopped)?
    }

    /// Whether the cluster goes on without this manager: another one was made a new cluster by force.
    pub fn is_superseded(&self) -> bool {
        *self.mesh.superseded().borrow()
    }

    async fn end_when_superseded(self) {
        let mut superseded = self.mesh.superseded();
        tokio::select! {
            _ = superseded.wait_for(|superseded| *superseded) => {}
            _ = self.stopped() => return,
        }
        tracing::warn!("another manager was made a new cluster by force: the cluster goes on without this one");
        self.set_removed();
        self.halt().await;
    }

    /// This manager's number in the log.
    pub fn number(&self) -> u64 {
        self.mesh.number
    }

    /// Waits until consensus has ended here; gives the reason. After a failed disk, opening it again is the way on.
    pub async fn stopped(&self) -> Arc<str> {
        self.stopped.clone().await
    }

    /// Ends it. A leader hands over first, where it can. What was acknowledged is on disk. The log can be opened again once
    /// this returns.
    pub async fn stop(&self) {
        let others = self.participants().iter().filter(|p| p.is_voter && p.number != self.number()).count();
        if others > 0 && self.reign.leads.borrow().is_some() {
            match self.hand_over().await {
                Ok(()) => tracing::info!("handed the leadership over"),
                Err(error) => tracing::warn!(%error, "stopping as the leader"),
            }
        }
        self.halt().await;
    }

    /// Ends it without a word to the others.
    pub(crate) async fn halt(&self) {
        if let Err(error) = self.core.shutdown().await {
            tracing::warn!(%error, "consensus ended badly");
        }
        self.stopped().await;
    }

    /// Whether this manager has ever been part of a cluster.
    ///
    /// # Errors
    /// The reason why consensus stopped.
    pub async fn has_begun(&self) -> Result<bool, BeginError> {
        self.core.is_initialized().await.map_err(|e| BeginError::Stopped(e.to_string()))
    }

    /// The only voter need not wait for anybody.
    async fn stand_if_alone(&self, dir: &Path) -> Result<(), OpenError> {
        // Also waits until the algorithm has looked at the log: before, it does not know its members.
        if !self.has_begun().await.map_err(|e| OpenError::Start(e.to_string()))? {
            return Ok(());
        }
        let alone = self.members().1.iter().map(|(number, _)| *number).eq([self.number()]);
        if alone && self.is_in_doubt() {
            return Err(OpenError::Lost { dir: dir.to_owned() });
        }
        let leads = self.core.metrics().borrow().state == ServerState::Leader;
        if alone && !leads {
            self.core.trigger().elect().await.map_err(|e| OpenError::Start(e.to_string()))?;
        }
        Ok(())
    }

    /// Whenever this manager begins to lead, it finishes what another one left half done.
    async fn run_changes(self) {
        let mut leads = self.reign.leads.clone();
        while leads.wait_for(Option::is_some).await.is_ok() {
            self.finish_change().await;
            if leads.wait_for(Option::is_none).await.is_err() {
                return;
            }
        }
    }
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("number", &self.number())
            .field("leads", &*self.reign.leads.borrow())
            .finish_non_exhaustive()
    }
}

fn settings(config: &Config) -> RaftConfig {
    let lease = u64::try_from(LEASE.as_millis()).expect("it is half a second");
    RaftConfig {
        cluster_name: "shoal".to_owned(),
        heartbeat_interval: HEARTBEAT,
        // Elections are ours (see `election`). The algorithm takes the first for how long a voter may take to answer, the
        // second for how long a voter keeps to a leader that it has heard.
        enable_elect: false,
        election_timeout_min: lease,
        election_timeout_max: lease + 1,
        max_payload_entries: ENTRIES,
        // `trim` decides on both: a full disk must not end consensus, and the cluster's settings may change.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: config.limits.snapshot_interval + config.limits.log_entries_for_slow_followers,
        ..RaftConfig::default()
    }
}

/// This manager's number in the log: random, not zero, chosen once. It fits into JSON numbers as all programs read them.
fn member_number(media: &dyn Media, path: &Path) -> Result<u64, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    match read_whole(media, path) {
        Ok(text) => {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| OpenError::Number { path: path.to_owned() })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let number = shoal_ambient::chance().random_range(1..1 << 53);
            write_whole(media, path, format!("{number}\n").as_bytes()).map_err(io)?;
            Ok(number)
        }
        Err(e) => Err(io(e)),
    }
}
