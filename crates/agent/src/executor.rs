//! What runs the containers of tasks, as the agent needs it. The engine behind it is in [`crate::engine`]; tests and the
//! simulator bring their own.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use shoal_lifecycle::{Action, Facts, Failure};
use shoal_types::object::NodeDescription;
use shoal_types::{Task, TaskId};
use shoal_wire::logs::{LogLine, LogOptions};

use crate::payloads::Payloads;

/// What became of an action, and what is known of the container after it.
pub type Outcome = (Result<(), Failure>, Facts);

/// Runs containers. Every future may be dropped at any time, and the same asked for again.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What this node is.
    async fn describe(&self) -> NodeDescription;

    /// Waits until this node is something else than what was `said` of it, where that can be noticed; it is asked from time
    /// to time in any case.
    async fn changed(&self, said: &NodeDescription) {
        let _ = said;
        std::future::pending().await
    }

    /// Does `action` for `task`, or what is left to do of it; what the container is to have of secrets and configs is asked
    /// of `payloads` when it starts. A container that ran and ended is not started again.
    async fn act(&self, action: Action, task: &Task, payloads: &Payloads) -> Outcome;

    /// Whether the container of `task` ended with the machine that it was on, and not by itself. It is started again by the
    /// next action that needs it.
    async fn was_cut_short(&self, task: &Task) -> bool {
        let _ = task;
        false
    }

    /// Removes the container of a task with all that belongs to it; nothing where there is none.
    async fn remove(&self, task: TaskId) -> Result<(), Failure>;

    /// Tasks that have a container here, whoever wants them.
    async fn present(&self) -> Vec<TaskId>;

    /// The log lines of a task; none where it has no container.
    async fn logs(&self, task: Arc<Task>, options: LogOptions) -> Result<BoxStream<'static, LogLine>, Failure>;
}
