//! The log as the algorithm sees it: recent entries in memory, all of them on disk, writes in order on one thread.
//!
//! Whatever waits when the thread is free is written together and made safe by one `fdatasync`.

mod ballot;
mod disk;
mod segment;
mod thread;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::oneshot;

use crate::frame::{DataKey, Frame};
use crate::media::Media;
use crate::types::{Entry, LogId, StorageError, Types, Vote};
pub use disk::OpenError;
use disk::{Place, State};
use thread::Command;

/// Bytes of entries kept in memory once they are on disk; older ones are read back when asked for.
const CACHE: usize = 4 * 1024 * 1024;

/// Bytes of entries handed out at a time to a follower.
const BATCH: usize = 1024 * 1024;

/// The log. Cheap to clone; all clones are the same log.
#[derive(Debug, Clone)]
pub struct LogStore {
    index: Arc<Mutex<Index>>,
    commands: tokio::sync::mpsc::UnboundedSender<Command>,
    key: DataKey,
}

/// What is known without asking the disk.
#[derive(Debug, Default)]
struct Index {
    state: State,
    slots: VecDeque<Slot>,
    /// Bytes of the entries in memory that are on disk too.
    cached: usize,
    /// The slots before this one are on disk only.
    evicted: usize,
    /// Bytes that the segments hold.
    size: u64,
    /// What is known to be agreed on.
    committed: Option<LogId>,
}

#[derive(Debug)]
struct Slot {
    id: LogId,
    entry: Option<Entry>,
    place: Option<Place>,
}

/// An entry in memory, or where to read it.
enum Found {
    Here(Entry),
    There(LogId, Place),
}

/// The log cannot take this now; nothing of it was written, and the log is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The system's answer: mostly that the disk is full.
    #[error("cannot set aside space for the cluster's log: {0}")]
    Io(#[from] io::Error),
    /// The log's thread has ended.
    #[error("the cluster's log is closed")]
    Closed,
}

// === impl LogStore ===

impl LogStore {
    /// Opens the log in `dir`, or begins one there. Where its end was safe and is damaged, `lost` is called before it is
    /// cut off.
    ///
    /// # Errors
    /// [`OpenError`] where it is damaged elsewhere or not ours; nothing is changed then.
    pub fn open(
        media: Arc<dyn Media>,
        dir: &Path,
        key: DataKey,
        lost: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Self, OpenError> {
        let (disk, contents) = disk::Disk::open(media, dir, key.clone(), lost)?;
        let committed = contents.known_committed();
        let mut index = Index { state: contents.state, size: disk.size(), committed, ..Index::default() };
        for (entry, place) in contents.entries {
            index.slots.push_back(Slot { id: entry.log_id, entry: None, place: Some(place) });
        }
        index.evicted = index.slots.len();
        let index = Arc::new(Mutex::new(index));
        let commands = thread::spawn(disk, index.clone());
        Ok(Self { index, commands, key })
    }

    /// Makes sure that an entry of `bytes` can be written. Called before one is proposed, so that a full disk refuses the
    /// write and leaves the log alone.
    ///
    /// # Errors
    /// [`ReserveError`] where there is no space.
    pub async fn reserve(&self, bytes: usize) -> Result<(), ReserveError> {
        let (tx, rx) = oneshot::channel();
        self.commands.send(Command::Reserve(bytes as u64, tx)).map_err(|_| ReserveError::Closed)?;
        rx.await.map_err(|_| ReserveError::Closed)?.map_err(ReserveError::Io)
    }

    /// Goes on in a new segment; gives its number. What is in those before is gone once their entries are purged.
    ///
    /// # Errors
    /// There is no space, or the log's thread has ended.
    pub async fn roll(&self) -> io::Result<u64> {
        self.run(Command::Roll).await?;
        self.segments().await.map(|(_, newest)| newest)
    }

    /// The number of the oldest segment.
    ///
    /// # Errors
    /// The log's thread has ended.
    pub async fn oldest(&self) -> io::Result<u64> {
        self.segments().await.map(|(oldest, _)| oldest)
    }

    async fn segments(&self) -> io::Result<(u64, u64)> {
        let (tx, rx) = oneshot::channel();
        let closed = || io::Error::other("the log's thread has ended");
        self.commands.send(Command::Segments(tx)).map_err(|_| closed())?;
        rx.await.map_err(|_| closed())
    }

    /// The last entry, or the last one of those that are gone.
    pub fn last(&self) -> Option<LogId> {
        self.lock().last()
    }

    /// The vote does not make this member a leader again when the algorithm reads it.
    pub fn disown_vote(&self) {
        if let Some(vote) = &mut self.lock().state.vote {
            vote.committed = false;
        }
    }

    /// Bytes that it holds on disk.
    pub fn size(&self) -> u64 {
        self.lock().size
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nothing panics while it holds the index")
    }

    async fn run(&self, command: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Command) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        let closed = || io::Error::other("the log's thread has ended");
        self.commands.send(command(tx)).map_err(|_| closed())?;
        rx.await.map_err(|_| closed())?
    }

