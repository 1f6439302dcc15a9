//! When all is calm, every manager has the same state at the same place of the log, object by object.

use shoal_raft::Snapshot;
use shoal_types::View;

use crate::cluster::Cluster;

pub fn check(cluster: &Cluster) -> Vec<String> {
    let states: Vec<(usize, Snapshot)> =
        cluster.site.directory.doors().iter().map(|door| (door.process.place(), door.raft.snapshot())).collect();
    let Some(((first, reference), others)) = states.split_first() else { return vec!["there is no manager".into()] };
    let differ = |what: &str, place: usize| format!("m{first} and m{place} have different {what}");
    let mut wrong = Vec::new();
    for (place, state) in others {
        if state.index() != reference.index() {
            wrong.push(format!("m{first} is at {} and m{place} at {}", reference.index(), state.index()));
        }
        if !state.tasks().eq(reference.tasks()) {
            wrong.push(differ("tasks", *place));
        }
        if !state.services().eq(reference.services()) {
            wrong.push(differ("services", *place));
        }
        if !state.nodes().eq(reference.nodes()) {
            wrong.push(differ("nodes", *place));
        }
        if state.cluster() != reference.cluster() {
            wrong.push(differ("clusters", *place));
        }
    }
    wrong
}
