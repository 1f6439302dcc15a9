//! The log on disk: a row of segments that together say the vote, what was purged, and the entries.
//!
//! Used by one thread. Each segment begins with the vote and the purge mark as they were, so the oldest ones can go as
//! soon as all their entries are purged.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ballot::Ballot;
use super::segment::{self, Segment, SegmentError};
use crate::frame::{DataKey, OVERHEAD};
use crate::media::{Media, MediaFile};
use crate::types::{Entry, LogId, Vote};

/// Bytes set aside for a new segment.
pub const SEGMENT: u64 = 4 * 1024 * 1024;

/// Bytes kept free beyond what a proposal needs, for the algorithm's own records (votes, marks, members).
pub const SLACK: u64 = 64 * 1024;

/// What is in a record.
#[derive(Debug, Serialize, Deserialize)]
pub enum Record {
    /// The vote and the purge mark. Each says both, so the last one counts.
    State(State),
    /// The next entry.
    Entry(Entry),
    /// All entries from this index on are void.
    Truncate(u64),
    /// Up to here entries are agreed on. Not made safe by itself: it only spares a member that starts the wait for others.
    Committed(LogId),
}

/// What the log is besides its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last vote.
    pub vote: Option<Vote>,
    /// Up to here entries are gone; a snapshot has what they did.
    pub purged: Option<LogId>,
}

/// Where an entry is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<dyn MediaFile>,
    /// Where its record begins.
    pub offset: u64,
    /// The length of the record.
    pub len: usize,
}

/// The log on disk.
#[derive(Debug)]
pub struct Disk {
    media: Arc<dyn Media>,
    dir: PathBuf,
    key: DataKey,
    state: State,
    old: VecDeque<Segment>,
    current: Segment,
    ballot: Ballot,
    /// Whether all that was written is safe.
    is_safe: bool,
}

