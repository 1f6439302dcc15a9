//! What callers ask for beside Docker's own bodies, and what they get back beside them.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

/// Filters of a list or of events: names to accepted values.
pub type Filters = BTreeMap<String, Vec<String>>;

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What was accepted but will not be as asked on this machine.
    pub warnings: Vec<String>,
}

/// How to stop a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// `None`: the container's stop signal.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; negative: never. `None`: the container's, else 10.
    pub timeout: Option<i64>,
}

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run (already, perhaps).
    #[default]
    NotRunning,
    /// It ends the next time.
    NextExit,
    /// It is gone.
    Removed,
}

impl WaitCondition {
    /// From the query parameter; absent or empty means `not-running`.
    ///
    /// # Errors
    /// 400 with Docker's text where it is none of them.
    pub fn parse(text: &str) -> crate::Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(crate::Error::invalid(format!("invalid condition: {text:?}"))),
        }
    }
}

/// Which containers to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// At most so many, newest first, running or not; `None` or not positive: no limit.
    pub limit: Option<i64>,
    /// With the sizes of their file systems.
    pub size: bool,
    /// Docker's: ancestor, before, exited, expose, health, id, is-task, isolation, label, name, network, publish, since,
    /// status, volume.
    pub filters: Filters,
}

/// Which part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsOptions {
    /// What was written to stdout (on a terminal: everything).
    pub stdout: bool,
    /// What was written to stderr.
    pub stderr: bool,
    /// From this time.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
    /// Only the last so many lines; `None`: all.
    pub tail: Option<u64>,
    /// Go on until the container ends.
    pub follow: bool,
}

/// A piece of log, at most one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written.
    pub stream: StdStream,
    /// When.
    pub time: Timestamp,
    /// Bytes with the line feed, if there was one (a line of more than 16 KiB comes in parts).
    pub line: Bytes,
    /// Attributes from the log options `labels`, `env`, `tag`.
    pub attrs: BTreeMap<String, String>,
}

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How to attach to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// First what the log has.
    pub logs: bool,
    /// Then what is written from now on.
    pub stream: bool,
    /// Send input.
    pub stdin: bool,
    /// Receive stdout.
    pub stdout: bool,
    /// Receive stderr.
    pub stderr: bool,
    /// Keys that detach (`ctrl-p,ctrl-q`); `None` or empty: those.
    pub detach_keys: Option<String>,
}

/// How to start an exec'd process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecStartOptions {
    /// Height and width of the terminal in character cells.
    pub console_size: Option<(u64, u64)>,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventsOptions {
    /// From this time, as far as they are still known.
    pub since: Option<Timestamp>,
    /// Up to this time; then the stream ends.
    pub until: Option<Timestamp>,
    /// Docker's: config, container, daemon, event, image, label, network, node, scope, secret, service, type, volume.
    pub filters: Filters,
}

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ImageListOptions {
    /// Also count the bytes that images share.
    pub shared_size: bool,
    /// Docker's: before, dangling, label, reference, since, until.
    pub filters: Filters,
}

/// What other parts of the node say about it, for `info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerCounts {
    /// All.
    pub total: usize,
    /// Running, paused ones not among them.
    pub running: usize,
    /// Paused.
    pub paused: usize,
    /// The rest.
    pub stopped: usize,
}
