//! Snapshots on disk: the whole state as of some place in the log, encrypted, in one file that appears at once or not.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use shoal_store::{DecodeError, Decoder, Snapshot};

use crate::frame::{DataKey, Frame, HEAD, WrongKey};
use crate::log::sync_dir;
use crate::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"SHOASNP1";
/// Bytes of the state in one record.
const PIECE: usize = 256 * 1024;

/// The directory of the snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotDir {
    dir: PathBuf,
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
    pub fn open(dir: &Path, key: DataKey) -> Result<Self, SnapshotError> {
        let this = Self { dir: dir.to_owned(), key };
        this.remove_files(|name| name.ends_with(".tmp")).map_err(|source| this.io(dir, source))?;
        Ok(this)
    }

    /// The newest snapshot.
    pub fn read(&self) -> Result<Option<(SnapshotMeta, Snapshot)>, SnapshotError> {
        let newest = self.list().map_err(|source| self.io(&self.dir, source))?.pop();
        newest.map(|name| self.read_file(&self.dir.join(name))).transpose()
    }

    /// Writes a snapshot and forgets the older ones but `keep`. Where it fails nothing of it stays.
    pub fn write(&self, meta: &SnapshotMeta, state: &Snapshot, keep: u64) -> Result<(), SnapshotError> {
        let name = format!("{:016x}.snap", meta.last_log_id.map_or(0, |id| id.index));
        let (path, temp) = (self.dir.join(&name), self.dir.join(format!("{name}.tmp")));
        let write = || {
            self.write_file(&temp, meta, state)?;
            std::fs::rename(&temp, &path)?;
            sync_dir(&self.dir)
        };
        if let Err(source) = write() {
            if let Err(error) = std::fs::remove_file(&temp)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %temp.display(), %error, "cannot remove an unfinished snapshot");
            }
            return Err(self.io(&path, source));
        }
        // Older ones only take space; the next snapshot tries again.
        if let Err(error) = self.forget_old(&name, keep) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove an old snapshot");
        }
        Ok(())
    }

    fn write_file(&self, path: &Path, meta: &SnapshotMeta, state: &Snapshot) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(MAGIC)?;
        let mut record = Vec::new();
        self.key.seal(&serde_json::to_vec(meta)?, &mut record);
        file.write_all(&record)?;
        for piece in state.encode_pieces(PIECE) {
            record.clear();
            self.key.seal(&piece, &mut record);
            file.write_all(&record)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    fn read_file(&self, path: &Path) -> Result<(SnapshotMeta, Snapshot), SnapshotError> {
        let mut file = BufReader::new(File::open(path).map_err(|source| self.io(path, source))?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(|source| self.io(path, source))?;
        let damaged = || SnapshotError::Damaged { path: path.to_owned() };
        let meta = self.next(path, &mut file)?.filter(|_| &magic == MAGIC).ok_or_else(damaged)?;
        let meta = serde_json::from_slice(&meta).map_err(|source| SnapshotError::Meta { path: path.into(), source })?;
        let content = |source| SnapshotError::Content { path: path.to_owned(), source };
        let mut decoder = Decoder::default();
        while let Some(piece) = self.next(path, &mut file)? {
            decoder.feed(&piece).map_err(content)?;
        }
        Ok((meta, decoder.finish().map_err(content)?))
    }

    fn next(&self, path: &Path, file: &mut impl Read) -> Result<Option<Vec<u8>>, SnapshotError> {
        let mut record = Vec::new();
        let mut take = |count: u64, record: &mut Vec<u8>| {
            file.by_ref().take(count).read_to_end(record).map_err(|source| self.io(path, source))
        };
        take(HEAD as u64, &mut record)?;
        let Some(head) = record.first_chunk::<4>() else {
            return if record.is_empty() { Ok(None) } else { Err(SnapshotError::Damaged { path: path.to_owned() }) };
        };
        let len = u32::from_le_bytes(*head).into();
        take(len, &mut record)?;
        match self.key.open(&record).map_err(|source| SnapshotError::Key { path: path.to_owned(), source })? {
            Frame::Record { content, .. } => Ok(Some(content)),
            Frame::End | Frame::Torn => Err(SnapshotError::Damaged { path: path.to_owned() }),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in std::fs::read_dir(&self.dir)? {
            names.extend(file?.file_name().into_string().ok().filter(|name| name.ends_with(".snap")));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn forget_old(&self, newest: &str, keep: u64) -> io::Result<()> {
        let mut old = self.list()?;
        old.retain(|name| name.as_str() < newest);
        let spare = old.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        old.iter().take(spare).try_for_each(|name| std::fs::remove_file(self.dir.join(name)))
    }

    fn remove_files(&self, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for file in std::fs::read_dir(&self.dir)? {
            let file = file?;
            if file.file_name().to_str().is_some_and(&unwanted) {
                std::fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    fn io(&self, path: &Path, source: io::Error) -> SnapshotError {
        SnapshotError::Io { path: path.to_owned(), source }
    }
}
