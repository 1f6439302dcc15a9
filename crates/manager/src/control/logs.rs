//! Log lines of services and tasks.

use shoal_types::{Refusal, RefusalKind, ServiceId, TaskId};
use shoal_wire::logs::{LogOptions, LogSelector};

use super::{Control, no_leader};
use crate::broker::LogStream;

impl Control {
    /// The lines of a service's tasks. Order is kept within a task, not between tasks.
    ///
    /// # Errors
    /// No leader; neither stdout nor stderr is wanted.
    pub async fn service_logs(&self, service: ServiceId, options: LogOptions) -> Result<LogStream, Refusal> {
        self.logs(LogSelector { services: vec![service], tasks: Vec::new() }, options).await
    }

    /// The lines of one task.
    ///
    /// # Errors
    /// No leader; neither stdout nor stderr is wanted.
    pub async fn task_logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, Refusal> {
        self.logs(LogSelector { services: Vec::new(), tasks: vec![task] }, options).await
    }

    async fn logs(&self, selector: LogSelector, options: LogOptions) -> Result<LogStream, Refusal> {
        if !options.stdout && !options.stderr {
            let text = "must specify at least one of 'stdout' or 'stderr'";
            return Err(Refusal::engine(RefusalKind::InvalidArgument, text));
        }
        self.wait_for_leader().await?;
        let term = self.active.now().ok_or_else(no_leader)?;
        Ok(term.broker.subscribe(&self.snapshot(), selector, options))
    }
}
