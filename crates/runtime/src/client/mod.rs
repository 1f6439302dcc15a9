//! The daemon's side: starts supervisors, finds them again, talks to them.
//!
//! A [`Supervisor`] holds one connection for requests; each attach and each exec has one of its own. Losing a
//! connection means that the supervisor has left, for nothing else closes it.

mod attach;
mod connect;
mod connection;
mod spawn;

use std::sync::Arc;

use oci_spec::runtime::LinuxResources;

pub use attach::{AttachReader, AttachStream, AttachWriter, Frame};
pub use connect::{ConnectError, Connected};
use connection::{Connection, dial};
pub use spawn::SpawnError;

use crate::job::{ConsoleSize, Job};
use crate::protocol::{AttachOptions, ExecSpec, Op, Reply, Status, Target};
use crate::record::{ExitRecord, ExitStatus, RecordError};
use crate::refusal::Refusal;

/// A live supervisor. Clones share one connection; dropping the last one leaves the container running.
#[derive(Debug, Clone)]
pub struct Supervisor {
    job: Arc<Job>,
    connection: Arc<Connection>,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The supervisor said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The supervisor has left: the container has ended. [`Supervisor::wait`] tells how.
    #[error("container {0} has ended")]
    Gone(String),
    /// The socket failed otherwise.
    #[error("supervisor of container {id}: {source}")]
    Io {
        /// The container.
        id: String,
        /// What the socket said.
        source: std::io::Error,
    },
    /// The peer does not speak the protocol.
    #[error("supervisor of container {0} gave an answer that makes no sense")]
    Protocol(String),
    /// The exit record is needed and cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Supervisor {
    /// What it was started with.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Waits until the container has been created and gives the process id of its first process. For a supervisor that
    /// [`connect`](Self::connect) found in the state [`Creating`](crate::State::Creating).
    pub async fn created(&self) -> Result<i32, CallError> {
        match self.connection.call(Op::Created).await? {
            Reply::Pid(pid) => Ok(pid),
            _ => Err(self.nonsense()),
        }
    }

    /// Starts the command of a created container. Once only.
    pub async fn start(&self) -> Result<(), CallError> {
        self.done(Op::Start).await
    }

    /// Where the container is in its life.
    pub async fn status(&self) -> Result<Status, CallError> {
        match self.connection.call(Op::Status).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(self.nonsense()),
        }
    }

    /// Waits for the end. The log is complete and the record on disk before this returns; also when the supervisor
    /// was killed, in which case the container is killed too and the record says so.
    pub async fn wait(&self) -> Result<ExitRecord, CallError> {
        let mut answer = self.connection.call(Op::Wait).await;
        while let Err(CallError::Gone(_)) = answer {
            // the connection was lost; only if there is no supervisor to connect to again, it has left
            let failed = |source| CallError::Io { id: self.job.id.clone(), source };
            match dial(&self.job.run_dir).await.map_err(failed)? {
                Some(stream) => answer = Connection::new(&self.job.id, stream).call(Op::Wait).await,
                None => return connect::ensure_ended(&self.job).await,
            }
        }
        match answer? {
            Reply::Ended(record) => Ok(*record),
            _ => Err(self.nonsense()),
        }
    }

    /// Sends a signal to the container's first process or to an exec'd one. `SIGKILL` reaches a paused container too.
    pub async fn signal(&self, target: Target, signal: i32) -> Result<(), CallError> {
        self.done(Op::Signal { target, signal }).await
    }

    /// Freezes all processes.
    pub async fn pause(&self) -> Result<(), CallError> {
        self.done(Op::Pause).await
    }

    /// Undoes [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<(), CallError> {
        self.done(Op::Resume).await
    }

    /// Sets the size of a terminal; its processes get `SIGWINCH`.
    pub async fn resize(&self, target: Target, size: ConsoleSize) -> Result<(), CallError> {
        self.done(Op::Resize { target, size }).await
    }

    /// Ends the input of a process whatever its attachers do.
    pub async fn close_stdin(&self, target: Target) -> Result<(), CallError> {
        self.done(Op::CloseStdin { target }).await
    }

    /// Changes limits; what `resources` leaves out stays.
    pub async fn update(&self, resources: LinuxResources) -> Result<(), CallError> {
        self.done(Op::Update { resources: Box::new(resources) }).await
    }

    /// A stream of what a process writes from now on, and its input. Any number at once. Dropping it detaches.
    pub async fn attach(&self, target: Target, options: AttachOptions) -> Result<AttachStream, CallError> {
        AttachStream::open(&self.job, Op::Attach { target, options }).await.map(|(stream, _)| stream)
    }

    /// Starts a process in the running container with nobody attached: its output is thrown away. Returns its
    /// process id once the command has been started.
    pub async fn exec(&self, spec: ExecSpec) -> Result<i32, CallError> {
        match self.connection.call(Op::Exec { spec: Box::new(spec), attach: None }).await? {
            Reply::Pid(pid) => Ok(pid),
            _ => Err(self.nonsense()),
        }
    }

    /// Starts a process and attaches to it before it writes its first byte. Returns the stream and the process id.
    /// The process outlives the stream, and the daemon.
    pub async fn exec_attached(
        &self,
        spec: ExecSpec,
        options: AttachOptions,
    ) -> Result<(AttachStream, i32), CallError> {
        let op = Op::Exec { spec: Box::new(spec), attach: Some(options) };
        match AttachStream::open(&self.job, op).await? {
            (stream, Reply::Pid(pid)) => Ok((stream, pid)),
            _ => Err(self.nonsense()),
        }
    }

    /// Waits for an exec'd process. One that ended earlier is remembered, also past the end of the container.
    pub async fn exec_wait(&self, exec: &str) -> Result<ExitStatus, CallError> {
        match self.connection.call(Op::ExecWait { exec: exec.to_owned() }).await {
            Ok(Reply::ExecEnded(status)) => Ok(status),
            Ok(_) => Err(self.nonsense()),
            Err(CallError::Gone(_)) => {
                let record = connect::ensure_ended(&self.job).await?;
                let status = record.execs.get(exec).copied();
                status.ok_or_else(|| Refusal::NoSuchExec(exec.to_owned()).into())
            }
            Err(other) => Err(other),
        }
    }

    /// Returns when the kernel has killed a process of the container for memory since the last call, or since the
    /// start; never, if that does not happen while the container lives.
    pub async fn oom(&self) -> Result<(), CallError> {
        match self.connection.call(Op::WatchOom).await? {
            Reply::Oom => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    async fn done(&self, op: Op) -> Result<(), CallError> {
        match self.connection.call(op).await? {
            Reply::Done => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    fn nonsense(&self) -> CallError {
        CallError::Protocol(self.job.id.clone())
    }
}
