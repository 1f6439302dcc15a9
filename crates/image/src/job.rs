//! Getting one layer: download, verification and unpacking at the same time.
//!
//! Pulls that need the same layer share one job. It ends when it is done or when the last pull that waits for it is
//! gone; what it has made by then is pending under the pulls' leases, or goes to the trash.

mod download;
mod tail;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Semaphore, watch};

use crate::digest::{ChainId, DiffId};
use crate::error::{ExtractError, PullError};
use crate::extract::{self, Unpacked};
use crate::layout::{TempFile, TempLayer};
use crate::meta::{BlobRecord, LayerRecord, Meta};
use crate::registry::{Descriptor, Session};
use crate::store::{Inner, Pending};

/// The jobs that run.
pub(crate) struct Jobs {
    running: Mutex<HashMap<ChainId, Weak<Job>>>,
    /// Layers unpacked at once: it is work for the CPU.
    unpacking: Arc<Semaphore>,
}

/// Which layer to get.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub blob: Descriptor,
    pub diff: DiffId,
    pub chain: ChainId,
    pub parent: Option<ChainId>,
}

/// A running job; dropped by its last user, it stops.
pub(crate) struct Job {
    state: watch::Receiver<State>,
    task: tokio::task::AbortHandle,
}

/// How far a job is.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Waiting,
    Retrying { seconds: u64 },
    Downloading { bytes: u64 },
    Verifying,
    Downloaded,
    Extracting { bytes: u64 },
    Done,
    Failed(PullError),
}

impl Jobs {
    /// As many unpack at once as there are CPUs, beside those that may be waiting for one of `downloads`.
    pub fn new(downloads: usize) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self { running: Mutex::default(), unpacking: Arc::new(Semaphore::new(cpus + downloads)) }
    }
}

impl Job {
    /// Follows the job.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits for the job's end.
    pub async fn done(&self) -> Result<(), PullError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Done => return Ok(()),
                State::Failed(error) => return Err(error.clone()),
                _ => {}
            }
            if state.changed().await.is_err() {
                return Err(interrupted().into());
            }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A task ends without a result only when the runtime shuts down.
pub(crate) fn interrupted() -> ExtractError {
    ExtractError::Stream(std::io::Error::new(std::io::ErrorKind::Interrupted, "the pull was stopped"))
}

impl Inner {
    /// The job that gets a layer: the running one, or a new one. The caller holds a lease on the layer. `below` is the
    /// job of the layer below, if that is being got, too.
    pub fn ensure_job(self: &Arc<Self>, wanted: &Wanted, session: &Arc<Session>, below: Option<Arc<Job>>) -> Arc<Job> {
        let mut running = self.jobs.running.lock().expect("nothing panics under this lock");
        running.retain(|_, job| job.strong_count() > 0);
        if let Some(job) = running.get(&wanted.chain).and_then(Weak::upgrade).filter(|job| !job.has_failed()) {
            return job;
        }
        let (sender, state) = watch::channel(State::Waiting);
        let work = Work {
            inner: self.clone(),
            wanted: wanted.clone(),
            session: session.clone(),
            below,
            state: Arc::new(sender),
        };
        let task = tokio::spawn(work.run()).abort_handle();
        let job = Arc::new(Job { state, task });
        running.insert(wanted.chain, Arc::downgrade(&job));
        job
    }
}

impl Job {
    fn has_failed(&self) -> bool {
        matches!(&*self.state.borrow(), State::Failed(_))
    }
}

/// What a job's task has.
struct Work {
    inner: Arc<Inner>,
    wanted: Wanted,
    session: Arc<Session>,
    below: Option<Arc<Job>>,
    state: Arc<watch::Sender<State>>,
}

impl Work {
    async fn run(self) {
        let state = self.state.clone();
        let end = match self.get_layer().await {
            Ok(()) => State::Done,
            Err(error) => State::Failed(error),
        };
        state.send_replace(end);
    }

