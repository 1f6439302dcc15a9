//! Tasks: read.

use std::sync::Arc;

use shoal_plan::UpToDate;
use shoal_store::resolve;
use shoal_types::name::task_name;
use shoal_types::{NodeId, Refusal, ServiceId, Task, TaskState, View};

use super::service::is_runtime;
use super::{Control, Filters};

impl Control {
    /// The task that `input` means.
    ///
    /// # Errors
    /// `task … not found`, `task … is ambiguous (… matches found)`.
    pub fn get_task(&self, input: &str) -> Result<Arc<Task>, Refusal> {
        resolve::task(&self.snapshot(), input).cloned()
    }

    /// The tasks that `filters` let through, in the order of identifiers. A service or node that a filter names must exist.
    ///
    /// # Errors
    /// `invalid filter '…'`; `Invalid desired-state filter: '…'`; `service … not found`; `node … not found`.
    pub fn list_tasks(&self, filters: &Filters) -> Result<Vec<Arc<Task>>, Refusal> {
        filters.accept(&["id", "name", "label", "service", "node", "desired-state", "runtime", "_up-to-date"])?;
        let view = self.snapshot();
        let services = resolved(filters.values("service"), |input| Ok(resolve::service(&view, input)?.id))?;
        let nodes = resolved(filters.values("node"), |input| Ok(resolve::node(&view, input)?.id))?;
        let states = filters.parsed("desired-state", "desired-state", TaskState::from_name)?;
        let only_fresh = !filters.values("_up-to-date").is_empty();
        let mut fresh = UpToDate::new(&view);
        let fits = |t: &&Arc<Task>| {
            services.as_ref().is_none_or(|ids: &Vec<ServiceId>| ids.contains(&t.service_id))
                && nodes.as_ref().is_none_or(|ids: &Vec<NodeId>| t.node_id.is_some_and(|n| ids.contains(&n)))
                && (states.is_empty() || states.contains(&t.desired_state))
                && filters.prefix("id", t.id.as_str())
                && (filters.values("name").is_empty() || filters.prefix("name", &task_name(t)))
                && filters.labels("label", &t.annotations.labels)
                && is_runtime(filters, &t.spec.runtime)
                && (!only_fresh || fresh.is(t))
        };
        // Most lists are of one service or of one node.
        let tasks: Vec<_> = match (services.as_deref(), nodes.as_deref()) {
            (Some([one]), _) => view.tasks_of(*one).filter(fits).cloned().collect(),
            (_, Some([one])) => view.tasks_on(*one).filter(fits).cloned().collect(),
            _ => view.tasks().filter(fits).cloned().collect(),
        };
        Ok(tasks)
    }
}

fn resolved<T>(inputs: &[String], resolve: impl Fn(&str) -> Result<T, Refusal>) -> Result<Option<Vec<T>>, Refusal> {
    if inputs.is_empty() {
        return Ok(None);
    }
    inputs.iter().map(|input| resolve(input)).collect::<Result<_, _>>().map(Some)
}