/// What a log on disk holds when it is opened: its entries without gap, and where each one is.
#[derive(Debug, Default)]
pub struct Contents {
    /// The vote and the purge mark.
    pub state: State,
    /// Entries after the purge mark, each following the one before.
    pub entries: Vec<(Entry, Place)>,
    /// Up to here entries are known to be agreed on.
    pub committed: Option<LogId>,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system's answer.
    #[error("cannot use the log in {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A file of it cannot be read.
    #[error("cannot read the log: {0}")]
    Segment(#[from] SegmentError),
    /// A file of it is missing.
    #[error("the log in {dir} lacks segment {number:016x}")]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The first one that is missing.
        number: u64,
    },
    /// Entries do not follow each other.
    #[error("the log in {dir} has entry {found} where {wanted} belongs")]
    Gap {
        /// The directory.
        dir: PathBuf,
        /// The index that is there.
        found: u64,
        /// The index that should be.
        wanted: u64,
    },
    /// A record that this version does not understand.
    #[error("cannot understand a record of the log in {dir}: {source}")]
    Record {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Disk {
    /// Opens the log in `dir`, which must exist, or begins one there. Where its end was safe and is damaged, `lost` is
    /// called before it is cut off.
    pub fn open(
        media: Arc<dyn Media>,
        dir: &Path,
        key: DataKey,
        lost: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(Self, Contents), OpenError> {
        let io = |source| OpenError::Io { dir: dir.to_owned(), source };
        let numbers = list(&*media, dir).map_err(io)?;
        let Some((&newest, _)) = numbers.split_last() else {
            let current = Segment::create(&*media, dir, 1, SEGMENT).map_err(io)?;
            let (state, old) = (State::default(), VecDeque::new());
            let (ballot, _) = Ballot::open(&*media, dir, key.clone()).map_err(io)?;
            let disk = Self { media, dir: dir.to_owned(), key, state, old, current, ballot, is_safe: true };
            return Ok((disk, Contents::default()));
        };
        let mut contents = Contents::default();
        let mut segments = VecDeque::new();
        let mut is_cut = false;
        let mut lost = || {
            is_cut = true;
            lost()
        };
        for (number, wanted) in numbers.iter().copied().zip(numbers[0]..) {
            if number != wanted {
                return Err(OpenError::Missing { dir: dir.to_owned(), number: wanted });
            }
            segments.push_back(replay(&*media, dir, number, number == newest, &key, &mut lost, &mut contents)?);
        }
        let (ballot, vote) = Ballot::open(&*media, dir, key.clone()).map_err(io)?;
        if vote > contents.state.vote {
            contents.state.vote = vote;
        }
        match contents.check_first(dir) {
            // A mark that said so is lost; the snapshot has what these follow on.
            Err(_) if is_cut => contents.entries.clear(),
            other => other?,
        }
        let current = segments.pop_back().expect("there is a newest one");
        let state = contents.state.clone();
        let disk = Self { media, dir: dir.to_owned(), key, state, old: segments, current, ballot, is_safe: true };
        Ok((disk, contents))
    }

    /// Makes sure that records of `bytes` in all can be written. Nothing changes where there is no space.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let need = bytes + SLACK;
        if self.current.end + need <= self.current.reserved {
            return Ok(());
        }
        if self.current.end + need <= SEGMENT {
            let whole = self.current.reserve(SEGMENT - self.current.end);
            return whole.or_else(|_| self.current.reserve(need));
        }
        // Only the newest segment may end in the middle of a record: what the current one holds is made safe first.
        self.current.sync()?;
        let next = self.next_segment(SEGMENT.max(need + SLACK))?;
        self.old.push_back(std::mem::replace(&mut self.current, next));
        Ok(())
    }

    /// Goes on in a new segment, and writes the vote anew. Once the old segments are gone, nothing is left of what was
    /// written before.
    pub fn roll(&mut self) -> io::Result<()> {
        self.sync()?;
        let next = self.next_segment(SEGMENT)?;
        self.old.push_back(std::mem::replace(&mut self.current, next));
        match self.state.vote {
            Some(vote) => self.ballot.rewrite(vote),
            None => Ok(()),
        }
    }

    /// The number of the oldest segment, and of the one that is written.
    pub fn segments(&self) -> (u64, u64) {
        let newest = self.current.number;
        (self.old.front().map_or(newest, |oldest| oldest.number), newest)
    }

    fn next_segment(&self, size: u64) -> io::Result<Segment> {
        let mut next = Segment::create(&*self.media, &self.dir, self.current.number + 1, size)?;
        let mut head = Vec::new();
        self.key.seal(&encode(&Record::State(self.state.clone()))?, &mut head);
        if let Err(error) = next.append(&head).and_then(|_| next.sync()) {
            next.remove(&*self.media)?;
            return Err(error);
        }
        Ok(next)
    }

    /// Writes entries at the end; safe after [`Self::sync`].
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<Vec<Place>> {
        entries.iter().map(|entry| self.append_entry(entry)).collect()
    }

    fn append_entry(&mut self, entry: &Entry) -> io::Result<Place> {
        // Borrowed twin of `Record::Entry`, to spare a copy of the entry.
        #[derive(Serialize)]
        enum Record<'a> {
            Entry(&'a Entry),
        }
        let place = self.write(&serde_json::to_vec(&Record::Entry(entry))?)?;
        self.current.last_entry = self.current.last_entry.max(Some(entry.log_id.index));
        Ok(place)
    }

    /// Voids all entries from `since` on; safe after [`Self::sync`].
    pub fn truncate(&mut self, since: u64) -> io::Result<()> {
        self.write(&encode(&Record::Truncate(since))?).map(drop)
    }

    /// Notes that entries are agreed on up to `id`, where that needs no space to be set aside.
    pub fn note_committed(&mut self, id: LogId) -> io::Result<()> {
        let record = encode(&Record::Committed(id))?;
        if self.current.end + (record.len() + OVERHEAD) as u64 > self.current.reserved {
            return Ok(());
        }
        self.write(&record).map(drop)
    }

    /// Sets the vote; safe after [`Self::sync`].
    pub fn save_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.ballot.save(vote)?;
        self.state.vote = Some(vote);
        self.save_state()
    }

    /// Forgets the entries up to `mark` and frees the segments that hold no others.
    pub fn purge(&mut self, mark: LogId) -> io::Result<()> {
        self.state.purged = Some(mark);
        self.save_state()?;
        self.sync()?;
        while self.old.front().is_some_and(|oldest| oldest.last_entry.is_none_or(|last| last <= mark.index)) {
            if let Some(oldest) = self.old.pop_front() {
                oldest.remove(&*self.media)?;
            }
        }
        self.media.sync_dir(&self.dir)
    }

    /// How long to wait between writing and [`Self::sync`], if not in it.
    pub fn lag(&self) -> Option<Duration> {
        self.media.lag()
    }

    /// Makes safe all that was written.
    pub fn sync(&mut self) -> io::Result<()> {
        self.current.sync()?;
        self.is_safe = true;
        Ok(())
    }

    /// Bytes that the segments hold.
    pub fn size(&self) -> u64 {
        self.old.iter().map(|s| s.end).sum::<u64>() + self.current.end
    }

    fn save_state(&mut self) -> io::Result<()> {
        self.write(&encode(&Record::State(self.state.clone()))?).map(drop)
    }

    fn write(&mut self, content: &[u8]) -> io::Result<Place> {
        let len = content.len() + OVERHEAD;
        if self.current.end + len as u64 > self.current.reserved {
            self.reserve(len as u64)?;
        }
        let mut record = Vec::with_capacity(len);
        if std::mem::take(&mut self.is_safe) {
            self.key.seal_after_sync(content, &mut record);
        } else {
            self.key.seal(content, &mut record);
        }
        let offset = self.current.append(&record)?;
        Ok(Place { file: self.current.file.clone(), offset, len })
    }
}

impl Contents {
    fn take(&mut self, dir: &Path, record: Record, place: Place) -> Result<Option<u64>, OpenError> {
        match record {
            Record::State(state) => {
                self.state = state;
                if let Some(mark) = self.state.purged {
                    self.entries.retain(|(entry, _)| entry.log_id.index > mark.index);
                }
                Ok(None)
            }
            Record::Committed(id) => {
                self.committed = Some(id);
                Ok(None)
            }
            Record::Truncate(since) => {
                self.entries.retain(|(entry, _)| entry.log_id.index < since);
                Ok(None)
            }
            Record::Entry(entry) => {
                let found = entry.log_id.index;
                if self.state.purged.is_some_and(|mark| found <= mark.index) {
                    return Ok(Some(found));
                }
                if let Some((last, _)) = self.entries.last()
                    && found != last.log_id.index + 1
                {
                    return Err(OpenError::Gap { dir: dir.to_owned(), found, wanted: last.log_id.index + 1 });
                }
                self.entries.push((entry, place));
                Ok(Some(found))
            }
        }
    }

