//! When all is calm, every node is there, and every service has exactly the tasks that it wants, running, or waiting for
//! something that they name.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_raft::Snapshot;
use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, UpdateState};
use shoal_types::{NodeId, Service, Task, TaskState, View};

use crate::cluster::Cluster;

pub fn check(cluster: &Cluster) -> Vec<String> {
    unsettled(&cluster.site.observer.latest())
}

/// What is not as it should be.
pub fn unsettled(state: &Snapshot) -> Vec<String> {
    let absent = state.nodes().filter(|n| n.status.state != NodeState::Ready);
    let mut wrong: Vec<String> =
        absent.map(|n| format!("node {} is {:?}: {}", n.id, n.status.state, n.status.message)).collect();
    wrong.extend(state.services().filter_map(|service| lacking(state, service)));
    let leaving =
        state.tasks().filter(|t| t.desired_state > TaskState::Running && t.status.state <= TaskState::Running);
    wrong.extend(leaving.map(|t| {
        format!("task {} is desired {:?} and is {:?} ({})", t.id, t.desired_state, t.status.state, t.status.message)
    }));
    wrong
}

fn lacking(state: &Snapshot, service: &Service) -> Option<String> {
    // An update that was paused waits for its user.
    if service
        .update_status
        .as_ref()
        .is_some_and(|u| matches!(u.state, UpdateState::Paused | UpdateState::RollbackPaused))
    {
        return None;
    }
    let wanted = if service.spec.mode.is_global() {
        state.nodes().filter(|n| n.spec.availability == Availability::Active).count() as u64
    } else {
        service.spec.mode.replicas()
    };
    let live = |t: &&Arc<Task>| t.desired_state == TaskState::Running && t.status.state <= TaskState::Running;
    let (running, waiting): (Vec<_>, Vec<_>) =
        state.tasks_of(service.id).filter(live).partition(|t| t.status.state == TaskState::Running);
    let is_explained = waiting.iter().all(|t| t.status.state == TaskState::Pending && !t.status.err.is_empty());
    // What cannot be placed may hold up an update, with an old and a new task in its slot.
    let places = |tasks: &[&Arc<Task>]| -> BTreeSet<(u64, Option<NodeId>)> {
        let place = |t: &&Arc<Task>| if service.spec.mode.is_global() { (0, t.node_id) } else { (t.slot, None) };
        tasks.iter().map(place).collect()
    };
    let (filled, all) = (places(&running), places(&[running.clone(), waiting].concat()));
    if all.len() as u64 == wanted && filled.len() == running.len() && is_explained {
        return None;
    }
    let states: Vec<_> = state
        .tasks_of(service.id)
        .map(|t| {
            let version = t.spec_version;
            format!("{}.{} of {version} {:?}>{:?} {}", t.id, t.slot, t.status.state, t.desired_state, t.status.err)
        })
        .collect();
    let (name, update) = (&service.spec.name, &service.update_status);
    Some(format!("{name} wants {wanted} tasks and has {} running, {update:?}: {}", running.len(), states.join(", ")))
}
