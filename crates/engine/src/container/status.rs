//! What a container is doing: kept in memory, and in `state.json` beside its log so that a new daemon knows it.
//!
//! The file is replaced by rename and not flushed: a crash of the daemon loses nothing, a crash of the machine ends
//! every container and leaves an older state at worst, which adoption corrects from the supervisor's exit record.

use std::fs;
use std::io;
use std::path::Path;

use bollard_stubs::models::ContainerStateStatusEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shoal_network::Endpoint;

use crate::health::HealthState;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Never started.
    #[default]
    Created,
    /// The command runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// It ended and will be started again.
    Restarting,
    /// It ended.
    Exited,
}

/// What a container is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub phase: Phase,
    /// Of the first process, while it runs.
    pub pid: Option<i32>,
    /// Of the last run.
    pub exit_code: i32,
    /// Why the last start failed, or what went wrong beside the process.
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Restarts by policy since a person started it.
    pub restart_count: u32,
    /// The pause before the last restart by policy, in milliseconds.
    pub backoff_ms: u64,
    /// It ended with the machine: it neither came to an end of its own nor failed.
    pub lost: bool,
    /// A person stopped or killed it: `unless-stopped` leaves it so at the next start of the daemon.
    pub manually_stopped: bool,
    /// Its place in the network, while it has one.
    pub endpoint: Option<Endpoint>,
    pub health: Option<HealthState>,
}

impl Phase {
    /// Docker's word.
    pub fn status(self) -> ContainerStateStatusEnum {
        match self {
            Self::Created => ContainerStateStatusEnum::CREATED,
            Self::Running => ContainerStateStatusEnum::RUNNING,
            Self::Paused => ContainerStateStatusEnum::PAUSED,
            Self::Restarting => ContainerStateStatusEnum::RESTARTING,
            Self::Exited => ContainerStateStatusEnum::EXITED,
        }
    }

    /// Whether there is a process.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

impl Status {
    /// Docker's `State.Running`: true between restarts too.
    pub fn is_running(&self) -> bool {
        self.phase.is_alive() || self.phase == Phase::Restarting
    }

    /// Reads the file. One that is not there or damaged says that the container never ran.
    pub fn load(dir: &Path) -> Self {
        let path = dir.join("state.json");
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "state of a container cannot be read");
                }
                return Self::default();
            }
        };
        serde_json::from_slice(&content).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "state of a container is damaged");
            Self::default()
        })
    }

    /// Replaces the file.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let (path, temp) = (dir.join("state.json"), dir.join("state.tmp"));
        fs::write(&temp, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        fs::rename(&temp, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_daemon_and_a_torn_one_means_never_started() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Status::load(dir.path()), Status::default());
        let status = Status { phase: Phase::Running, pid: Some(7), restart_count: 2, ..Status::default() };
        status.save(dir.path()).unwrap();
        assert_eq!(Status::load(dir.path()), status);
        fs::write(dir.path().join("state.json"), b"{\"phase\":\"run").unwrap();
        assert_eq!(Status::load(dir.path()), Status::default());
    }
}