    /// What is known to be agreed on, as far as it is here.
    pub fn known_committed(&self) -> Option<LogId> {
        let is_here = |id: &LogId| self.entries.iter().any(|(entry, _)| entry.log_id == *id);
        self.committed.filter(is_here)
    }

    /// The purge mark grows while older segments are read, so the first entry can be checked only at the end.
    fn check_first(&self, dir: &Path) -> Result<(), OpenError> {
        let wanted = self.state.purged.map_or(0, |mark| mark.index + 1);
        match self.entries.first().map(|(entry, _)| entry.log_id.index) {
            Some(found) if found != wanted => Err(OpenError::Gap { dir: dir.to_owned(), found, wanted }),
            _ => Ok(()),
        }
    }
}

fn replay(
    media: &dyn Media,
    dir: &Path,
    number: u64,
    newest: bool,
    key: &DataKey,
    lost: &mut dyn FnMut() -> io::Result<()>,
    contents: &mut Contents,
) -> Result<Segment, OpenError> {
    let (mut records, mut last_entry) = (Vec::new(), None);
    let mut segment = Segment::open(media, dir, number, newest, key, lost, |offset, len, content| {
        records.push((offset, len, content));
        Ok(())
    })?;
    for (offset, len, content) in records {
        let record =
            serde_json::from_slice(&content).map_err(|source| OpenError::Record { dir: dir.to_owned(), source })?;
        let place = Place { file: segment.file.clone(), offset, len };
        last_entry = last_entry.max(contents.take(dir, record, place)?);
    }
    segment.last_entry = last_entry;
    Ok(segment)
}

/// The segments in `dir`, in order. What a crash left of an unfinished one is removed.
fn list(media: &dyn Media, dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for name in media.list(dir)? {
        if name.ends_with(".tmp") {
            media.remove(&dir.join(&name))?;
        }
        numbers.extend(segment::number_of(&name));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn encode(record: &Record) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(record)?)
}