    async fn get_layer(self) -> Result<(), PullError> {
        let permit = self.inner.registry.downloads.clone().acquire_owned().await;
        let (file, blob) = self.inner.layout.temp_file()?;
        let file = Arc::new(file);
        let (head, tail) = tail::channel(&file.path, self.state.clone())?;
        let mut unpacking = tokio::spawn(unpack(self.inner.clone(), tail));
        let downloaded = tokio::select! {
            biased;
            downloaded = download::download(&self.session, &self.wanted.blob, blob, head, &self.state) => downloaded,
            early = &mut unpacking => return Err(early.ok().and_then(Result::err).unwrap_or_else(interrupted).into()),
        };
        drop(permit);
        // a failed download has dropped its end of the file, which ends the unpacking: what that made is cleared away
        // before we answer
        let unpacked = unpacking.await.unwrap_or_else(|_| Err(interrupted()));
        let _head = downloaded?;
        let (dir, unpacked) = unpacked?;
        if unpacked.diff != self.wanted.diff {
            return Err(ExtractError::DiffId { expected: self.wanted.diff, actual: unpacked.diff }.into());
        }
        if let Some(below) = &self.below {
            below.done().await?;
        }
        let Self { inner, wanted, .. } = self;
        let keep = move || -> Result<(), PullError> { Ok(inner.keep_layer(&wanted, dir, file, unpacked)?) };
        tokio::task::spawn_blocking(keep).await.unwrap_or_else(|_| Err(interrupted().into()))
    }
}

impl Inner {
    /// Completes an unpacked layer and notes it as pending, unless nobody wants it any more. Blocks.
    pub fn keep_layer(
        &self,
        wanted: &Wanted,
        dir: TempLayer,
        blob: Arc<TempFile>,
        unpacked: Unpacked,
    ) -> Result<(), ExtractError> {
        let below = self.layers_below(wanted.parent.as_ref());
        extract::finish(&dir.path(), &unpacked.implied, &below)?;
        let record = LayerRecord {
            number: dir.number,
            parent: wanted.parent,
            diff: unpacked.diff,
            size: unpacked.size,
            blob: BlobRecord { digest: wanted.blob.digest, size: wanted.blob.size },
            unsynced: Some(self.boot().to_owned()),
        };
        let mut volatile = self.volatile();
        let is_wanted = volatile.leases.contains_key(&wanted.chain) && !self.meta().layers.contains_key(&wanted.chain);
        if is_wanted {
            volatile.pending.entry(wanted.chain).or_insert(Pending { record, dir, blob });
        }
        Ok(())
    }

    /// Whether a layer is there, recorded or pending.
    pub fn has_layer(&self, chain: &ChainId) -> bool {
        self.volatile().pending.contains_key(chain) || self.meta().layers.contains_key(chain)
    }

    /// The directories of a layer and all below it, top first, recorded or pending.
    fn layers_below(&self, top: Option<&ChainId>) -> Vec<PathBuf> {
        let volatile = self.volatile();
        let meta: Arc<Meta> = self.meta();
        let mut dirs = Vec::new();
        let mut next = top.copied();
        while let Some(layer) = next.and_then(|chain| {
            let pending = volatile.pending.get(&chain).map(|pending| &pending.record);
            pending.or_else(|| meta.layers.get(&chain))
        }) {
            dirs.push(self.layout.layer(layer.number));
            next = layer.parent;
        }
        dirs
    }
}

/// Unpacks what arrives, when it is this layer's turn.
async fn unpack(inner: Arc<Inner>, tail: tail::Tail) -> Result<(TempLayer, Unpacked), ExtractError> {
    let _permit = inner.jobs.unpacking.clone().acquire_owned().await;
    let unpack = move || {
        let dir = inner.layout.temp_layer()?;
        let unpacked = extract::unpack(tail, &dir.path(), &inner.layout)?;
        Ok((dir, unpacked))
    };
    let unpacking = tokio::task::spawn_blocking(unpack);
    unpacking.await.unwrap_or_else(|_| Err(interrupted()))
}
