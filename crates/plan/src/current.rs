//! Which tasks are up to date, for those who only want to know.

use std::collections::HashMap;

use shoal_types::{ServiceId, Task, View};

use crate::goal::Goal;

/// Tells which tasks are what their services want now: made from the present spec, or not to be told from one that is
/// (swarm-semantics 2.8). What it learns of a service it keeps, so that asking for all tasks of one costs little.
pub struct UpToDate<'v> {
    view: &'v dyn View,
    goals: HashMap<ServiceId, Option<Goal>>,
}

impl<'v> UpToDate<'v> {
    /// Tells it of tasks in `view`.
    pub fn new(view: &'v dyn View) -> Self {
        Self { view, goals: HashMap::new() }
    }

    /// Whether `task` is up to date. Tasks of services that are gone are not.
    pub fn is(&mut self, task: &Task) -> bool {
        let view = self.view;
        let goal = self.goals.entry(task.service_id).or_insert_with(|| {
            let service = view.service(task.service_id)?.clone();
            Some(Goal::new(service, view.cluster().map(|c| &**c), None))
        });
        let node = task.node_id.and_then(|id| view.node(id));
        goal.as_ref().is_some_and(|goal| goal.is_met_by(task, node.map(|n| &**n)))
    }
}
