//! What lies where under `<data-root>/swarm` (in the spirit of swarm-semantics 8.3).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::addresses::{Addresses, Asked};

/// The directory of this node's part in a swarm.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

/// What the user said when the node began, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// What the user said. Asked anew of the machine at each start: an address may change.
    pub asked: Asked,
    /// What applied last; applies where the machine cannot say (its network is not up yet).
    pub addresses: Addresses,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system's answer.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Paths {
    /// Under `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Key, certificate and root certificate.
    pub fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    /// Log and snapshots.
    pub fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// What the agent keeps.
    pub fn worker(&self) -> PathBuf {
        self.root.join("worker")
    }

    fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    fn raft_key(&self) -> PathBuf {
        self.certificates().join("raft.key")
    }

    /// What was saved; `None` where nothing was.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn load(&self) -> Result<Option<Saved>, FileError> {
        let path = self.state();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| FileError::Damaged { path }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Io { path, source }),
        }
    }

    /// Saves it.
    ///
    /// # Errors
    /// [`FileError`]; what was saved before is still there.
    pub fn save(&self, saved: &Saved) -> Result<(), FileError> {
        let bytes = serde_json::to_vec_pretty(saved).expect("texts and numbers only");
        self.make(&self.root)?;
        self.write(self.state(), &bytes)
    }

    /// The key that the log is encrypted with; made where there is none and no log either.
    ///
    /// # Errors
    /// [`FileError`], also where there is a log whose key is missing.
    pub fn data_key(&self) -> Result<[u8; 32], FileError> {
        let path = self.raft_key();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let mut key = [0; 32];
                hex::decode_to_slice(text.trim(), &mut key).map_err(|_| FileError::Damaged { path })?;
                Ok(key)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.raft().exists() => {
                let key: [u8; 32] = rand::random();
                self.make(&self.certificates())?;
                self.write(path, hex::encode(key).as_bytes())?;
                Ok(key)
            }
            Err(source) => Err(FileError::Io { path, source }),
        }
    }

    /// Removes everything, the certificate first: without it, the next start goes on removing.
    ///
    /// # Errors
    /// [`FileError`]; some of it may be gone.
    pub fn wipe(&self) -> Result<(), FileError> {
        for path in [self.certificates(), self.raft(), self.worker(), self.state()] {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|source| FileError::Io { path, source })?,
            }
        }
        Ok(())
    }

    fn make(&self, dir: &Path) -> Result<(), FileError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| FileError::Io { path: dir.to_owned(), source })
    }

    fn write(&self, path: PathBuf, content: &[u8]) -> Result<(), FileError> {
        write_durably(&path, content, 0o600).map_err(|source| FileError::Io { path, source })
    }
}

/// Writes a file so that after a crash there is the old one or the new one, never half of one.
///
/// # Errors
/// What the system says; the old file is still there.
pub(crate) fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
