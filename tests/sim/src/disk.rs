//! A machine's disk: what was not synced is lost or torn when the power fails; it may be slow, and it may be full.
//!
//! Names behave like those of a file system with a journal: a crash keeps the changes up to some point. The content of
//! files promises nothing: of what was not synced, each write may be there, be there in part, be garbage, or be gone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redb::StorageBackend;
use shoal_raft::{Media, MediaFile};

use crate::plant::Plant;
use crate::world::World;

/// A disk. It outlives the processes that use it; each of those has a [`Mount`].
#[derive(Clone)]
pub struct Disk {
    world: World,
    inner: Arc<Mutex<Inner>>,
}

/// A disk as one process sees it. Once the process is dead, every operation fails.
#[derive(Clone)]
pub struct Mount {
    disk: Disk,
    life: u64,
}

/// An open file.
struct OpenFile {
    mount: Mount,
    number: u64,
}

struct Inner {
    /// The process that may use it.
    life: u64,
    is_full: bool,
    lag: (u64, u64),
    names: BTreeMap<PathBuf, u64>,
    safe_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of a directory.
    journal: Vec<Change>,
    files: BTreeMap<u64, Content>,
    next: u64,
}

#[derive(Clone)]
enum Change {
    Put(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A file: what is safe, and what was written since.
#[derive(Clone, Default)]
struct Content {
    now: Bytes,
    safe: Bytes,
    unsynced: Vec<Write>,
}

/// Bytes, and zeros up to a length.
#[derive(Clone, Default)]
struct Bytes {
    bytes: Vec<u8>,
    len: u64,
}

#[derive(Clone)]
enum Write {
    At(u64, Vec<u8>),
    Length(u64),
}

/// What is on a disk, safe or not.
#[derive(Clone)]
pub struct Image {
    names: BTreeMap<PathBuf, u64>,
    files: BTreeMap<u64, Content>,
}

// === impl Disk ===

impl Disk {
    /// An empty disk.
    pub fn new(world: &World) -> Self {
        let inner = Inner {
            life: 0,
            is_full: false,
            lag: (0, 3),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            journal: Vec::new(),
            files: BTreeMap::new(),
            next: 0,
        };
        Self { world: world.clone(), inner: Arc::new(Mutex::new(inner)) }
    }

    /// The disk for a new process; the one before has lost it.
    pub fn mount(&self) -> Mount {
        let mut inner = self.lock();
        inner.life += 1;
        Mount { disk: self.clone(), life: inner.life }
    }

    /// The process has died. What it wrote is there.
    pub fn kill(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.sweep();
    }

    /// The power fails: what was not synced is lost, or torn.
    pub fn power_fails(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        let kept = self.world.draw(0..inner.journal.len() as u64 + 1) as usize;
        let journal = std::mem::take(&mut inner.journal);
        let mut names = std::mem::take(&mut inner.safe_names);
        journal.into_iter().take(kept).for_each(|change| change.apply(&mut names));
        inner.names = names.clone();
        inner.safe_names = names;
        inner.sweep();
        inner.files.values_mut().for_each(|file| file.tear(&self.world));
    }

    /// Everything that is on the disk now.
    pub fn image(&self) -> Image {
        let inner = self.lock();
        Image { names: inner.names.clone(), files: inner.files.clone() }
    }

    /// Puts back what was on the disk once.
    pub fn restore(&self, image: Image) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.journal.clear();
        inner.safe_names = image.names.clone();
        inner.names = image.names;
        inner.files = image.files;
    }

    /// Whether there is space.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether there is none.
    pub fn is_full(&self) -> bool {
        self.lock().is_full
    }

    /// How many milliseconds a sync takes: from, up to.
    pub fn set_lag(&self, from: u64, to: u64) {
        self.lock().lag = (from, to);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the disk")
    }
}

// === impl Mount ===

impl Mount {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        if inner.life == self.life { Ok(inner) } else { Err(io::Error::other("this process is dead")) }
    }

    fn file(&self, number: u64) -> Arc<OpenFile> {
        Arc::new(OpenFile { mount: self.clone(), number })
    }

    /// Removes all files under `dir`.
    pub fn remove_dir(&self, dir: &Path) {
        let Ok(mut inner) = self.inner() else { return };
        let within: Vec<PathBuf> = inner.names.keys().filter(|path| path.starts_with(dir)).cloned().collect();
        within.into_iter().for_each(|path| inner.change(Change::Remove(path)));
        inner.sync_names();
    }

    /// Storage for a database at `path`, there or not.
    ///
    /// # Errors
    /// The process is dead.
    pub fn storage(&self, path: &Path) -> io::Result<impl StorageBackend + use<>> {
        let known = self.inner()?.names.get(path).copied();
        let number = match known {
            Some(number) => number,
            None => {
                let mut inner = self.inner()?;
                let number = inner.make(path);
                // A database makes its file's name safe itself.
                inner.sync_names();
                number
            }
        };
        Ok(Storage(OpenFile { mount: self.clone(), number }))
    }
}