    async fn read(&self, found: Vec<Found>) -> Result<Vec<Entry>, StorageError> {
        let this = self.clone();
        let is_here = found.iter().all(|f| matches!(f, Found::Here(_)));
        let read = move || found.into_iter().map(|f| this.entry(f)).collect::<io::Result<Vec<_>>>();
        let read = match is_here {
            true => read(),
            false => shoal_ambient::blocking(read).await.unwrap_or_else(|e| Err(io::Error::other(e))),
        };
        read.map_err(|e| StorageIOError::read_logs(&e).into())
    }

    fn entry(&self, found: Found) -> io::Result<Entry> {
        let (id, place) = match found {
            Found::Here(entry) => return Ok(entry),
            Found::There(id, place) => (id, place),
        };
        let mut bytes = vec![0; place.len];
        place.file.read_at(&mut bytes, place.offset)?;
        let Frame::Record { content, .. } = self.key.open(&bytes).map_err(io::Error::other)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match serde_json::from_slice(&content)? {
            disk::Record::Entry(entry) if entry.log_id == id => Ok(entry),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

// === impl Index ===

impl Index {
    fn first(&self) -> u64 {
        self.slots.front().map_or(0, |slot| slot.id.index)
    }

    fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.state.purged)
    }

    /// The slots of indexes in `from..to`, as far as there are any.
    fn range(&self, from: u64, to: u64) -> std::ops::Range<usize> {
        let (first, len) = (self.first(), self.slots.len());
        let at = |index: u64| usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX).min(len);
        at(from)..at(to).max(at(from))
    }

    fn find(&self, from: u64, to: u64, limit: usize) -> Vec<Found> {
        let mut bytes = 0;
        let slots = self.slots.range(self.range(from, to));
        let fits = |slot: &&Slot| {
            let room = bytes < limit;
            bytes += slot.place.as_ref().map_or(0, |p| p.len);
            room
        };
        let found = |slot: &Slot| match (&slot.entry, &slot.place) {
            (Some(entry), _) => Some(Found::Here(entry.clone())),
            (None, Some(place)) => Some(Found::There(slot.id, place.clone())),
            (None, None) => None,
        };
        slots.take_while(fits).filter_map(found).collect()
    }

    /// The thread has written `id` to `place`. The slot may be gone by now, or hold another entry.
    fn written(&mut self, id: LogId, place: Place) {
        let at = self.range(id.index, id.index + 1);
        if let Some(slot) = self.slots.range_mut(at).next().filter(|slot| slot.id == id) {
            self.cached += place.len;
            slot.place = Some(place);
        }
        while self.cached > CACHE {
            let Some(slot) = self.slots.get_mut(self.evicted) else { break };
            let Some(place) = &slot.place else { break };
            if slot.entry.take().is_some() {
                self.cached -= place.len;
            }
            self.evicted += 1;
        }
    }

    /// Drops slots from the front or the back.
    fn drop_slots(&mut self, at: std::ops::Range<usize>) {
        for slot in self.slots.drain(at.clone()) {
            if slot.entry.is_some() {
                self.cached -= slot.place.map_or(0, |p| p.len);
            }
        }
        self.evicted = if at.start == 0 { self.evicted.saturating_sub(at.len()) } else { self.evicted.min(at.start) };
    }
}

// === the algorithm's interface ===

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(i) => i + 1,
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        let found = self.lock().find(from, to, usize::MAX);
        self.read(found).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let found = self.lock().find(start, end, BATCH);
        self.read(found).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let index = self.lock();
        Ok(LogState { last_purged_log_id: index.state.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.run(|done| Command::Vote(*vote, done)).await.map_err(|e| StorageIOError::write_vote(&e))?;
        self.lock().state.vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.lock().state.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.lock().committed = committed;
        let closed = || io::Error::other("the log's thread has ended");
        let note = committed.map_or(Ok(()), |id| self.commands.send(Command::Committed(id)).map_err(|_| closed()));
        note.map_err(|e| StorageIOError::write_logs(&e).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let slots = entries.iter().map(|e| Slot { id: e.log_id, entry: Some(e.clone()), place: None });
        self.lock().slots.extend(slots);
        let closed = || io::Error::other("the log's thread has ended");
        let sent = self.commands.send(Command::Append(entries, callback));
        sent.map_err(|_| StorageIOError::write_logs(&closed()).into())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        {
            let mut index = self.lock();
            let at = index.range(log_id.index, u64::MAX);
            index.drop_slots(at);
        }
        let done = self.run(|done| Command::Truncate(log_id.index, done)).await;
        done.map_err(|e| StorageIOError::write_logs(&e).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let is_replaced = {
            let mut index = self.lock();
            let at = index.range(log_id.index, log_id.index.saturating_add(1));
            // The snapshot came from another member, and this log has something else there: what follows on that is void.
            let is_replaced = index.slots.range(at).next().is_some_and(|slot| slot.id != log_id);
            let upto = if is_replaced { u64::MAX } else { log_id.index.saturating_add(1) };
            let at = index.range(0, upto);
            index.drop_slots(at);
            index.state.purged = Some(log_id);
            is_replaced
        };
        let failed = |e: io::Error| StorageIOError::write_logs(&e);
        if is_replaced {
            self.run(|done| Command::Truncate(log_id.index, done)).await.map_err(failed)?;
        }
        self.run(|done| Command::Purge(log_id, done)).await.map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
