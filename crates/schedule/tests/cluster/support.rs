//! A cluster in memory with virtual time: the real store, planner and scheduler, and nodes that do at once what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_plan::Planner;
use shoal_schedule::Scheduler;
use shoal_store::Store;
use shoal_types::object::{JobStatus, NodeDescription, NodeState, NodeStatus, Platform, TaskStatus};
use shoal_types::spec::{
    Availability, ContainerSpec, NodeRole, NodeSpec, Placement, Preference, Replicated, ResourceRequirements,
    Resources, ServiceMode, ServiceSpec, Spread, TaskSpec,
};
use shoal_types::{
    Change, GenericResource, Id, IdSource, Meta, Node, NodeId, Object, ObjectKind, Service, ServiceId, Task, TaskPatch,
    TaskState, Timestamp, View, after, generic,
};

/// Identifiers in the order of a counter.
pub struct Ids(u64);

/// The cluster.
pub struct World {
    pub store: Store,
    pub now: Timestamp,
    planner: Planner,
    scheduler: Scheduler,
    ids: Ids,
    wake_at: Option<Timestamp>,
    /// What became of tasks of these services: they fail as soon as they run.
    pub failing: Vec<ServiceId>,
}

impl IdSource for Ids {
    fn random(&mut self) -> [u8; 17] {
        self.0 += 1;
        let mut bytes = [0; 17];
        bytes[1..9].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

impl World {
    /// A cluster with so many nodes, named `n1`, `n2` … in the order of their identifiers.
    pub fn new(nodes: usize) -> (Self, Vec<NodeId>) {
        let mut world = Self {
            store: Store::new(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            planner: Planner::new(),
            scheduler: Scheduler::new(),
            ids: Ids(0),
            wake_at: None,
            failing: Vec::new(),
        };
        let nodes = (1..=nodes).map(|n| world.add_node(&format!("n{n}"))).collect();
        (world, nodes)
    }

    pub fn add_node(&mut self, hostname: &str) -> NodeId {
        let id = Id::new(&mut self.ids);
        let resources = Resources { nano_cpus: 4_000_000_000, memory_bytes: 1 << 30, ..Resources::default() };
        let platform = Platform { architecture: "x86_64".into(), os: "linux".into() };
        let description =
            NodeDescription { hostname: hostname.into(), resources, platform, ..NodeDescription::default() };
        let node = Node {
            id,
            meta: Meta::default(),
            spec: NodeSpec::default(),
            role: NodeRole::Worker,
            description: Some(Arc::new(description)),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager_addr: None,
            wanted_issuer: None,
        };
        self.write(&[Change::Put(Object::Node(Arc::new(node)))]);
        id
    }

    pub fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = self.store.snapshot().node(id).unwrap().as_ref().clone();
        change(&mut node);
        self.write(&[Change::Put(Object::Node(Arc::new(node)))]);
        self.settle();
    }

    pub fn set_state(&mut self, id: NodeId, state: NodeState) {
        self.change_node(id, |n| n.status.state = state);
    }

    pub fn set_availability(&mut self, id: NodeId, availability: Availability) {
        self.change_node(id, |n| n.spec.availability = availability);
    }

    pub fn label(&mut self, id: NodeId, key: &str, value: &str) {
        self.change_node(id, |n| drop(n.spec.labels.insert(key.into(), value.into())));
    }

    pub fn offer(&mut self, id: NodeId, has: &[&str]) {
        let has: Vec<_> = has.iter().map(|h| (*h).to_owned()).collect();
        self.change_node(id, |n| {
            let mut description = n.description.as_deref().unwrap().clone();
            description.resources.generic_resources = generic::parse(&has).unwrap();
            n.description = Some(Arc::new(description));
        });
    }

    pub fn remove_node(&mut self, id: NodeId) {
        self.write(&[Change::Remove(ObjectKind::Node(id))]);
        self.settle();
    }

    pub fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let id = Id::new(&mut self.ids);
        let job_status = spec.mode.is_job().then_some(JobStatus { job_iteration: 0, last_execution: self.now });
        let service = Service {
            id,
            meta: Meta::default(),
            spec: Arc::new(spec),
            previous_spec: None,
            spec_version: 0,
            previous_spec_version: None,
            registry_auth: None,
            previous_registry_auth: None,
            update_status: None,
            job_status,
        };
        self.write(&[Change::Put(Object::Service(Arc::new(service)))]);
        self.settle();
        id
    }

    pub fn update(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let old = self.store.snapshot().service(id).unwrap().clone();
        let mut spec = (*old.spec).clone();
        change(&mut spec);
        let service = Service { spec: Arc::new(spec), spec_version: old.meta.version, ..(*old).clone() };
        self.write(&[Change::Put(Object::Service(Arc::new(service)))]);
        self.settle();
    }

    /// Another manager takes over.
    pub fn change_leader(&mut self) {
        (self.planner, self.scheduler) = (Planner::new(), Scheduler::new());
        self.settle();
    }

    /// Lets `seconds` pass.
    pub fn run(&mut self, seconds: i64) {
        let end = after(self.now, seconds * 1_000_000_000);
        self.settle();
        while let Some(next) = self.wake_at.filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
    }

    /// Lets everybody act until nobody has anything to do.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 500, "this does not come to rest: {:?}", self.store.snapshot().tasks().last());
            let view = self.store.snapshot();
            let plan = self.planner.step(&view, self.now, &mut self.ids);
            self.wake_at = plan.wake_at;
            if !plan.changes.is_empty() {
                self.write(&plan.changes);
                continue;
            }
            let schedule = self.scheduler.step(&view, self.now);
            let done = if schedule.changes.is_empty() { self.nodes_act() } else { schedule.changes };
            if done.is_empty() {
                return;
            }
            self.write(&done);
        }
    }

    /// Nodes that are up start and stop what they are told.
    fn nodes_act(&self) -> Vec<Change> {
        let view = self.store.snapshot();
        let report = |task: &Arc<Task>| {
            let node = view.node(task.node_id?)?;
            if node.status.state != NodeState::Ready || task.status.state.is_terminal() {
                return None;
            }
            let state = match (task.status.state, task.desired_state) {
                (TaskState::New | TaskState::Pending, _) => return None,
                (_, desired) if desired > TaskState::Complete => TaskState::Shutdown,
                (TaskState::Running, _) if self.failing.contains(&task.service_id) => TaskState::Failed,
                (TaskState::Running, TaskState::Complete) => TaskState::Complete,
                (TaskState::Running, _) => return None,
                (TaskState::Ready, TaskState::Ready) => return None,
                (_, TaskState::Ready) => TaskState::Ready,
                _ => TaskState::Running,
            };
            let status = TaskStatus { state, timestamp: self.now, applied_at: Some(self.now), ..TaskStatus::default() };
            Some(Change::Patch(TaskPatch { status: Some(status), ..TaskPatch::of(task.id) }))
        };
        view.tasks().filter_map(report).collect()
    }

    fn write(&mut self, changes: &[Change]) {
        for event in self.store.apply(self.store.index() + 1, self.now, changes) {
            self.planner.handle(&event);
            self.scheduler.handle(&event);
        }
    }

    // --- what there is ---

    /// All tasks of a service, in the order of slots, then of age.
    pub fn tasks(&self, service: ServiceId) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.store.snapshot().tasks_of(service).cloned().collect();
        tasks.sort_by_key(|t| (t.slot, t.meta.created_at, t.id));
        tasks
    }

    /// The tasks that are to run and do.
    pub fn running(&self, service: ServiceId) -> Vec<Arc<Task>> {
        let runs = |t: &Arc<Task>| t.desired_state == TaskState::Running && t.status.state == TaskState::Running;
        self.tasks(service).into_iter().filter(runs).collect()
    }

    /// How many tasks of a service run on each node that is there.
    pub fn spread(&self, service: ServiceId) -> Vec<usize> {
        let view = self.store.snapshot();
        let mut counts: BTreeMap<NodeId, usize> = view.nodes().map(|n| (n.id, 0)).collect();
        for task in self.running(service) {
            *counts.entry(task.node_id.unwrap()).or_default() += 1;
        }
        counts.into_values().collect()
    }

    /// Why the tasks that wait do so, each reason once.
    pub fn reasons(&self, service: ServiceId) -> Vec<String> {
        let waits = |t: &&Arc<Task>| t.status.state < TaskState::Assigned && t.desired_state <= TaskState::Complete;
        let mut reasons: Vec<_> = self.tasks(service).iter().filter(waits).map(|t| t.status.err.clone()).collect();
        reasons.dedup();
        reasons
    }
}

