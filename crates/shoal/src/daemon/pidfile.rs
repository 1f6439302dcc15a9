//! The file that names the daemon's process. It is locked while the daemon lives, so a stale one never matters.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

/// How long the last child of a daemon that was killed may take to let go of its parent's locks.
const LAST_CHILD: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// A claimed file; removed when dropped.
pub struct Pidfile {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Why the file cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    #[error("pidfile {path} belongs to a daemon that is running (process {holder})")]
    Held { path: PathBuf, holder: String },
    #[error("cannot use pidfile {path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

impl Pidfile {
    /// Claims `path` for this process.
    ///
    /// # Errors
    /// A live daemon has it, or it cannot be written.
    pub fn claim(path: &Path) -> Result<Self, PidfileError> {
        let failed = |source| PidfileError::File { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut lock = lock(file).map_err(|()| PidfileError::Held {
            path: path.to_owned(),
            holder: std::fs::read_to_string(path).unwrap_or_default().trim().to_owned(),
        })?;
        lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

/// Takes the lock. A daemon that was killed while it started a supervisor leaves a child that has every lock of its parent
/// until it has become that supervisor: that much is waited for.
fn lock(mut file: File) -> Result<Flock<File>, ()> {
    let deadline = Instant::now() + LAST_CHILD;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() > deadline => return Err(()),
            Err((back, _)) => file = back,
        }
        std::thread::sleep(PAUSE);
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}
