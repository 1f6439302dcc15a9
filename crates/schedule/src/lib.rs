//! Which node runs a task: filters that explain themselves, spread, preferences, resources (swarm-semantics 4).
//!
//! Owns the choice and the words for why there is none. Leaves to others: which tasks exist (`plan`), when to look
//! again after a change (`manager` gathers changes for a moment first).
//!
//! As long as no task needs an address, it takes tasks straight from NEW; a crate `allocate` will do that later.

mod demand;
mod filter;
mod index;
mod place;
mod queue;

use std::sync::Arc;

use shoal_types::change::Both;
use shoal_types::id::TaskKind;
use shoal_types::object::TaskStatus;
use shoal_types::{Change, Event, IdMap, Node, NodeId, Step, Task, TaskId, TaskPatch, TaskState, Timestamp, View};

use demand::{Demand, Load};
use filter::Filter;
use index::Nodes;
use place::Placer;
use queue::{Group, Queue};

/// The scheduler: what it must know of the cluster, kept up to date event by event.
///
/// It begins by reading everything at its first step; a leader makes a new one when it is elected.
#[derive(Debug, Default)]
pub struct Scheduler {
    loaded: bool,
    nodes: Nodes,
    /// Tasks that count on a node or wait for one, as last seen.
    tasks: IdMap<TaskKind, Arc<Task>>,
    queue: Queue,
    /// What the last step gave to tasks: counted on their nodes already, until their events come back or the next step shows
    /// that they will not.
    given: IdMap<TaskKind, Given>,
}

/// What a task takes of a node.
type Given = (NodeId, Load);

/// What the scheduler has to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It takes room on that node.
    Counts(NodeId),
    /// It waits for any node.
    Waits(Group),
    /// It waits for that node.
    WaitsFor(NodeId),
    /// It was never given a node, and is not wanted any more.
    Unwanted,
    /// None.
    Nothing,
}

// === impl Scheduler ===

impl Scheduler {
    /// A scheduler that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a change. An event that the first step's view already held does no harm.
    pub fn handle(&mut self, event: &Event) {
        if !self.loaded {
            return;
        }
        match event {
            Event::Node(both) => self.note_node(both.latest().id, both.after.clone()),
            Event::Task(both) => self.note_task(both),
            Event::Service(Both { before: Some(before), after: None }) => self.nodes.forget_failures(before.id),
            Event::Service(_) | Event::Cluster(_) | Event::Secret(_) | Event::Config(_) => {}
        }
    }

    /// Gives every waiting task a node, or the reason why it has none.
    ///
    /// Nothing is remembered of what it decides until the events come back: a step that was not committed is simply
    /// decided again.
    pub fn step(&mut self, view: &dyn View, now: Timestamp) -> Step {
        if !self.loaded {
            self.load(view);
        }
        for (node, load) in std::mem::take(&mut self.given).into_values() {
            self.nodes.remove(node, &load);
        }
        let mut step = Step::default();
        self.release_unwanted(view, now, &mut step);
        for id in self.queue.take_preset() {
            if let Some((task, Role::WaitsFor(node))) = current(view, id)
                && let Some(change) = self.confirm(task, node, now)
            {
                step.changes.push(change);
                self.queue.look_again_at(id);
            }
        }
        for group in self.queue.take_groups() {
            let before = step.changes.len();
            self.place_group(view, group, now, &mut step);
            if step.changes.len() > before {
                self.queue.look_again(group);
            }
        }
        step
    }

    /// A task that can run on one node only.
    fn confirm(&mut self, task: &Task, node: NodeId, now: Timestamp) -> Option<Change> {
        let demand = Demand::of(task);
        let info = self.nodes.get(node);
        let fits = info.map_or(Err(Filter::Ready), |info| match filter::first(info, &demand) {
            Some(failed) => Err(failed),
            None => demand.of_node(info).ok_or(Filter::Resource),
        });
        match fits {
            Err(failed) => postpone(task, &filter::explain(&[(failed, 1)]), now),
            Ok(load) => {
                self.nodes.add(node, &load);
                let change = assign(task, None, &load, now);
                self.given.insert(task.id, (node, load));
                Some(change)
            }
        }
    }

    fn place_group(&mut self, view: &dyn View, group: Group, now: Timestamp, step: &mut Step) {
        let waiting = self.queue.tasks(group).filter_map(|id| current(view, id));
        let waiting: Vec<_> = waiting.filter(|(_, role)| *role == Role::Waits(group)).map(|(task, _)| task).collect();
        let Some(first) = waiting.first() else { return };
        let demand = Demand::of(first);
        let mut placer = Placer::new(&self.nodes, &demand, now);
        let mut waiting = waiting.into_iter();
        while let Some((node, load)) = (waiting.len() > 0).then(|| placer.place(&mut self.nodes, &demand)).flatten() {
            let task = waiting.next().expect("its length was above zero");
            step.changes.push(assign(task, Some(node), &load, now));
            self.given.insert(task.id, (node, load));
        }
        if waiting.len() > 0 {
            let why = filter::explain(&filter::count(&self.nodes, &demand));
            step.changes.extend(waiting.filter_map(|task| postpone(task, &why, now)));
        }
    }

    /// Nobody will ever report the end of a task that was given to no node.
    fn release_unwanted(&mut self, view: &dyn View, now: Timestamp, step: &mut Step) {
        for id in self.queue.unwanted() {
            if let Some((task, Role::Unwanted)) = current(view, id) {
                let status = TaskStatus {
                    timestamp: now,
                    state: TaskState::Shutdown,
                    message: "shutdown".into(),
                    ..task.status.clone()
                };
                step.changes.push(Change::Patch(TaskPatch { status: Some(status), ..TaskPatch::of(id) }));
            }
        }
    }

