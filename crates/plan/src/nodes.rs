//! What becomes of tasks when nodes change: those of a node that is gone, or long down, are given up
//! (swarm-semantics 2.6, 3.5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_types::change::Both;
use shoal_types::object::NodeState;
use shoal_types::spec::Availability;
use shoal_types::{Nanos, Node, NodeId, Task, TaskState, Timestamp, after};

use crate::draft::Draft;
use crate::enforcer::enforce;
use crate::timers::Target;

/// How long a node may be down before its tasks are given up.
const PATIENCE: Nanos = 24 * 3600 * 1_000_000_000;

/// The nodes that need attention.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    changed: BTreeSet<NodeId>,
    /// Since when nodes are down, as far as this leader knows.
    down: BTreeMap<NodeId, Timestamp>,
}

impl Nodes {
    /// Looks at the node.
    pub(crate) fn touch(&mut self, id: NodeId) {
        self.changed.insert(id);
    }

    /// Looks at the node if it changed in a way that matters to tasks.
    pub(crate) fn handle(&mut self, node: &Both<Node>) {
        let matters = match (&node.before, &node.after) {
            (Some(before), Some(after)) => is_different(before, after),
            _ => true,
        };
        if matters {
            self.touch(node.latest().id);
        }
    }

    /// Takes a node to look at.
    pub(crate) fn pop(&mut self) -> Option<NodeId> {
        self.changed.pop_first()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Does to the tasks of a node what its state asks for. Returns all of its tasks.
    pub(crate) fn plan(&mut self, id: NodeId, draft: &mut Draft<'_>) -> Vec<Arc<Task>> {
        let tasks: Vec<_> = draft.view.tasks_on(id).cloned().collect();
        let node = draft.view.node(id);
        if node.is_none_or(|n| n.status.state != NodeState::Down) {
            self.down.remove(&id);
        }
        match node {
            None => {
                orphan(&tasks, TaskState::New, "Task belonged to a node that has been deleted", draft);
            }
            Some(node) if node.status.state == NodeState::Down => {
                let end = after(*self.down.entry(id).or_insert(draft.now), PATIENCE);
                if draft.now >= end {
                    orphan(
                        &tasks,
                        TaskState::Assigned,
                        "Task belonged to a node that has been down for 24 hours",
                        draft,
                    );
                } else {
                    draft.timers.wake(end, Target::Node(id));
                }
            }
            Some(node) if node.spec.availability == Availability::Active => enforce(node, &tasks, draft),
            Some(_) => {}
        }
        tasks
    }
}

/// Gives up the tasks that are in `from` or later and have not ended.
fn orphan(tasks: &[Arc<Task>], from: TaskState, why: &str, draft: &mut Draft<'_>) {
    let open = tasks.iter().filter(|t| (from..=TaskState::Running).contains(&t.status.state));
    for task in open {
        draft.observe(task, TaskState::Orphaned, why, "");
    }
}

fn is_different(before: &Node, after: &Node) -> bool {
    let is_down = |n: &Node| n.status.state == NodeState::Down;
    is_down(before) != is_down(after)
        || before.spec.availability != after.spec.availability
        || before.spec.labels != after.spec.labels
        || before.role != after.role
        || before.status.addr != after.status.addr
        || before.description != after.description
}
