//! What a supervisor answers when it cannot do what it was asked.

use serde::{Deserialize, Serialize};

/// Why a container or an exec'd process could not be brought to run its command. The texts of the first two are the
/// ones that Docker's clients look for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum LaunchError {
    /// `exec: "nosuch": executable file not found in $PATH`, or `exec: "/nosuch": stat /nosuch: no such file or
    /// directory`.
    #[error("{0}")]
    CommandNotFound(String),
    /// `exec: "/etc/passwd": permission denied`, or `… is a directory`.
    #[error("{0}")]
    CommandNotExecutable(String),
    /// The working directory is not there and is not a directory.
    #[error("{0}")]
    WorkingDirectory(String),
    /// Namespaces, mounts, limits, devices: what the kernel or the container library said, cause by cause.
    #[error("{0}")]
    Setup(String),
    /// The OCI configuration cannot be read or asks for something that cannot be.
    #[error("{0}")]
    Config(String),
}

impl LaunchError {
    /// The exit code that Docker gives such a container: 127, 126 or 128.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound(_) => 127,
            Self::CommandNotExecutable(_) => 126,
            Self::WorkingDirectory(_) | Self::Setup(_) | Self::Config(_) => 128,
        }
    }
}

/// A request that the supervisor turned down; the container is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The command could not be run.
    #[error(transparent)]
    Launch(LaunchError),
    /// [`start`](crate::Supervisor::start) came twice.
    #[error("container {0} is already started")]
    AlreadyStarted(String),
    /// It has not been started or has ended.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// It is paused, and a paused container can run nothing.
    #[error("container {0} is paused")]
    Paused(String),
    /// Resume without pause.
    #[error("container {0} is not paused")]
    NotPaused(String),
    /// No such exec'd process.
    #[error("no such exec instance: {0}")]
    NoSuchExec(String),
    /// The exec id is taken.
    #[error("exec instance {0} exists")]
    ExecExists(String),
    /// A size for a process that has no terminal.
    #[error("{0} has no terminal")]
    NoTerminal(String),
    /// A system call failed.
    #[error("{what}: {error}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The kernel's word for it.
        error: String,
    },
}
