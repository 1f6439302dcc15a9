//! Snapshots on disk: the whole state as of some place in the log, encrypted, in one file that appears at once or not.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shoal_store::{DecodeError, Decoder, Snapshot};

use crate::frame::{DataKey, Frame, HEAD, WrongKey};
use crate::media::{Cursor, Media};
use crate::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"SHOASNP1";
/// Bytes of the state in one record.
const PIECE: usize = 1024 * 1024;

/// The directory of the snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotDir {
    media: Arc<dyn Media>,
    dir: PathBuf,
    key: DataKey,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub struct Draft {
    dir: SnapshotDir,
    name: String,
    temp: PathBuf,
    /// Until it is kept.
    file: Option<BufWriter<Cursor>>,
    record: Vec<u8>,
}

/// A snapshot on disk that is read piece by piece. All clones are at the same place of it. It stays readable when the file
/// has lost its name.
#[derive(Clone)]
pub struct Pieces {
    file: Arc<Mutex<BufReader<Cursor>>>,
    path: PathBuf,
    key: DataKey,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system's answer.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The file is not whole, or not a snapshot.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Written with another key.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What it means.
        source: WrongKey,
    },
    /// Its description cannot be understood.
    #[error("{path}: {source}")]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Its content cannot be understood.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl SnapshotDir {
    /// The snapshots in `dir`, which must exist. What a crash left of an unfinished one is removed.
    pub fn open(media: Arc<dyn Media>, dir: &Path, key: DataKey) -> Result<Self, SnapshotError> {
        let this = Self { media, dir: dir.to_owned(), key };
        this.remove_files(|name| name.ends_with(".tmp")).map_err(|source| this.io(dir, source))?;
        Ok(this)
    }

    /// The newest snapshot.
    pub fn read(&self) -> Result<Option<(SnapshotMeta, Snapshot)>, SnapshotError> {
        let newest = self.list().map_err(|source| self.io(&self.dir, source))?.pop();
        newest.map(|name| self.read_file(&self.dir.join(name))).transpose()
    }

    /// The newest snapshot, to be read in pieces.
    pub fn pieces(&self) -> Result<Option<(SnapshotMeta, Pieces)>, SnapshotError> {
        let newest = self.list().map_err(|source| self.io(&self.dir, source))?.pop();
        newest.map(|name| self.open_file(&self.dir.join(name))).transpose()
    }

    /// Writes a snapshot and forgets the older ones but `keep`. Where it fails nothing of it stays.
    pub fn write(&self, meta: &SnapshotMeta, state: &Snapshot, keep: u64) -> Result<(), SnapshotError> {
        let mut draft = self.draft(meta, "")?;
        for piece in state.encode_pieces(PIECE) {
            draft.add(&piece)?;
        }
        draft.keep(keep)
    }

    /// Begins a snapshot that will be written piece by piece. Nothing of it stays unless [`Draft::keep`] is called. Two
    /// drafts of one snapshot at the same time need different `kind`s.
    pub fn draft(&self, meta: &SnapshotMeta, kind: &str) -> Result<Draft, SnapshotError> {
        let name = file_name(meta);
        let temp = self.dir.join(format!("{name}{kind}.tmp"));
        let file = self.media.create(&temp).map_err(|source| self.io(&temp, source))?;
        let file = BufWriter::new(Cursor::new(file));
        let mut draft = Draft { dir: self.clone(), name, temp, file: Some(file), record: Vec::new() };
        draft.write(|file| file.write_all(MAGIC))?;
        let meta = serde_json::to_vec(meta).map_err(|e| self.io(&draft.temp, e.into()))?;
        draft.add(&meta)?;
        Ok(draft)
    }

    /// Forgets the snapshot that `meta` describes.
    pub fn discard(&self, meta: &SnapshotMeta) -> Result<(), SnapshotError> {
        let path = self.dir.join(file_name(meta));
        self.media.remove(&path).map_err(|source| self.io(&path, source))
    }

    fn read_file(&self, path: &Path) -> Result<(SnapshotMeta, Snapshot), SnapshotError> {
        let (meta, pieces) = self.open_file(path)?;
        Ok((meta, pieces.decode()?))
    }

    fn open_file(&self, path: &Path) -> Result<(SnapshotMeta, Pieces), SnapshotError> {
        let file = self.media.open(path).map_err(|source| self.io(path, source))?;
        let mut file = BufReader::new(Cursor::new(file));
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(|source| self.io(path, source))?;
        let pieces = Pieces { file: Arc::new(Mutex::new(file)), path: path.to_owned(), key: self.key.clone() };
        let damaged = || SnapshotError::Damaged { path: path.to_owned() };
        let meta = pieces.next()?.filter(|_| &magic == MAGIC).ok_or_else(damaged)?;
        let meta = serde_json::from_slice(&meta).map_err(|source| SnapshotError::Meta { path: path.into(), source })?;
        Ok((meta, pieces))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.media.list(&self.dir)?;
        names.retain(|name| name.ends_with(".snap"));
        names.sort_unstable();
        Ok(names)
    }

    fn forget_old(&self, newest: &str, keep: u64) -> io::Result<()> {
        let mut old = self.list()?;
        old.retain(|name| name.as_str() < newest);
        let spare = old.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        old.iter().take(spare).try_for_each(|name| self.media.remove(&self.dir.join(name)))
    }

    fn remove_files(&self, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for name in self.media.list(&self.dir)?.into_iter().filter(|name| unwanted(name)) {
            self.media.remove(&self.dir.join(name))?;
        }
        Ok(())
    }

    fn io(&self, path: &Path, source: io::Error) -> SnapshotError {
        SnapshotError::Io { path: path.to_owned(), source }
    }
}

