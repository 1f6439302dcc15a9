//! Containers of this node: what they are, what they are doing, and what can be done with them.
//!
//! One [`Container`] per container. Starting and removing hold its `operation` lock from beginning to end; stopping and
//! killing do not, for they wait for the end that the watcher of the supervisor reports. What a container is doing changes
//! under the short `data` lock, never held across an await.

pub(crate) mod attributes;
mod create;
pub(crate) mod exit;
mod files;
pub(crate) mod filter;
pub(crate) mod inspect;
mod kill;
mod list;
mod network;
mod pause;
mod prepare;
pub(crate) mod registry;
mod remove;
mod rename;
pub(crate) mod start;
pub(crate) mod status;
mod stop;
mod top;
mod update;
mod wait;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use shoal_bundle::{check, container as spec, log_options, merge, mounts, ports, restart};
use shoal_runtime::Supervisor;
use tokio::sync::{oneshot, watch};

use crate::attach::Waiting;
use crate::exec::Exec;
pub use files::PrivateFile;
pub use wait::Wait;

use spec::ContainerSpec;
use status::{Phase, Status};

/// A container of this node.
#[derive(Debug)]
pub(crate) struct Container {
    pub id: String,
    /// Its durable directory.
    pub dir: PathBuf,
    /// Held while it is started or removed.
    pub operation: tokio::sync::Mutex<()>,
    data: Mutex<Data>,
    /// What waiters look at.
    seen: watch::Sender<Seen>,
}

/// What is known of a container.
#[derive(Debug)]
pub(crate) struct Data {
    pub spec: Arc<ContainerSpec>,
    pub status: Status,
    /// While it is alive.
    pub supervisor: Option<Supervisor>,
    /// Attachers that came before the start.
    pub attachers: Vec<Waiting>,
    /// Exec'd processes, by id.
    pub execs: HashMap<String, Arc<Exec>>,
    /// Ends the pause before a restart by policy.
    pub restart: Option<oneshot::Sender<()>>,
    /// A person stops it, or stops and starts it: no restart by policy, and in the second case no removal.
    pub stopping: Stopping,
    /// Being removed.
    pub removing: bool,
    /// Ends the health checks of this run when dropped.
    pub health: Option<oneshot::Sender<()>>,
}

/// Why a container is being ended by a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// It is not.
    #[default]
    No,
    /// For good.
    Stop,
    /// To be started again at once.
    Restart,
}

/// What waiters look at. Counts only go up, so that nothing is missed between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub running: bool,
    /// How often it has ended, failed starts included.
    pub exits: u64,
    pub exit_code: i32,
    pub error: String,
    pub removed: bool,
}

impl Container {
    pub fn new(spec: Arc<ContainerSpec>, status: Status, dir: PathBuf) -> Arc<Self> {
        let seen = Seen {
            running: status.is_running(),
            exits: 0,
            exit_code: status.exit_code,
            error: status.error.clone(),
            removed: false,
        };
        Arc::new(Self {
            id: spec.id.clone(),
            dir,
            operation: tokio::sync::Mutex::default(),
            data: Mutex::new(Data {
                spec,
                status,
                supervisor: None,
                attachers: Vec::new(),
                execs: HashMap::new(),
                restart: None,
                stopping: Stopping::No,
                removing: false,
                health: None,
            }),
            seen: watch::Sender::new(seen),
        })
    }

    pub fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().expect("no holder panics")
    }

    pub fn spec(&self) -> Arc<ContainerSpec> {
        self.data().spec.clone()
    }

    pub fn status(&self) -> Status {
        self.data().status.clone()
    }

    pub fn phase(&self) -> Phase {
        self.data().status.phase
    }

    /// The live supervisor.
    ///
    /// # Errors
    /// 409 `container … is not running`.
    pub fn supervisor(&self) -> crate::Result<Supervisor> {
        let data = self.data();
        let alive = data.status.phase.is_alive();
        data.supervisor.clone().filter(|_| alive).ok_or_else(|| crate::Error::NotRunning(self.id.clone()))
    }

    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    pub fn see(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    /// Changes the state, writes it to the disk and shows it to waiters. A disk that refuses is reported and does not stop
    /// the container: the state in memory is the true one.
    pub fn set_status(&self, change: impl FnOnce(&mut Data)) {
        let status = {
            let mut data = self.data();
            change(&mut data);
            data.status.clone()
        };
        self.save(&status);
        self.see(|seen| seen.running = status.is_running());
    }

    /// Writes the state to the disk.
    pub fn save(&self, status: &Status) {
        if let Err(error) = status.save(&self.dir) {
            // a container that has just been removed has no directory any more
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(container = %self.id, %error, "state of a container cannot be written");
            }
        }
    }
}