    fn load(&mut self, view: &dyn View) {
        self.loaded = true;
        view.nodes().for_each(|node| self.note_node(node.id, Some(node.clone())));
        for task in view.tasks() {
            self.note_task(&Both { before: None, after: Some(task.clone()) });
        }
    }

    fn note_node(&mut self, id: NodeId, node: Option<Arc<Node>>) {
        self.nodes.set(id, node);
        self.queue.room_may_be_there();
    }

    fn note_task(&mut self, both: &Both<Task>) {
        let id = both.latest().id;
        let known = self.tasks.get(&id);
        if let (Some(known), Some(after)) = (known, &both.after)
            && known.meta.version > after.meta.version
        {
            return;
        }
        let before = known.map_or(Role::Nothing, |t| role(t));
        let after = both.after.as_ref().map_or(Role::Nothing, |t| role(t));
        let takes_the_same = known.is_some_and(|k| Arc::ptr_eq(&k.spec, &both.latest().spec));
        let left = (before != after || (matches!(after, Role::Counts(_)) && !takes_the_same)).then(|| known.cloned());
        self.note_failure(both);
        if let Some(known) = left {
            if let Some(known) = known {
                self.leave(&known, before);
            }
            if let Some(task) = &both.after {
                self.enter(task, after);
            }
        }
        match &both.after {
            Some(task) if after != Role::Nothing => drop(self.tasks.insert(id, task.clone())),
            _ => drop(self.tasks.remove(&id)),
        }
    }

    fn enter(&mut self, task: &Task, role: Role) {
        match role {
            Role::Counts(node) => self.count(task, node),
            Role::Waits(group) => self.queue.push(group, task.slot, task.id),
            Role::WaitsFor(_) => self.queue.push_preset(task.id),
            Role::Unwanted => self.queue.push_unwanted(task.id),
            Role::Nothing => {}
        }
    }

    /// Counts a task on its node, unless the last step has done so already.
    fn count(&mut self, task: &Task, node: NodeId) {
        match self.given.remove(&task.id) {
            Some((given, load)) if given == node && load.generic == task.assigned_generic => {}
            given => {
                if let Some((given, load)) = given {
                    self.nodes.remove(given, &load);
                }
                self.nodes.add(node, &Load::of(task));
            }
        }
    }

    fn leave(&mut self, task: &Task, role: Role) {
        match role {
            Role::Counts(node) => {
                self.nodes.remove(node, &Load::of(task));
                self.queue.room_may_be_there();
            }
            Role::Waits(group) => self.queue.remove(group, task.slot, task.id),
            Role::WaitsFor(_) => self.queue.remove_preset(task.id),
            Role::Unwanted => self.queue.remove_unwanted(task.id),
            Role::Nothing => {}
        }
    }

    /// Remembers where tasks of a service failed, so that the next ones avoid the node.
    fn note_failure(&mut self, both: &Both<Task>) {
        let failed = |t: &Task| matches!(t.status.state, TaskState::Failed | TaskState::Rejected);
        if let Some(task) = &both.after
            && let Some(node) = task.node_id
            && (task.slot != 0 || task.job_iteration.is_some())
            && failed(task)
            && !both.before.as_ref().is_some_and(|b| failed(b))
        {
            let at = task.status.applied_at.unwrap_or(task.status.timestamp);
            self.nodes.note_failure((task.service_id, task.spec_version), node, at);
        }
    }
}

fn role(task: &Task) -> Role {
    let waits = task.status.state < TaskState::Assigned;
    match (waits, task.node_id) {
        (true, _) if task.desired_state == TaskState::Shutdown => Role::Unwanted,
        (true, _) if task.desired_state > TaskState::Complete => Role::Nothing,
        (true, Some(node)) => Role::WaitsFor(node),
        (true, None) => Role::Waits((task.service_id, task.spec_version)),
        (false, Some(node)) if task.is_active() => Role::Counts(node),
        _ => Role::Nothing,
    }
}

/// The task as the view has it, which may be newer than the last event.
fn current(view: &dyn View, id: TaskId) -> Option<(&Arc<Task>, Role)> {
    view.task(id).map(|task| (task, role(task)))
}

fn assign(task: &Task, node: Option<NodeId>, load: &Load, now: Timestamp) -> Change {
    let message = match node {
        Some(_) => "scheduler assigned task to node",
        None => "scheduler confirmed task can run on preassigned node",
    };
    let status = TaskStatus {
        timestamp: now,
        state: TaskState::Assigned,
        message: message.into(),
        err: String::new(),
        ..task.status.clone()
    };
    let assigned_generic = load.generic.clone();
    Change::Patch(TaskPatch { node_id: node, assigned_generic, status: Some(status), ..TaskPatch::of(task.id) })
}

/// Says why a task waits, unless it says so already.
fn postpone(task: &Task, why: &str, now: Timestamp) -> Option<Change> {
    if task.status.state == TaskState::Pending && task.status.err == why {
        return None;
    }
    let mut status = TaskStatus { timestamp: now, state: TaskState::Pending, err: why.into(), ..task.status.clone() };
    if task.status.state == TaskState::New {
        status.message = "pending task scheduling".into();
    }
    Some(Change::Patch(TaskPatch { status: Some(status), ..TaskPatch::of(task.id) }))
}

#[cfg(test)]
mod tests;