impl Draft {
    /// Adds a piece of the content.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        self.dir.key.seal(piece, &mut record);
        let written = self.write(|file| file.write_all(&record));
        self.record = record;
        written
    }

    /// Makes the snapshot safe and the newest one, and forgets the older ones but `keep`.
    pub fn keep(mut self, keep: u64) -> Result<(), SnapshotError> {
        let path = self.dir.dir.join(&self.name);
        let Some(file) = self.file.take() else { return Ok(()) };
        let save = || {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.file.sync_all()?;
            self.dir.media.rename(&self.temp, &path)?;
            self.dir.media.sync_dir(&self.dir.dir)
        };
        if let Err(source) = save() {
            self.remove();
            return Err(self.dir.io(&path, source));
        }
        // Older ones only take space; the next snapshot tries again.
        if let Err(error) = self.dir.forget_old(&self.name, keep) {
            tracing::warn!(dir = %self.dir.dir.display(), %error, "cannot remove an old snapshot");
        }
        Ok(())
    }

    fn write(&mut self, write: impl FnOnce(&mut BufWriter<Cursor>) -> io::Result<()>) -> Result<(), SnapshotError> {
        self.file.as_mut().map_or(Ok(()), write).map_err(|source| self.dir.io(&self.temp, source))
    }

    fn remove(&self) {
        if let Err(error) = self.dir.media.remove(&self.temp)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.temp.display(), %error, "cannot remove an unfinished snapshot");
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What it holds back need not be written.
            drop(file.into_parts());
            self.remove();
        }
    }
}

impl Pieces {
    /// The state that all pieces that are left make up.
    pub fn decode(&self) -> Result<Snapshot, SnapshotError> {
        let content = |source| SnapshotError::Content { path: self.path.clone(), source };
        let mut decoder = Decoder::default();
        while let Some(piece) = self.next()? {
            decoder.feed(&piece).map_err(content)?;
        }
        decoder.finish().map_err(content)
    }

    /// The next piece.
    pub fn next(&self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let mut file = self.file.lock().expect("nothing panics while it holds the file");
        let mut record = Vec::new();
        let io = |source| SnapshotError::Io { path: self.path.clone(), source };
        let mut take = |count: u64, record: &mut Vec<u8>| file.by_ref().take(count).read_to_end(record).map_err(io);
        take(HEAD as u64, &mut record)?;
        let Some(head) = record.first_chunk::<4>() else {
            return if record.is_empty() { Ok(None) } else { Err(self.damaged()) };
        };
        let len = u32::from_le_bytes(*head).into();
        take(len, &mut record)?;
        match self.key.open(&record).map_err(|source| SnapshotError::Key { path: self.path.clone(), source })? {
            Frame::Record { content, .. } => Ok(Some(content)),
            Frame::End | Frame::Torn => Err(self.damaged()),
        }
    }

    fn damaged(&self) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone() }
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pieces").field(&self.path).finish()
    }
}

/// Sorts by the place in the log.
fn file_name(meta: &SnapshotMeta) -> String {
    format!("{:016x}.snap", meta.last_log_id.map_or(0, |id| id.index))
}
