//! Rejects tasks on nodes that no longer fit them (swarm-semantics 3.6).

use std::sync::Arc;

use shoal_types::spec::Resources;
use shoal_types::{Node, Task, TaskState, generic};

use crate::draft::Draft;
use crate::goal::Constraints;

/// Rejects the tasks among `tasks`, all on `node`, that the constraints of their service keep off the node or that it
/// has no resources left for; earlier tasks come before later ones.
pub(crate) fn enforce(node: &Node, tasks: &[Arc<Task>], draft: &mut Draft<'_>) {
    let Some(description) = &node.description else { return };
    let Resources { nano_cpus: mut cpus, memory_bytes: mut memory, generic_resources: has } =
        description.resources.clone();
    let mut taken = Vec::new();
    let mut tasks: Vec<_> = tasks.iter().filter(|t| is_bound(t)).collect();
    tasks.sort_by_key(|t| (t.meta.created_at, t.id));
    for task in tasks {
        let service = draft.view.service(task.service_id);
        let spec = service.map_or(&*task.spec, |s| &s.spec.task_template);
        let needs = task.spec.resources.as_ref().and_then(|r| r.reservations.clone()).unwrap_or_default();
        let has_generic = task.assigned_generic.is_empty()
            || generic::claim(&has, &taken, &task.assigned_generic).is_some_and(|given| given == task.assigned_generic);
        let has_room = needs.memory_bytes <= memory && needs.nano_cpus <= cpus && has_generic;
        if !Constraints::of(spec).admit(node) || !has_room {
            let (message, err) = ("task rejected by constraint enforcer", "assigned node no longer meets constraints");
            draft.observe(task, TaskState::Rejected, message, err);
        } else {
            cpus -= needs.nano_cpus;
            memory -= needs.memory_bytes;
            taken.extend(task.assigned_generic.iter().cloned());
        }
    }
}

/// Whether the task is to run here and has not ended.
fn is_bound(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Complete).contains(&task.desired_state) && task.status.state < TaskState::Complete
}
