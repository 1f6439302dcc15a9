//! The state machine: applies what the log agreed on to the store, tells the followers, keeps snapshots.

use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{RaftStateMachine, Snapshot as RaftSnapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use shoal_store::{Snapshot, Store};
use tokio::sync::watch;

use crate::feed::{Commit, Publisher};
use crate::snapshot::{Draft, Pieces, SnapshotDir, SnapshotError};
use crate::types::{Applied, Entry, Image, LogId, SnapshotMeta, StorageError, StoredMembership, Types};

/// The state machine. The algorithm owns it; [`Keeper`]s share what they need of it.
#[derive(Debug)]
pub struct Machine {
    store: Store,
    keeper: Keeper,
}

/// Makes snapshots of the state machine.
#[derive(Debug, Clone)]
pub struct Keeper {
    dir: SnapshotDir,
    publisher: Arc<Publisher>,
    shared: Arc<Mutex<Shared>>,
    /// The place in the log up to which it is applied.
    applied: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    applied: Position,
    /// The description of the newest snapshot on disk.
    saved: Option<SnapshotMeta>,
    /// A snapshot that the algorithm has not been told of.
    untold: Option<SnapshotMeta>,
}

/// Up to where the log is applied.
#[derive(Debug, Clone, Default)]
struct Position {
    last: Option<LogId>,
    membership: StoredMembership,
    state: Snapshot,
}

impl Machine {
    /// Goes on from the newest snapshot in `dir`.
    ///
    /// # Errors
    /// [`SnapshotError`] where there is one that cannot be read.
    pub fn open(dir: SnapshotDir) -> Result<Self, SnapshotError> {
        let (saved, state) = dir.read()?.unzip();
        let state = state.unwrap_or_default();
        let mut applied = Position { state: state.clone(), ..Position::default() };
        if let Some(meta) = &saved {
            applied.last = meta.last_log_id;
            applied.membership = meta.last_membership.clone();
        }
        let publisher = Publisher::new(state.clone());
        let index = watch::Sender::new(applied.last.map_or(0, |id| id.index));
        let shared = Arc::new(Mutex::new(Shared { applied, saved, untold: None }));
        Ok(Self { store: Store::from(state), keeper: Keeper { dir, publisher, shared, applied: index } })
    }

    /// Whom others follow.
    pub fn publisher(&self) -> Arc<Publisher> {
        self.keeper.publisher.clone()
    }

    /// A maker of snapshots.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    fn apply_entry(&mut self, entry: Entry) -> Applied {
        let index = entry.log_id.index;
        let (mut membership, mut is_void) = (None, false);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(m) => membership = Some(StoredMembership::new(Some(entry.log_id), m)),
            EntryPayload::Normal(proposal) if proposal.term != entry.log_id.leader_id.term => is_void = true,
            EntryPayload::Normal(proposal) => {
                let events = self.store.apply(index, proposal.time, &proposal.changes);
                self.keeper.publisher.publish(Commit { index, events, snapshot: self.store.snapshot() });
            }
        }
        let mut shared = self.keeper.lock();
        shared.applied.last = Some(entry.log_id);
        shared.applied.state = self.store.snapshot();
        if let Some(membership) = membership {
            shared.applied.membership = membership;
        }
        drop(shared);
        self.keeper.applied.send_replace(index);
        Applied { index, is_void }
    }
}

impl Keeper {
    /// Writes a snapshot of the state as it is now, without stopping the log; `keep` older ones stay beside it.
    ///
    /// # Errors
    /// [`SnapshotError`] where it cannot be written; the one before stays.
    pub async fn save(&self, keep: u64) -> Result<(), SnapshotError> {
        let position = self.lock().applied.clone();
        let id = position.last.map_or_else(|| "0-0".to_owned(), |l| format!("{}-{}", l.leader_id.term, l.index));
        let meta =
            SnapshotMeta { last_log_id: position.last, last_membership: position.membership.clone(), snapshot_id: id };
        self.store(meta.clone(), position.state.clone(), keep).await?;
        let mut shared = self.lock();
        shared.saved = Some(meta.clone());
        shared.untold = Some(meta);
        Ok(())
    }

    /// Up to where the log is applied.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The list of members as of what is applied.
    pub fn membership(&self) -> StoredMembership {
        self.lock().applied.membership.clone()
    }

