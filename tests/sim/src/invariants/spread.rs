//! A service that is made when all is calm is spread as evenly as its nodes allow.

use std::collections::BTreeMap;

use shoal_types::spec::Availability;
use shoal_types::{TaskState, View};

use crate::cluster::{Cluster, LAST};

pub fn check(cluster: &Cluster) -> Vec<String> {
    let state = cluster.site.observer.latest();
    let Some(service) = state.service_named(LAST) else { return vec![format!("{LAST} is not there")] };
    let active = state.nodes().filter(|n| n.spec.availability == Availability::Active);
    let mut counts: BTreeMap<_, u64> = active.map(|n| (n.id, 0)).collect();
    for task in state.tasks_of(service.id).filter(|t| t.desired_state == TaskState::Running) {
        if let Some(count) = task.node_id.and_then(|node| counts.get_mut(&node)) {
            *count += 1;
        }
    }
    let (least, most) = (counts.values().min().unwrap_or(&0), counts.values().max().unwrap_or(&0));
    if most - least <= 1 { Vec::new() } else { vec![format!("{LAST} has {counts:?} tasks on its nodes")] }
}
