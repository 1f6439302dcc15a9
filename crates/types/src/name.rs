//! Names of tasks and their containers (swarm-semantics 2.5).

use crate::object::Task;

/// `<service>.<slot>.<task id>`, or `<service>.<node id>.<task id>` where there is no slot.
pub fn task_name(task: &Task) -> String {
    let service = &task.annotations.name;
    match (task.slot, task.node_id) {
        (0, Some(node)) => format!("{service}.{node}.{}", task.id),
        (0, None) => format!("{service}..{}", task.id),
        (slot, _) => format!("{service}.{slot}.{}", task.id),
    }
}
