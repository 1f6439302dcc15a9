//! When all is calm, a machine runs exactly the tasks that are assigned to its node and wanted there.

use std::collections::BTreeSet;

use shoal_types::{TaskState, View};

use crate::cluster::Cluster;

pub fn check(cluster: &Cluster) -> Vec<String> {
    let state = cluster.site.observer.latest();
    let mut wrong = Vec::new();
    for machine in &cluster.machines {
        let assigned = state.tasks_on(machine.node).filter(|t| t.desired_state == TaskState::Running);
        let wanted: BTreeSet<_> = assigned.filter(|t| t.status.state == TaskState::Running).map(|t| t.id).collect();
        let running = machine.containers.running();
        let place = machine.place;
        wrong.extend(running.difference(&wanted).map(|id| format!("m{place} runs {id}, which is not wanted there")));
        wrong.extend(wanted.difference(&running).map(|id| format!("m{place} does not run {id}, said to be running")));
    }
    wrong
}