/// A service of so many replicas.
pub fn service(replicas: i64) -> ServiceSpec {
    let container_spec = Some(ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() });
    ServiceSpec {
        name: format!("service of {replicas}"),
        task_template: TaskSpec { container_spec, ..TaskSpec::default() },
        mode: ServiceMode { replicated: Some(Replicated { replicas: Some(replicas) }), ..ServiceMode::default() },
        ..ServiceSpec::default()
    }
}

pub fn global() -> ServiceSpec {
    let mode = ServiceMode { global: Some(Default::default()), ..ServiceMode::default() };
    ServiceSpec { name: "global".into(), mode, ..service(0) }
}

pub fn named(name: &str, spec: ServiceSpec) -> ServiceSpec {
    ServiceSpec { name: name.into(), ..spec }
}

pub fn placed(mut spec: ServiceSpec, change: impl FnOnce(&mut Placement)) -> ServiceSpec {
    change(spec.task_template.placement.get_or_insert_default());
    spec
}

pub fn constrained(spec: ServiceSpec, constraints: &[&str]) -> ServiceSpec {
    placed(spec, |p| p.constraints = constraints.iter().map(|c| (*c).to_owned()).collect())
}

pub fn spread_over(spec: ServiceSpec, descriptor: &str) -> ServiceSpec {
    let spread = Some(Spread { spread_descriptor: descriptor.into() });
    placed(spec, |p| p.preferences = vec![Preference { spread }])
}

pub fn reserving(mut spec: ServiceSpec, change: impl FnOnce(&mut Resources)) -> ServiceSpec {
    let mut reserved = Resources::default();
    change(&mut reserved);
    let resources = ResourceRequirements { reservations: Some(reserved), ..ResourceRequirements::default() };
    spec.task_template.resources = Some(resources);
    spec
}

pub fn things(kind: &str, value: i64) -> Vec<GenericResource> {
    vec![GenericResource::Discrete { kind: kind.into(), value }]
}
