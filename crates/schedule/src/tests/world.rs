//! A cluster small enough to look at: a store, and the scheduler that lives on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_store::{Snapshot, Store};
use shoal_types::object::{Meta, NodeDescription, NodeState, NodeStatus, Platform, TaskStatus};
use shoal_types::spec::{
    Annotations, EndpointSpec, NodeRole, NodeSpec, Placement, PortConfig, Preference, PublishMode,
    ResourceRequirements, Resources, Spread, TaskSpec,
};
use shoal_types::{
    Change, Event, GenericResource, Id, Node, NodeId, Object, Step, Task, TaskState, Timestamp, View, generic,
};

use crate::Scheduler;

#[derive(Default)]
pub struct World {
    store: Store,
    /// What the store holds now.
    view: Snapshot,
    scheduler: Scheduler,
    history: Vec<Event>,
    pub now: Timestamp,
}

pub fn id<K>(n: u64) -> Id<K> {
    format!("{n:0>25}").parse().unwrap()
}

pub fn node(n: u64) -> Node {
    let description = NodeDescription {
        hostname: format!("n{n}"),
        platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
        ..NodeDescription::default()
    };
    Node {
        id: id(n),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        role: NodeRole::Worker,
        description: Some(Arc::new(description)),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager_addr: None,
        wanted_issuer: None,
    }
}

pub fn down(mut node: Node) -> Node {
    node.status.state = NodeState::Down;
    node
}

pub fn labelled(mut node: Node, key: &str, value: &str) -> Node {
    node.spec.labels.insert(key.into(), value.into());
    node
}

pub fn described(mut node: Node, change: impl FnOnce(&mut NodeDescription)) -> Node {
    let mut description = (**node.description.as_ref().unwrap()).clone();
    change(&mut description);
    node.description = Some(Arc::new(description));
    node
}

pub fn with_resources(node: Node, nano_cpus: i64, memory_bytes: i64) -> Node {
    described(node, |d| d.resources = Resources { nano_cpus, memory_bytes, ..Resources::default() })
}

/// Task `n` in slot `n` of service 1.
pub fn task(n: u64) -> Task {
    Task {
        id: id(n),
        meta: Meta::default(),
        service_id: id(1),
        slot: n,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        spec: Arc::default(),
        spec_version: 1,
        endpoint: None,
        registry_auth: None,
        status: TaskStatus { message: "created".into(), ..TaskStatus::default() },
        desired_state: TaskState::Running,
        job_iteration: None,
        assigned_generic: Vec::new(),
    }
}

pub fn of_service(task: Task, n: u64) -> Task {
    Task { service_id: id(n), ..task }
}

pub fn preset(task: Task, node: u64) -> Task {
    Task { node_id: Some(id(node)), slot: 0, ..task }
}

pub fn desire(task: Task, desired_state: TaskState) -> Task {
    Task { desired_state, ..task }
}

pub fn specified(mut task: Task, change: impl FnOnce(&mut TaskSpec)) -> Task {
    let mut spec = (*task.spec).clone();
    change(&mut spec);
    task.spec = Arc::new(spec);
    task
}

pub fn placed(task: Task, change: impl FnOnce(&mut Placement)) -> Task {
    specified(task, |spec| change(spec.placement.get_or_insert_default()))
}

pub fn spread_over(task: Task, keys: &[&str]) -> Task {
    let preference = |key: &&str| Preference { spread: Some(Spread { spread_descriptor: (*key).into() }) };
    placed(task, |p| p.preferences = keys.iter().map(preference).collect())
}

pub fn reserving(task: Task, nano_cpus: i64, memory_bytes: i64) -> Task {
    let reservations = Some(Resources { nano_cpus, memory_bytes, ..Resources::default() });
    specified(task, |s| s.resources = Some(ResourceRequirements { reservations, ..ResourceRequirements::default() }))
}

