//! What runs the containers of tasks, as the agent needs it. The engine behind it is in [`crate::engine`]; tests and the
//! simulator bring their own.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use shoal_lifecycle::{Action, Facts, Failure};
use shoal_types::object::NodeDescription;
use shoal_types::{Task, TaskId};
use shoal_wire::logs::{LogLine, LogOptions};

/// What became of an action, and what is known of the container after it.
pub type Outcome = (Result<(), Failure>, Facts);

/// Runs containers. Every future may be dropped at any time, and the same asked for again.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What this node is.
    async fn describe(&self) -> NodeDescription;

    /// Does `action` for `task`, or what is left to do of it. A container that ran and ended is not started again.
    async fn act(&self, action: Action, task: &Task) -> Outcome;

    /// Removes the container of a task with all that belongs to it; nothing where there is none.
    async fn remove(&self, task: TaskId) -> Result<(), Failure>;

    /// Tasks that have a container here, whoever wants them.
    async fn present(&self) -> Vec<TaskId>;

    /// The log lines of a task; none where it has no container.
    async fn logs(&self, task: Arc<Task>, options: LogOptions) -> Result<BoxStream<'static, LogLine>, Failure>;
}
