//! The one queue of writes on the leader: group commit without conflicts (docs/decisions/0004-one-writer.md).
//!
//! All closures that wait run in order on one transaction, each sees what those before it did, and one entry of the
//! log carries them all. A closure that refuses, or that wants more than an entry can hold, leaves nothing behind.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use openraft::error::{ClientWriteError, RaftError};
use shoal_store::Tx;
use shoal_store::packed::Packer;
use shoal_types::{Change, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::feed::Publisher;
use crate::log::{LogStore, ReserveError};
use crate::reign::Reign;
use crate::types::{Applied, Core, FULL_PROPOSAL, MAX_PROPOSAL, Member, Proposal, packed_len};

/// Writes that may wait before `write` itself waits.
const QUEUE: usize = 4096;

/// Bytes that an entry is longer than its changes, at most.
const ENVELOPE: usize = 1024;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The closure refused. Nothing was written.
    #[error(transparent)]
    Refused(E),
    /// The write failed below the closure.
    #[error(transparent)]
    Failed(#[from] WriteFailure),
}

/// Why a write failed below its closure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteFailure {
    /// Another manager leads, or none. Nothing was written.
    #[error("raft: failed to process the request: node lost leader status")]
    NotLeader,
    /// It is larger than an entry can be. Nothing was written.
    #[error("raft: raft message is too large and can't be sent")]
    TooLarge,
    /// There is no space for it. Nothing was written, and writes go on once there is.
    #[error(transparent)]
    NoSpace(Arc<ReserveError>),
    /// This manager lost its leadership, or the majority, while the write was under way: it may have happened, or may still.
    #[error("raft: failed to process the request: node lost leader status")]
    Unknown,
    /// Consensus stopped on this manager. Whether the write happened shows once it runs again.
    #[error("consensus stopped on this manager: {0}")]
    Stopped(String),
}

/// Hands writes to the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

/// A closure in the queue, whatever it returns.
pub trait Job: Send + std::fmt::Debug {
    /// Runs the closure; whether what it changed is to stay.
    fn run(&mut self, tx: &mut Tx) -> bool;
    /// Tells the one who waits.
    fn answer(self: Box<Self>, written: Result<(), WriteFailure>);
}

/// A closure, then what it returned.
struct Write<F, T, E> {
    closure: Option<F>,
    returned: Option<std::thread::Result<Result<T, E>>>,
    done: oneshot::Sender<Outcome<T, E>>,
}

type Outcome<T, E> = Result<Result<T, WriteError<E>>, Box<dyn Any + Send>>;

/// The end of the queue where the work is done.
pub struct Worker {
    /// The algorithm.
    pub core: Core,
    /// Where space is set aside before a proposal.
    pub log: LogStore,
    /// Where the state to decide on comes from.
    pub publisher: Arc<Publisher>,
    /// Whether this manager leads.
    pub reign: Reign,
    /// The time of the last proposal: times never go back.
    pub last: Timestamp,
}

/// Jobs whose changes go into one entry.
#[derive(Default)]
struct Group {
    jobs: Vec<Box<dyn Job>>,
    changes: Vec<Change>,
    bytes: usize,
}

// === impl Writer ===

impl Writer {
    /// A queue, and its other end.
    pub fn new() -> (Self, mpsc::Receiver<Box<dyn Job>>) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        (Self { queue }, jobs)
    }

    /// Runs `closure` on the state as it will be after all writes before it, writes what it changed, and returns once
    /// that is applied here. A closure that changes nothing returns at once.
    ///
    /// # Errors
    /// [`WriteError`]. After [`WriteFailure::Stopped`] the write may or may not have happened, else it has not.
    pub async fn write<F, T, E>(&self, closure: F) -> Result<T, WriteError<E>>
    where
        F: FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let job = Box::new(Write { closure: Some(closure), returned: None, done });
        let closed = || WriteFailure::Stopped("its queue is closed".to_owned());
        self.queue.send(job).await.map_err(|_| closed())?;
        match outcome.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(closed().into()),
        }
    }
}

// === impl Write ===

impl<F, T, E> Job for Write<F, T, E>
where
    F: FnOnce(&mut Tx) -> Result<T, E> + Send,
    T: Send,
    E: Send,
{
    fn run(&mut self, tx: &mut Tx) -> bool {
        let closure = self.closure.take().expect("a job runs once");
        // A panic belongs to the one who brought the closure, not to the queue.
        let returned = catch_unwind(AssertUnwindSafe(|| closure(tx)));
        let keep = matches!(returned, Ok(Ok(_)));
        self.returned = Some(returned);
        keep
    }

    fn answer(self: Box<Self>, written: Result<(), WriteFailure>) {
        let outcome = match (self.returned, written) {
            (Some(Err(panic)), _) => Err(panic),
            (Some(Ok(Err(refusal))), _) => Ok(Err(WriteError::Refused(refusal))),
            (Some(Ok(Ok(value))), Ok(())) => Ok(Ok(value)),
            (_, Err(failure)) => Ok(Err(WriteError::Failed(failure))),
            (None, Ok(())) => return,
        };
        // The one who waits may have given up.
        drop(self.done.send(outcome));
    }
}

