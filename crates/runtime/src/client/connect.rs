//! Finding a supervisor again, or what it left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::connection::{Connection, dial};
use super::{CallError, Supervisor};
use crate::cgroup::{self, CgroupError};
use crate::job::Job;
use crate::protocol::{Op, Status};
use crate::record::{ExitRecord, ExitStatus, RecordError};

/// A supervisor that is alive answers at once; one that does not within this time is stopped or broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has become of a container.
#[derive(Debug)]
pub enum Connected {
    /// It has not ended.
    Alive(Supervisor, Box<Status>),
    /// It has ended.
    Ended(Box<ExitRecord>),
}

/// Why nothing can be said about a container.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Never started, or the machine was started anew since.
    #[error("no container was started in {0}")]
    NoJob(PathBuf),
    /// The job file cannot be read.
    #[error("job file {path}: {source}")]
    Job {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor is there and does not answer.
    #[error("supervisor of container {0} does not answer")]
    Silent(String),
    /// The supervisor could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Supervisor {
    /// Finds the supervisor that an earlier daemon started in this run directory, or the exit record that it left.
    ///
    /// Where the supervisor was killed, there is neither. The processes of its container are then without log and
    /// without a parent: they are killed by their control group, and a record with code 137 and an error is written.
    pub async fn connect(run_dir: &Path) -> Result<Connected, ConnectError> {
        let job = load_job(run_dir)?;
        let failed = |err| CallError::Io { id: job.id.clone(), source: err };
        match dial(run_dir).await.map_err(failed)? {
            Some(stream) => {
                let connection = Arc::new(Connection::new(&job.id, stream));
                let supervisor = Self { job: Arc::new(job), connection };
                let id = || supervisor.job.id.clone();
                match tokio::time::timeout(PATIENCE, supervisor.status()).await {
                    Err(_) => Err(ConnectError::Silent(id())),
                    Ok(Ok(status)) => Ok(Connected::Alive(supervisor, Box::new(status))),
                    Ok(Err(CallError::Gone(_))) => Ok(Connected::Ended(Box::new(ensure_ended(&supervisor.job).await?))),
                    Ok(Err(other)) => Err(other.into()),
                }
            }
            None => Ok(Connected::Ended(Box::new(ensure_ended(&job).await?))),
        }
    }
}

fn load_job(run_dir: &Path) -> Result<Job, ConnectError> {
    let path = Job::job_path(run_dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(ConnectError::NoJob(run_dir.to_owned())),
        Err(source) => return Err(ConnectError::Job { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|err| ConnectError::Job { path, source: err.into() })
}

/// The record of a container whose supervisor has left; made here if it left none. A supervisor that is still there
/// is an error: its container lives.
pub(super) async fn ensure_ended(job: &Job) -> Result<ExitRecord, CallError> {
    if let Some(record) = ExitRecord::load(&job.state_dir)? {
        return Ok(record);
    }
    let io = |source| CallError::Io { id: job.id.clone(), source };
    if let Some(stream) = dial(&job.run_dir).await.map_err(io)? {
        let connection = Connection::new(&job.id, stream);
        // a dying one takes connections to its last moment, but answers none
        match tokio::time::timeout(PATIENCE, connection.call(Op::Status)).await {
            Ok(Err(CallError::Gone(_))) => {}
            _ => return Err(io(io::ErrorKind::ConnectionAborted.into())),
        }
    }
    // it may have left in between
    if let Some(record) = ExitRecord::load(&job.state_dir)? {
        return Ok(record);
    }
    let job = job.clone();
    let id = job.id.clone();
    match spawn_blocking(move || apply_orphan_end(&job)).await {
        Ok(record) => Ok(record?),
        Err(err) => Err(CallError::Io { id, source: io::Error::other(err) }),
    }
}

fn apply_orphan_end(job: &Job) -> Result<ExitRecord, RecordError> {
    let oom_killed = cgroup::oom_kills(&job.cgroup) > 0;
    let cleanup: Result<(), CgroupError> = cgroup::kill(&job.cgroup).and_then(|()| cgroup::remove(&job.cgroup));
    let mut error = "the container's supervisor was killed".to_owned();
    if let Err(err) = cleanup {
        error.push_str(&format!(", and its processes may be left: {err}"));
    }
    let record = ExitRecord {
        id: job.id.clone(),
        status: ExitStatus::killed(libc::SIGKILL),
        oom_killed,
        started_at: None,
        finished_at: Timestamp::now(),
        launch_error: None,
        error: Some(error),
        execs: Default::default(),
    };
    record.save(&job.state_dir)?;
    Ok(record)
}
