//! What lies where under `<data-root>/swarm` (in the spirit of swarm-semantics 8.3).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
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
    /// A manager that the node joined by: the address that the machine uses towards it is the one to advertise.
    #[serde(default)]
    pub toward: Option<SocketAddr>,
    /// The managers that the user named: they count until the node has heard which there are.
    #[serde(default)]
    pub remotes: Vec<String>,
    /// Those of these addresses that the machine has had: one that is gone from it has moved, one that never was there is
    /// translated by others.
    #[serde(default)]
    pub own: Vec<IpAddr>,
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

    /// The managers that are known.
    pub fn managers(&self) -> PathBuf {
        self.root.join("managers.json")
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

    /// Removes log and snapshots: this node is no manager any more.
    ///
    /// # Errors
    /// [`FileError`]; some of it may be gone.
    pub fn forget_raft(&self) -> Result<(), FileError> {
        remove(&self.raft())
    }

    /// Removes everything, the certificates first and all at once: without them, the next start goes on removing.
    ///
    /// # Errors
    /// [`FileError`]; some of it may be gone.
    pub fn wipe(&self) -> Result<(), FileError> {
        let gone = self.root.join("certificates.old");
        remove(&gone)?;
        match std::fs::rename(self.certificates(), &gone) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::Io { path: self.certificates(), source: e });
            }
            _ => {}
        }
        let all = [gone, self.raft(), self.worker(), self.managers(), self.state()];
        all.iter().try_for_each(|path| remove(path))
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

/// Removes a file or a directory with all that is in it; nothing where it is not there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| FileError::Io { path: path.to_owned(), source }),
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
