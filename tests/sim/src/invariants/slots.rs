//! No two tasks of one slot are desired running, beyond the one more that `start-first` allows.

use shoal_raft::{Commit, Snapshot};
use shoal_types::spec::{UpdateConfig, UpdateOrder};
use shoal_types::{Event, Service, Task, TaskState, View};

use super::Continuous;

/// At most one task a slot.
pub struct OnePerSlot;

impl Continuous for OnePerSlot {
    fn name(&self) -> &'static str {
        "one task a slot"
    }

    fn check(&mut self, commit: &Commit) -> Vec<String> {
        let changed = commit.events.iter().filter_map(|event| match event {
            Event::Task(task) => task.after.as_ref(),
            _ => None,
        });
        changed.filter_map(|task| crowded(&commit.snapshot, task)).collect()
    }
}

fn crowded(view: &Snapshot, task: &Task) -> Option<String> {
    let service = view.service(task.service_id).filter(|s| !s.spec.mode.is_job())?;
    let shares = |other: &Task| {
        if service.spec.mode.is_global() { other.node_id == task.node_id } else { other.slot == task.slot }
    };
    let wanted: Vec<_> = view.tasks_of(service.id).filter(|t| is_wanted(t) && shares(t)).collect();
    let limit = if is_start_first(service) { 2 } else { 1 };
    let ids = || wanted.iter().map(|t| t.id.to_string()).collect::<Vec<_>>().join(", ");
    (wanted.len() > limit).then(|| {
        format!("{} tasks of {} slot {} are desired running: {}", wanted.len(), service.spec.name, task.slot, ids())
    })
}

fn is_wanted(task: &Task) -> bool {
    task.desired_state == TaskState::Running && task.status.state <= TaskState::Running
}

fn is_start_first(service: &Service) -> bool {
    let first = |config: &Option<UpdateConfig>| config.as_ref().is_some_and(|c| c.order == UpdateOrder::StartFirst);
    let specs = std::iter::once(&service.spec).chain(&service.previous_spec);
    specs.into_iter().any(|spec| first(&spec.update_config) || first(&spec.rollback_config))
}
