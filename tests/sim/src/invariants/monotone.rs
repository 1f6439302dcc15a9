//! A task's observed and desired states only grow, and it never changes its node once it has one.

use shoal_raft::Commit;
use shoal_types::{Event, Task};

use super::Continuous;

/// Lives go forward.
pub struct Monotone;

impl Continuous for Monotone {
    fn name(&self) -> &'static str {
        "states only grow"
    }

    fn check(&mut self, commit: &Commit) -> Vec<String> {
        let pairs = commit.events.iter().filter_map(|event| match event {
            Event::Task(both) => both.before.as_ref().zip(both.after.as_ref()),
            _ => None,
        });
        pairs.filter_map(|(before, after)| backward(before, after)).collect()
    }
}

fn backward(before: &Task, after: &Task) -> Option<String> {
    let id = before.id;
    if after.status.state < before.status.state {
        return Some(format!("task {id} went from {:?} back to {:?}", before.status.state, after.status.state));
    }
    if after.desired_state < before.desired_state {
        let (was, is) = (before.desired_state, after.desired_state);
        return Some(format!("task {id} was desired {was:?} and is desired {is:?} now"));
    }
    (before.node_id.is_some() && before.node_id != after.node_id)
        .then(|| format!("task {id} went from node {:?} to {:?}", before.node_id, after.node_id))
}
