//! A slot: the place of one replica of a replicated service, or of a global service on one node, with all tasks
//! that are or were in it.

use std::sync::Arc;

use shoal_types::object::NodeState;
use shoal_types::spec::Availability;
use shoal_types::{NodeId, Task, TaskState, View};

/// Names a slot within its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SlotKey {
    /// Of a replicated service, from 1; of a replicated job, from 0.
    Number(u64),
    /// Of a global service or job.
    Node(NodeId),
}

/// The tasks of a slot, oldest first.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Which slot.
    pub(crate) key: SlotKey,
    /// Its tasks.
    pub(crate) tasks: Vec<Arc<Task>>,
}

impl SlotKey {
    /// The slot that `task` is in. Where slots go by number alone, 0 is one, too.
    pub(crate) fn of(task: &Task, is_numbered: bool) -> Self {
        match (task.slot, task.node_id) {
            (0, Some(node)) if !is_numbered => Self::Node(node),
            (number, _) => Self::Number(number),
        }
    }
}

impl Slot {
    pub(crate) fn new(key: SlotKey, mut tasks: Vec<Arc<Task>>) -> Self {
        tasks.sort_by_key(|t| (t.meta.created_at, t.id));
        Self { key, tasks }
    }

    /// The tasks that are wanted. Those of jobs stay so once they have ended well.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(|t| t.desired_state <= TaskState::Complete)
    }

    /// The latest attempt.
    pub(crate) fn newest(&self) -> Option<&Arc<Task>> {
        self.tasks.last()
    }

    /// The tasks whose containers are still to stop, and can.
    pub(crate) fn stopping(&self, view: &dyn View) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(move |t| {
            t.desired_state > TaskState::Complete
                && (TaskState::Assigned..=TaskState::Running).contains(&t.status.state)
                && !is_out_of_reach(t, view)
        })
    }
}

/// Whether the task's node is gone or down.
pub(crate) fn is_out_of_reach(task: &Task, view: &dyn View) -> bool {
    task.node_id.is_some_and(|id| view.node(id).is_none_or(|n| n.status.state == NodeState::Down))
}

/// Whether the task's node is there, but gives up what it has.
pub(crate) fn is_drained(task: &Task, view: &dyn View) -> bool {
    task.node_id.and_then(|id| view.node(id)).is_some_and(|n| n.spec.availability == Availability::Drain)
}
