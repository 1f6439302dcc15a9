//! A scheduler and agents. What a container does is written in its image's name, after the first dash:
//!
//! - `v1`: runs until it is told to stop
//! - `v1-reject`: cannot be prepared
//! - `v1-nostart`: fails when it is started
//! - `v1-slow`: takes 20 s to start
//! - `v1-exit3`, `v1-exit0`: ends with that code 1 s after its start
//! - `v1-late`: fails 20 s after its start

use shoal_types::constraint;
use shoal_types::object::{NodeState, TaskStatus};
use shoal_types::spec::Availability;
use shoal_types::{Change, Nanos, Node, NodeId, Task, TaskPatch, TaskState, Timestamp, View, after};

use super::{MS, SECOND, World, image};

impl World {
    /// When a node or the scheduler does something next.
    pub(super) fn agents_due(&self) -> Option<Timestamp> {
        self.store.tasks().filter_map(|t| self.next(t)).map(|(at, _, _)| at).min()
    }

    /// What nodes and the scheduler have done until now.
    pub(super) fn agents_act(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut load = std::collections::BTreeMap::new();
        for task in self.store.tasks() {
            let Some((_, state, err)) = self.next(task).filter(|(at, _, _)| *at <= self.now) else { continue };
            let mut patch = TaskPatch::of(task.id);
            if task.node_id.is_none() {
                let Some(node) = self.pick(task, &load) else { continue };
                *load.entry(node).or_insert(0) += 1;
                patch.node_id = Some(node);
            }
            let applied_at = Some(self.now);
            let err = err.into();
            patch.status = Some(TaskStatus { timestamp: self.now, state, err, applied_at, ..TaskStatus::default() });
            changes.push(Change::Patch(patch));
        }
        changes
    }

    fn next(&self, task: &Task) -> Option<(Timestamp, TaskState, &'static str)> {
        let (_, _, since) = self.entered.get(&task.id)?;
        let (wait, state, err) = self.transition(task)?;
        Some((after(*since, wait), state, err))
    }

    fn transition(&self, task: &Task) -> Option<(Nanos, TaskState, &'static str)> {
        let what = image(task).split_once('-').map_or("", |(_, what)| what);
        if task.status.state < TaskState::Assigned {
            let wanted = task.desired_state <= TaskState::Complete;
            let fits = self.pick(task, &Default::default()).is_some();
            return (wanted && fits).then_some((50 * MS, TaskState::Assigned, ""));
        }
        let node = task.node_id.and_then(|id| self.store.node(id))?;
        if node.status.state == NodeState::Down || task.status.state.is_terminal() {
            return None;
        }
        if task.desired_state > TaskState::Complete {
            let wait = if task.status.state >= TaskState::Starting { self.stop_time } else { 10 * MS };
            return Some((wait, TaskState::Shutdown, ""));
        }
        match (task.status.state, what) {
            (TaskState::Assigned, "reject") => Some((100 * MS, TaskState::Rejected, "no such image")),
            (TaskState::Assigned, _) => Some((100 * MS, TaskState::Ready, "")),
            (TaskState::Ready, _) if task.desired_state < TaskState::Running => None,
            (TaskState::Ready, _) => Some((10 * MS, TaskState::Starting, "")),
            (TaskState::Starting, "nostart") => Some((90 * MS, TaskState::Failed, "starting container failed: no")),
            (TaskState::Starting, "slow") => Some((20 * SECOND, TaskState::Running, "")),
            (TaskState::Starting, _) => Some((90 * MS, TaskState::Running, "")),
            (TaskState::Running, "exit3") => Some((SECOND, TaskState::Failed, "task: non-zero exit (3)")),
            (TaskState::Running, "exit0") => Some((SECOND, TaskState::Complete, "")),
            (TaskState::Running, "late") => Some((20 * SECOND, TaskState::Failed, "task: non-zero exit (1)")),
            _ => None,
        }
    }

    /// The node with the fewest tasks that takes the task.
    fn pick(&self, task: &Task, load: &std::collections::BTreeMap<NodeId, usize>) -> Option<NodeId> {
        let takes = |n: &Node| {
            let texts = task.spec.placement.as_ref().map_or(&[][..], |p| &p.constraints);
            n.status.state == NodeState::Ready
                && n.spec.availability == Availability::Active
                && task.node_id.is_none_or(|id| id == n.id)
                && constraint::matches(&constraint::parse(texts).expect("valid constraints"), n)
        };
        let count = |n: &Node| {
            let active = self.store.tasks_on(n.id).filter(|t| t.is_active()).count();
            active + load.get(&n.id).unwrap_or(&0)
        };
        self.store.nodes().filter(|n| takes(n)).min_by_key(|n| (count(n), n.id)).map(|n| n.id)
    }
}
