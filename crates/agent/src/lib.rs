//! The part of a node that runs tasks for the cluster: a session with a manager, assignments, one driver a task, status
//! reports.
//!
//! Owns the node's durable record of what it was told to run. Leaves to others: how a container is run (`engine`, behind
//! [`executor::Executor`]), what the next step of a task is (`lifecycle`), how managers are reached (`wire::Uplink`).

mod allowance;
#[cfg(feature = "engine")]
mod container;
#[cfg(feature = "engine")]
mod engine;
pub mod executor;
mod logs;
pub mod payloads;
mod record;
mod reporter;
mod search;
mod session;
mod task;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use shoal_wire::Uplink;
use tokio::task::JoinHandle;

#[cfg(feature = "engine")]
pub use container::ContainerError;
#[cfg(feature = "engine")]
pub use engine::EngineExecutor;
use executor::Executor;
use record::{Record, RecordError};
use worker::Worker;

/// A running agent.
pub struct Agent {
    session: JoinHandle<()>,
    worker: Arc<Worker>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Agent {
    /// Resumes the tasks recorded in `state_dir`, then looks for a manager through `uplink`.
    ///
    /// # Errors
    /// The record cannot be used.
    pub fn start(state_dir: &Path, uplink: Arc<dyn Uplink>, executor: Arc<dyn Executor>) -> Result<Self, StartError> {
        std::fs::create_dir_all(state_dir)
            .map_err(|source| StartError::Directory { path: state_dir.to_owned(), source })?;
        Self::resume(Record::open(&state_dir.join("tasks.redb"))?, uplink, executor)
    }

    /// Like [`Self::start`], with the record on what `storage` gives each time that it is opened.
    ///
    /// # Errors
    /// The record cannot be used.
    pub fn start_on<S: StorageBackend>(
        storage: impl Fn() -> std::io::Result<S> + Send + Sync + 'static,
        uplink: Arc<dyn Uplink>,
        executor: Arc<dyn Executor>,
    ) -> Result<Self, StartError> {
        Self::resume(Record::open_on(storage)?, uplink, executor)
    }

    fn resume(record: Record, uplink: Arc<dyn Uplink>, executor: Arc<dyn Executor>) -> Result<Self, StartError> {
        let worker = Worker::resume(executor, record)?;
        let session = tokio::spawn(session::run(uplink, worker.clone()));
        Ok(Self { session, worker })
    }

    /// Ends the session and lets go of the tasks. Their containers go on.
    pub async fn stop(self) {
        self.session.abort();
        self.worker.release().await;
    }

    /// Ends the session, stops the tasks and removes their containers: the node has left the cluster.
    pub async fn leave(self) {
        self.session.abort();
        self.worker.remove_all().await;
    }
}
