//! A task that waits for a node says what for.

use shoal_types::{TaskState, View};

use crate::cluster::Cluster;

pub fn check(cluster: &Cluster) -> Vec<String> {
    let state = cluster.site.observer.latest();
    let waiting =
        state.tasks().filter(|t| t.desired_state <= TaskState::Running && t.status.state <= TaskState::Pending);
    let silent = waiting.filter(|t| t.status.err.is_empty());
    silent.map(|t| format!("task {} waits and does not say what for", t.id)).collect()
}