impl<F, T, E> std::fmt::Debug for Write<F, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

// === impl Worker ===

impl Worker {
    /// Works until the queue is closed.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = jobs.recv().await {
            let Some(term) = *self.reign.leads.borrow() else {
                first.answer(Err(WriteFailure::NotLeader));
                continue;
            };
            let groups = self.collect(first, &mut jobs);
            let mut failed = None;
            for group in groups {
                // What follows may build on what failed. It was not even proposed.
                let written = match &failed {
                    None => self.propose(term, group.changes, group.bytes).await,
                    Some(WriteFailure::Unknown) => Err(WriteFailure::NotLeader),
                    Some(failure) => Err(WriteFailure::clone(failure)),
                };
                failed = failed.or_else(|| written.as_ref().err().cloned());
                for job in group.jobs {
                    job.answer(written.clone());
                }
            }
        }
    }

    /// Runs `first` and all that wait, until an entry is full.
    fn collect(&self, first: Box<dyn Job>, jobs: &mut mpsc::Receiver<Box<dyn Job>>) -> Vec<Group> {
        let mut tx = Tx::new(&self.publisher.snapshot());
        let mut groups = vec![Group::default()];
        let mut next = Some(first);
        while let Some(mut job) = next {
            let before = tx.savepoint();
            let from = tx.changes().len();
            let keep = job.run(&mut tx);
            let bytes = size(&tx.changes()[from..]);
            if !keep {
                tx.rollback(before);
                job.answer(Ok(()));
            } else if bytes > MAX_PROPOSAL - ENVELOPE {
                tx.rollback(before);
                job.answer(Err(WriteFailure::TooLarge));
            } else {
                add(&mut groups, job, &tx.changes()[from..], bytes);
            }
            let total: usize = groups.iter().map(|g| g.bytes).sum();
            next = if total < FULL_PROPOSAL { jobs.try_recv().ok() } else { None };
        }
        groups
    }

    async fn propose(&mut self, term: u64, changes: Vec<Change>, bytes: usize) -> Result<(), WriteFailure> {
        if changes.is_empty() {
            return Ok(());
        }
        let space = self.log.reserve(bytes + ENVELOPE).await;
        space.map_err(|e| WriteFailure::NoSpace(Arc::new(e)))?;
        self.last = shoal_ambient::now().max(self.last);
        let proposal = Proposal { time: self.last, term, changes: changes.into() };
        propose(&self.core, self.reign.holds.clone(), proposal).await.map(drop)
    }
}

/// Appends `proposal` to the log and waits until it is applied here, or until this manager does not lead in its term any
/// more, or no majority follows.
pub async fn propose(
    core: &Core,
    mut holds: watch::Receiver<Option<u64>>,
    proposal: Proposal,
) -> Result<Applied, WriteFailure> {
    type Failed = RaftError<u64, ClientWriteError<u64, Member>>;
    let term = proposal.term;
    if *holds.borrow_and_update() != Some(term) {
        return Err(WriteFailure::NotLeader);
    }
    tokio::select! {
        written = core.client_write(proposal) => match written {
            Ok(response) if response.data.is_void => Err(WriteFailure::NotLeader),
            Ok(response) => Ok(response.data),
            // The algorithm says this at once, when it does not lead, and later, when another leader had the entry cut
            // here. In the second case a third one may still have it, and bring it to an end.
            Err(Failed::APIError(_)) => Err(WriteFailure::Unknown),
            Err(Failed::Fatal(fatal)) => Err(WriteFailure::Stopped(fatal.to_string())),
        },
        _ = holds.wait_for(|now| *now != Some(term)) => Err(WriteFailure::Unknown),
    }
}

fn add(groups: &mut Vec<Group>, job: Box<dyn Job>, changes: &[Change], bytes: usize) {
    if groups.last().is_some_and(|g| g.bytes + bytes > MAX_PROPOSAL - ENVELOPE) {
        groups.push(Group::default());
    }
    let group = groups.last_mut().expect("there is always one");
    group.jobs.push(job);
    group.changes.extend_from_slice(changes);
    group.bytes += bytes;
}

/// Bytes of `changes` in an entry. What cannot be encoded counts as too large.
fn size(changes: &[Change]) -> usize {
    let mut packer = Packer::default();
    changes.iter().map(|change| packed_len(&mut packer, change).unwrap_or(MAX_PROPOSAL)).sum()
}
