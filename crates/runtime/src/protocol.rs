//! The words spoken on a supervisor's socket.
//!
//! A connection carries frames: one byte of kind, four bytes of length (little endian), the payload. Kind 0 is JSON:
//! a [`Request`] from the client, an [`Answer`] from the supervisor. Kinds 1 to 3 are stdin, stdout and stderr of a
//! connection that an [`Op::Attach`] or [`Op::Exec`] has turned into a stream; an empty stdin frame is the end of input. Both ends are the same binary most of
//! the time, but not after an upgrade of the daemon: fields are only added, and unknown ones are ignored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use oci_spec::runtime::{LinuxResources, Process};
use serde::{Deserialize, Serialize};

use crate::job::ConsoleSize;
use crate::record::{ExitRecord, ExitStatus};
use crate::refusal::Refusal;

pub(crate) const MESSAGE: u8 = 0;
pub(crate) const STDIN: u8 = 1;
pub(crate) const STDOUT: u8 = 2;
pub(crate) const STDERR: u8 = 3;
/// Bytes of a frame before its payload.
pub(crate) const HEADER: usize = 5;
/// No frame is longer; a longer one is a broken peer.
pub(crate) const MAX_FRAME: usize = 16 << 20;

/// The header of a frame.
pub(crate) fn header(kind: u8, len: usize) -> [u8; HEADER] {
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&u32::try_from(len).expect("frames are at most MAX_FRAME long").to_le_bytes());
    head
}

/// Kind and length from a frame's header; `None`: not a frame.
pub(crate) fn parse_header(head: [u8; HEADER]) -> Option<(u8, usize)> {
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (head[0] <= STDERR && len <= MAX_FRAME).then_some((head[0], len))
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Chosen by the client, repeated in the answer.
    pub id: u64,
    pub op: Op,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    /// Answered once the container has been created.
    Created,
    Start,
    Status,
    /// Answered once the container has ended.
    Wait,
    Signal {
        target: Target,
        signal: i32,
    },
    Pause,
    Resume,
    Resize {
        target: Target,
        size: ConsoleSize,
    },
    CloseStdin {
        target: Target,
    },
    Update {
        resources: Box<LinuxResources>,
    },
    /// Turns the connection into a stream.
    Attach {
        target: Target,
        options: AttachOptions,
    },
    /// Starts a process; with options, the connection becomes its stream.
    Exec {
        spec: Box<ExecSpec>,
        attach: Option<AttachOptions>,
    },
    /// Answered once the exec'd process has ended.
    ExecWait {
        exec: String,
    },
    /// Answered when the kernel has killed a process of the container for memory, again and again.
    WatchOom,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub id: u64,
    pub result: Result<Reply, Refusal>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Pid(i32),
    Status(Box<Status>),
    Ended(Box<ExitRecord>),
    ExecEnded(ExitStatus),
    Oom,
}

/// A process that the supervisor owns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The container's first process.
    Main,
    /// An exec'd process, by exec id.
    Exec(String),
}

/// Which streams an attacher wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOptions {
    /// Send input.
    pub stdin: bool,
    /// Receive stdout (on a terminal: everything).
    pub stdout: bool,
    /// Receive stderr.
    pub stderr: bool,
}

/// A process to run in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The exec id, unique in this run of the container.
    pub id: String,
    /// Arguments, environment, directory, user with its groups, capabilities, terminal: as in the OCI config.
    /// The container's seccomp profile applies, as it does in Docker.
    pub process: Process,
    /// Give the process a stdin that an attacher writes to. Without it, it reads `/dev/null`.
    pub open_stdin: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The supervisor is setting it up.
    Creating,
    /// Set up; the command has not been started.
    Created,
    /// The command runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// The command has ended; the supervisor is about to leave.
    Ended,
}

/// What a supervisor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The container.
    pub id: String,
    /// Where it is in its life.
    pub state: State,
    /// Process id of the container's first process, in the supervisor's pid namespace.
    pub pid: Option<i32>,
    /// When the command was started.
    pub started_at: Option<Timestamp>,
    /// A process of the container has been killed for memory.
    pub oom_killed: bool,
    /// Exec'd processes: the running ones and the newest ended ones.
    pub execs: BTreeMap<String, ExecState>,
}

/// An exec'd process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// Being set up.
    Starting,
    /// Running under this process id.
    Running(i32),
    /// Ended.
    Ended(ExitStatus),
}