impl Media for Mount {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.inner().map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner()?;
        let within = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let mut inner = self.inner()?;
        inner.space()?;
        let number = inner.make(path);
        Ok(self.file(number))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let number = *self.inner()?.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(number))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner()?;
        if !inner.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner()?;
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.inner()?.sync_names();
        Ok(())
    }

    fn lag(&self) -> Option<Duration> {
        let (from, to) = self.disk.lock().lag;
        Some(self.disk.world.millis(from..to.max(from + 1)))
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({})", self.life)
    }
}

// === impl Inner ===

impl Inner {
    fn space(&self) -> io::Result<()> {
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn make(&mut self, path: &Path) -> u64 {
        self.next += 1;
        let number = self.next;
        self.files.insert(number, Content::default());
        self.change(Change::Put(path.to_owned(), number));
        number
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.journal.push(change);
    }

    fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.journal) {
            change.apply(&mut self.safe_names);
        }
    }

    /// Forgets files that have no name any more. Until their process is dead, it may go on using them.
    fn sweep(&mut self) {
        let Self { names, safe_names, files, .. } = self;
        files.retain(|number, _| names.values().chain(safe_names.values()).any(|n| n == number));
    }

    fn content(&mut self, number: u64) -> io::Result<&mut Content> {
        self.files.get_mut(&number).ok_or_else(|| io::Error::other("the file is gone"))
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Put(path, number) => drop(names.insert(path, number)),
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(&from) {
                    names.insert(to, number);
                }
            }
            Self::Remove(path) => drop(names.remove(&path)),
        }
    }
}

// === impl Content ===

impl Content {
    fn write(&mut self, write: Write) {
        self.now.apply(&write);
        self.unsynced.push(write);
    }

    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            self.safe.apply(&write);
        }
    }

    fn tear(&mut self, world: &World) {
        let unsynced = std::mem::take(&mut self.unsynced);
        // Mostly a prefix is there; now and then any of them.
        let prefix = world.draw(0..unsynced.len() as u64 + 1) as usize;
        let is_ordered = world.chance(0.7);
        for (at, write) in unsynced.into_iter().enumerate() {
            if at < prefix {
                self.safe.apply(&write);
            } else if !is_ordered || at == prefix {
                self.safe.apply(&write.torn(world));
            }
        }
        self.now = self.safe.clone();
    }
}

impl Write {
    /// What may be left of it.
    fn torn(self, world: &World) -> Self {
        let Self::At(offset, mut bytes) = self else { return self };
        match world.draw(0..4) {
            0 => bytes.clear(),
            1 => bytes.truncate(world.draw(0..bytes.len() as u64 + 1) as usize),
            2 => {
                let from = world.draw(0..bytes.len() as u64 + 1) as usize;
                bytes[from..].fill(0);
            }
            _ => {
                for _ in 0..world.draw(1..9) {
                    let Some(last) = bytes.len().checked_sub(1) else { break };
                    let at = world.draw(0..last as u64 + 1) as usize;
                    bytes[at] ^= 1 << world.draw(0..8);
                }
            }
        }
        Self::At(offset, bytes)
    }
}

impl Bytes {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Length(len) => {
                self.len = *len;
                self.bytes.truncate(usize::try_from(*len).unwrap_or(usize::MAX));
            }
            Write::At(offset, bytes) => {
                let from = *offset as usize;
                let end = from + bytes.len();
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[from..end].copy_from_slice(bytes);
                self.len = self.len.max(end as u64);
            }
        }
    }

    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + into.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into.fill(0);
        let from = (offset as usize).min(self.bytes.len());
        let there = &self.bytes[from..self.bytes.len().min(from + into.len())];
        into[..there.len()].copy_from_slice(there);
        Ok(())
    }
}

// === impl OpenFile ===

impl OpenFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        work(self.mount.inner()?.content(self.number)?)
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.now.len))
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let mut inner = self.mount.inner()?;
        if len > inner.content(self.number)?.now.len {
            inner.space()?;
        }
        inner.content(self.number)?.write(Write::Length(len));
        Ok(())
    }

    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.mount.inner()?;
        if offset + bytes.len() as u64 > inner.content(self.number)?.now.len {
            inner.space()?;
        }
        inner.content(self.number)?.write(Write::At(offset, bytes.to_vec()));
        Ok(())
    }

    fn make_safe(&self) -> io::Result<()> {
        if self.mount.disk.world.has(Plant::EarlyAck) {
            return self.mount.inner().map(drop);
        }
        self.with(|content| {
            content.sync();
            Ok(())
        })
    }
}

impl MediaFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        self.len()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|content| content.now.read(bytes, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.put(bytes, offset)
    }

    fn set_aside(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.grow(offset + bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.make_safe()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.make_safe()
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({})", self.number)
    }
}

/// A file as a database uses it.
#[derive(Debug)]
struct Storage(OpenFile);

impl StorageBackend for Storage {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.grow(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.make_safe()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.put(data, offset)
    }
}
