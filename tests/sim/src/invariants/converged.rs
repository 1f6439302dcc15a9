//! When all is calm, every manager has the same state at the same place of the log, object by object.

use std::fmt::Debug;

use shoal_raft::Snapshot;
use shoal_types::View;

use crate::cluster::Cluster;

pub fn check(cluster: &Cluster) -> Vec<String> {
    let states: Vec<(usize, Snapshot)> =
        cluster.site.directory.doors().iter().map(|door| (door.process.place(), door.raft.snapshot())).collect();
    let Some(((first, reference), others)) = states.split_first() else { return vec!["there is no manager".into()] };
    let mut wrong = Vec::new();
    for (place, state) in others {
        if state.index() != reference.index() {
            wrong.push(format!("m{first} is at {} and m{place} at {}", reference.index(), state.index()));
        }
        let differ = [
            difference("tasks", reference.tasks(), state.tasks()),
            difference("services", reference.services(), state.services()),
            difference("nodes", reference.nodes(), state.nodes()),
            difference("clusters", reference.cluster().into_iter(), state.cluster().into_iter()),
        ];
        wrong.extend(differ.into_iter().flatten().map(|what| format!("m{first} and m{place} have different {what}")));
    }
    wrong
}

/// The first objects of a kind that are not the same.
fn difference<T: PartialEq + Debug>(
    what: &str,
    mut one: impl Iterator<Item = T>,
    mut other: impl Iterator<Item = T>,
) -> Option<String> {
    loop {
        match (one.next(), other.next()) {
            (None, None) => return None,
            (one, other) if one != other => return Some(format!("{what}: {one:?} and {other:?}")),
            _ => {}
        }
    }
}
