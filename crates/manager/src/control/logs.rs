//! Log lines of services and tasks.

use shoal_types::{Refusal, RefusalKind, ServiceId, TaskId};
use shoal_wire::logs::{LogOptions, LogSelector};

use super::Control;
use crate::broker::{LogStream, Source};

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
        let source = Source { raft: self.raft.clone(), active: self.active.clone(), dial: self.way.dial.clone() };
        source.stream(selector, options).await
    }
}