    /// Begins to receive the snapshot that `meta` describes.
    ///
    /// # Errors
    /// [`SnapshotError`] where it cannot be written.
    pub fn draft(&self, meta: &SnapshotMeta) -> Result<Draft, SnapshotError> {
        self.dir.draft(meta, ".in")
    }

    /// Makes a received snapshot safe. From now on a restart goes on from it: it is of what was agreed on, whatever the
    /// algorithm thinks of its sender by now. The one before stays for when the algorithm does not want this one.
    ///
    /// # Errors
    /// [`SnapshotError`] where it cannot be written; the one before stays.
    pub async fn receive(&self, draft: Draft) -> Result<(), SnapshotError> {
        let keep = shoal_ambient::blocking(move || draft.keep(1));
        keep.await.expect("writing a snapshot does not panic and is not cancelled")
    }

    /// Makes a snapshot of another directory ours.
    async fn adopt(&self, meta: &SnapshotMeta, pieces: Pieces) -> Result<Snapshot, SnapshotError> {
        let (dir, meta) = (self.dir.clone(), meta.clone());
        let adopt = shoal_ambient::blocking(move || {
            let state = pieces.decode()?;
            dir.write(&meta, &state, 0)?;
            Ok(state)
        });
        adopt.await.expect("writing a snapshot does not panic and is not cancelled")
    }

    /// Forgets a received snapshot that was not installed.
    pub fn settle(&self, meta: &SnapshotMeta) {
        let saved = self.lock().saved.clone();
        let is_kept = saved.is_some_and(|s| s.last_log_id.map(|id| id.index) == meta.last_log_id.map(|id| id.index));
        if !is_kept && let Err(error) = self.dir.discard(meta) {
            tracing::debug!(%error, "cannot remove a snapshot that is not needed");
        }
    }

    async fn store(&self, meta: SnapshotMeta, state: Snapshot, keep: u64) -> Result<(), SnapshotError> {
        let dir = self.dir.clone();
        let write = shoal_ambient::blocking(move || dir.write(&meta, &state, keep));
        write.await.expect("writing a snapshot does not panic and is not cancelled")
    }

    async fn current(&self) -> Result<Option<RaftSnapshot<Types>>, StorageError> {
        if self.lock().saved.is_none() {
            return Ok(None);
        }
        let dir = self.dir.clone();
        let read = shoal_ambient::blocking(move || dir.pieces());
        let read = read.await.expect("reading a snapshot does not panic and is not cancelled");
        let found = read.map_err(|e| StorageIOError::read_snapshot(None, &e))?;
        Ok(found.map(|(meta, pieces)| RaftSnapshot { meta, snapshot: Box::new(Image::Stored(pieces)) }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics while it holds the position")
    }
}

impl RaftSnapshotBuilder<Types> for Keeper {
    async fn build_snapshot(&mut self) -> Result<RaftSnapshot<Types>, StorageError> {
        // Ours are saved before the algorithm is asked to make one, so that a full disk does not end it.
        if self.lock().untold.is_none() {
            self.save(0).await.map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        }
        let meta = self.lock().untold.take().expect("it was just saved, and there is one builder at a time");
        Ok(RaftSnapshot { meta, snapshot: Box::default() })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Keeper;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let shared = self.keeper.lock();
        Ok((shared.applied.last, shared.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_entry(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Keeper {
        self.keeper.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Image>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Image>) -> Result<(), StorageError> {
        let written = |e: &SnapshotError| StorageIOError::write_snapshot(Some(meta.signature()), e);
        let state = match *snapshot {
            Image::Received(state) => state,
            Image::Stored(pieces) => self.keeper.adopt(meta, pieces).await.map_err(|e| written(&e))?,
            Image::Elsewhere => Snapshot::default(),
        };
        self.store = Store::from(state.clone());
        {
            let mut shared = self.keeper.lock();
            shared.applied =
                Position { last: meta.last_log_id, membership: meta.last_membership.clone(), state: state.clone() };
            shared.saved = Some(meta.clone());
            shared.untold = None;
        }
        self.keeper.publisher.replace(state);
        self.keeper.applied.send_replace(meta.last_log_id.map_or(0, |id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot<Types>>, StorageError> {
        self.keeper.current().await
    }
}
