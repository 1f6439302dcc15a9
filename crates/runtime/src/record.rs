//! How a container ended, on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::refusal::LaunchError;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// As Docker tells it: the exit code, or 128 plus the signal.
    pub code: i32,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

impl ExitStatus {
    /// A process that returned `code`.
    pub const fn exited(code: i32) -> Self {
        Self { code, signal: None }
    }

    /// A process that `signal` killed.
    pub const fn killed(signal: i32) -> Self {
        Self { code: 128 + signal, signal: Some(signal) }
    }
}

/// How a container ended. Durable (fsync, rename) before anyone is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The container.
    pub id: String,
    /// How its first process ended. 137 where the supervisor died and the container was killed for it.
    #[serde(flatten)]
    pub status: ExitStatus,
    /// The kernel killed a process of the container because its memory limit was reached.
    pub oom_killed: bool,
    /// When the command was started; `None`: never.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why the container could not be created, where that is how it ended.
    pub launch_error: Option<LaunchError>,
    /// What went wrong beside the process itself: the supervisor was killed, the log could not be written.
    pub error: Option<String>,
    /// Exec'd processes that ended, the newest 128, by exec id.
    pub execs: BTreeMap<String, ExitStatus>,
}

/// Why an exit record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("exit record {path}: {source}")]
    Io {
        /// The record's file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The content is not a record.
    #[error("exit record {path} is damaged: {source}")]
    Damaged {
        /// The record's file.
        path: PathBuf,
        /// Where it stops being one.
        source: serde_json::Error,
    },
}

impl ExitRecord {
    /// The record of the last run with this state directory; `None` while it is running or was never started.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = Job::exit_path(state_dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RecordError::Io { path, source }),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| RecordError::Damaged { path, source })
    }

    /// Writes the record so that it is there after a crash of the machine.
    pub fn save(&self, state_dir: &Path) -> Result<(), RecordError> {
        let path = Job::exit_path(state_dir);
        let bytes = serde_json::to_vec(self).map_err(|source| RecordError::Damaged { path: path.clone(), source })?;
        write_durably(&path, &bytes).map_err(|source| RecordError::Io { path, source })
    }

    /// Forgets the record of an earlier run.
    pub(crate) fn remove(state_dir: &Path) -> Result<(), RecordError> {
        let path = Job::exit_path(state_dir);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RecordError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

/// Content first, then the name: a reader sees the old file, none, or the whole new one.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let mut file = File::create(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&tmp, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk_and_is_absent_after_removal() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap(), None);
        let record = ExitRecord {
            id: "c1".into(),
            status: ExitStatus::killed(9),
            oom_killed: true,
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
            launch_error: None,
            error: None,
            execs: BTreeMap::from([("e1".into(), ExitStatus::exited(3))]),
        };
        record.save(dir.path()).unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap(), Some(record));
        ExitRecord::remove(dir.path()).unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_an_error_and_not_an_exit() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(Job::exit_path(dir.path()), b"{\"id\":").unwrap();
        assert!(matches!(ExitRecord::load(dir.path()), Err(RecordError::Damaged { .. })));
    }
}