pub fn with_generic(node: Node, has: &[&str]) -> Node {
    let has: Vec<_> = has.iter().map(|h| (*h).to_owned()).collect();
    described(node, |d| d.resources.generic_resources = generic::parse(&has).unwrap())
}

pub fn reserving_generic(task: Task, kind: &str, value: i64) -> Task {
    let wanted = vec![GenericResource::Discrete { kind: kind.into(), value }];
    let reservations = Some(Resources { generic_resources: wanted, ..Resources::default() });
    specified(task, |s| s.resources = Some(ResourceRequirements { reservations, ..ResourceRequirements::default() }))
}

pub fn publishing(task: Task, protocol: &str, port: u32) -> Task {
    let port = PortConfig {
        protocol: protocol.into(),
        target_port: 80,
        published_port: port,
        publish_mode: PublishMode::Host,
        ..PortConfig::default()
    };
    Task { endpoint: Some(Arc::new(EndpointSpec { ports: vec![port], ..EndpointSpec::default() })), ..task }
}

// === impl World ===

impl World {
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut world = Self::default();
        // the first step reads the view; what comes later arrives as events
        nodes.into_iter().for_each(|node| world.put_node(node));
        world.decide();
        world
    }

    pub fn put_node(&mut self, node: Node) {
        self.write(Change::Put(Object::Node(Arc::new(node))));
    }

    pub fn add(&mut self, task: Task) {
        self.write(Change::Put(Object::Task(Arc::new(task))));
    }

    fn write(&mut self, change: Change) {
        let events = self.store.apply(self.store.index() + 1, self.now, &[change]);
        self.view = self.store.snapshot();
        events.iter().for_each(|event| self.scheduler.handle(event));
        self.history.extend(events);
    }

    /// Hands the scheduler every event so far once more.
    pub fn replay(&mut self) {
        self.history.iter().for_each(|event| self.scheduler.handle(event));
    }

    /// A new leader.
    pub fn restart(&mut self) {
        self.scheduler = Scheduler::new();
    }

    pub fn observe(&mut self, n: u64, state: TaskState) {
        let task = self.task(n).clone();
        let status = TaskStatus { state, timestamp: self.now, ..task.status };
        self.add(Task { status, ..task });
    }

    pub fn want(&mut self, n: u64, desired_state: TaskState) {
        let task = self.task(n).clone();
        self.add(Task { desired_state, ..task });
    }

    /// What the scheduler wants done now.
    pub fn decide(&mut self) -> Step {
        self.scheduler.step(&self.view, self.now)
    }

    /// Does what the scheduler wants until it wants no more; the number of changes.
    pub fn settle(&mut self) -> usize {
        let mut changes = 0;
        loop {
            let step = self.decide();
            if step.changes.is_empty() {
                return changes;
            }
            changes += step.changes.len();
            for change in step.changes {
                let Change::Patch(patch) = &change else { panic!("the scheduler only patches tasks") };
                let is_free = self.view.task(patch.id).is_some_and(|task| task.node_id.is_none());
                assert!(is_free || patch.node_id.is_none(), "a task keeps its node");
                self.write(change);
            }
        }
    }

    pub fn task(&self, n: u64) -> &Task {
        self.view.task(id(n)).unwrap()
    }

    pub fn all_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.view.tasks()
    }

    pub fn all_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.view.nodes()
    }

    pub fn nodes_of_tasks(&self) -> Vec<Option<NodeId>> {
        self.view.tasks().map(|t| t.node_id).collect()
    }

    /// Active tasks on each node.
    pub fn tasks_per_node(&self) -> Vec<usize> {
        let on = |node| self.view.tasks().filter(|t| t.is_active() && t.node_id == Some(node)).count();
        self.view.nodes().map(|node| on(node.id)).collect()
    }

    pub fn used_nodes(&self) -> BTreeSet<NodeId> {
        self.view.tasks().filter_map(|t| t.node_id).collect()
    }
}
