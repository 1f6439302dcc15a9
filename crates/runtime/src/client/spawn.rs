//! Starting a supervisor.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::Command;

use super::connection::{Connection, dial};
use super::{CallError, Supervisor};
use crate::job::{Job, SocketAddress};
use crate::protocol::{Op, Reply};
use crate::record::{ExitRecord, RecordError};
use crate::refusal::{LaunchError, Refusal};
use crate::seccomp::ensure_program;

/// Why a container could not be created. Nothing of it is left but the files in its two directories.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A supervisor serves this run directory.
    #[error("container {0} is already running")]
    AlreadyRunning(String),
    /// The container could not be set up.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A file or a process that the supervisor needs could not be made.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The supervisor died; this is what it wrote before.
    #[error("supervisor of container {id} died: {stderr}")]
    Died {
        /// The container.
        id: String,
        /// Its last words.
        stderr: String,
    },
    /// An old exit record is in the way.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The supervisor could not be asked.
    #[error(transparent)]
    Call(CallError),
}

impl Supervisor {
    /// Starts `exe supervise RUN_DIR` and has it create the container: everything but the command's first
    /// instruction is done when this returns. Also returns the process id of the container's first process.
    ///
    /// `exe` is the running binary, best by a path that nothing in a container can write to
    /// ([`ensure_sealed_exe`](crate::ensure_sealed_exe)). Forgets the exit record of an earlier run.
    pub async fn spawn(exe: &Path, job: &Job) -> Result<(Self, i32), SpawnError> {
        let failed = |source| SpawnError::Io { what: "connect to supervisor in", path: job.run_dir.clone(), source };
        if dial(&job.run_dir).await.map_err(failed)?.is_some() {
            return Err(SpawnError::AlreadyRunning(job.id.clone()));
        }
        let listener = prepare(job)?;
        compile_seccomp(job).await?;
        let mut child = command(exe, job, listener)?.spawn().map_err(|source| SpawnError::Io {
            what: "start supervisor",
            path: exe.to_owned(),
            source,
        })?;
        let stream = dial(&job.run_dir).await.map_err(failed)?;
        let connection = stream.map(|stream| Connection::new(&job.id, stream));
        let outcome = match &connection {
            Some(connection) => connection.call(Op::Created).await,
            None => Err(CallError::Gone(job.id.clone())),
        };
        if outcome.is_err() {
            // it takes down what it had set up, then leaves
            let path = job.run_dir.clone();
            child.wait().await.map_err(|source| SpawnError::Io { what: "wait for", path, source })?;
        } else {
            tokio::spawn(async move { child.wait().await });
        }
        match (outcome, connection) {
            (Ok(Reply::Pid(pid)), Some(connection)) => {
                Ok((Self { job: Arc::new(job.clone()), connection: Arc::new(connection) }, pid))
            }
            (Ok(_), _) => Err(SpawnError::Call(CallError::Protocol(job.id.clone()))),
            (Err(CallError::Refused(Refusal::Launch(err))), _) => Err(SpawnError::Launch(err)),
            (Err(CallError::Gone(id)), _) => {
                // it failed before it could be asked
                if let Some(ExitRecord { launch_error: Some(err), .. }) = ExitRecord::load(&job.state_dir)? {
                    return Err(SpawnError::Launch(err));
                }
                let stderr = fs::read_to_string(Job::stderr_path(&job.run_dir)).unwrap_or_default();
                Err(SpawnError::Died { id, stderr: stderr.trim().to_owned() })
            }
            (Err(other), _) => Err(SpawnError::Call(other)),
        }
    }
}

/// On a thread of its own: the first time takes a while.
async fn compile_seccomp(job: &Job) -> Result<(), SpawnError> {
    let (bundle, run_dir) = (job.bundle.clone(), job.run_dir.clone());
    let done = tokio::task::spawn_blocking(move || ensure_program(&bundle, &run_dir)).await;
    let path = job.run_dir.clone();
    done.map_err(io::Error::other).flatten().map_err(|source| SpawnError::Io {
        what: "write the seccomp program in",
        path,
        source,
    })
}

/// Directories, job file, no old record, and the socket: bound here and inherited, so that it answers from the first
/// moment of the supervisor's life to the last.
fn prepare(job: &Job) -> Result<UnixListener, SpawnError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| SpawnError::Io { what, path, source }
    };
    for dir in [&job.run_dir, &job.state_dir] {
        fs::create_dir_all(dir).map_err(io("create", dir))?;
    }
    ExitRecord::remove(&job.state_dir)?;
    let path = Job::job_path(&job.run_dir);
    let body = serde_json::to_vec(job).expect("a job has string keys only");
    fs::write(&path, body).map_err(io("write", &path))?;
    let address = SocketAddress::open(&job.run_dir).map_err(io("open", &job.run_dir))?;
    match fs::remove_file(address.path()) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(io("remove the socket in", &job.run_dir)(err)),
        _ => {}
    }
    UnixListener::bind(address.path()).map_err(io("bind a socket in", &job.run_dir))
}

fn command(exe: &Path, job: &Job, listener: UnixListener) -> Result<Command, SpawnError> {
    let path = Job::stderr_path(&job.run_dir);
    let stderr: File = OpenOptions::new().create(true).append(true).open(&path).map_err(|source| SpawnError::Io {
        what: "open",
        path,
        source,
    })?;
    let mut command = Command::new(exe);
    command
        .arg(crate::SUPERVISE)
        .arg(&job.run_dir)
        // nothing more is asked for here, so that no copy of the daemon's memory is made for the child
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr));
    Ok(command)
}
