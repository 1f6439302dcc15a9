//! A cluster in memory with virtual time: a store, a scheduler and agents as simple as can be, around the real planner.

mod agent;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use shoal_plan::Planner;
use shoal_store::Store;
use shoal_types::object::{JobStatus, NodeDescription, NodeState, NodeStatus, RootCa, TaskStatus, UpdateStatus};
use shoal_types::spec::{
    Availability, ClusterSpec, ContainerSpec, NodeRole, NodeSpec, Placement, Replicated, ReplicatedJob, Resources,
    RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateState,
};
use shoal_types::{
    Change, Cluster, Event, Id, IdSource, Meta, Nanos, Node, NodeId, Object, ObjectKind, Service, ServiceId, Step,
    Task, TaskId, TaskPatch, TaskState, Timestamp, View, after,
};

pub use shoal_store::Snapshot;

pub const SECOND: Nanos = 1_000_000_000;
pub const MS: Nanos = 1_000_000;

/// Identifiers in the order of a counter, scrambled so that order tells nothing.
pub struct Ids(u64);

/// The cluster.
pub struct World {
    /// What the store holds now.
    pub store: Snapshot,
    written: Store,
    pub now: Timestamp,
    pub planner: Planner,
    pub ids: Ids,
    /// How long containers take to stop.
    pub stop_time: Nanos,
    /// Every commit of the planner, with its time.
    pub steps: Vec<(Timestamp, Vec<Change>)>,
    /// Looked at after every commit.
    pub checks: Vec<fn(&World)>,
    /// Tasks that were on a node while it was down: nobody can tell when their containers stop.
    pub cut_off: BTreeSet<TaskId>,
    wake_at: Option<Timestamp>,
    entered: HashMap<TaskId, (TaskState, TaskState, Timestamp)>,
}

impl IdSource for Ids {
    fn random(&mut self) -> [u8; 17] {
        self.0 += 1;
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

impl World {
    /// A cluster with `nodes` ready nodes.
    pub fn new(nodes: usize) -> Self {
        let mut world = Self {
            store: Snapshot::default(),
            written: Store::new(),
            now: Timestamp::from_second(1_700_000_000).expect("a valid time"),
            planner: Planner::new(),
            ids: Ids(0),
            stop_time: 2 * SECOND,
            steps: Vec::new(),
            checks: vec![no_slot_is_overfull],
            cut_off: BTreeSet::new(),
            wake_at: None,
            entered: HashMap::new(),
        };
        let cluster = cluster(&mut world.ids);
        world.write(&[Change::Put(Object::Cluster(Arc::new(cluster)))]);
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    // --- what users and machines do ---

    pub fn add_node(&mut self) -> NodeId {
        let id = Id::new(&mut self.ids);
        let resources = Resources { nano_cpus: 64 * SECOND, memory_bytes: 1 << 40, ..Resources::default() };
        let node = Node {
            id,
            meta: Meta::default(),
            spec: NodeSpec::default(),
            role: NodeRole::Worker,
            description: Some(Arc::new(NodeDescription { resources, ..NodeDescription::default() })),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager_addr: None,
            wanted_issuer: None,
        };
        self.commit(vec![Change::Put(Object::Node(Arc::new(node)))]);
        id
    }

    pub fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = (**self.store.node(id).expect("a known node")).clone();
        change(&mut node);
        if node.status.state == NodeState::Down {
            self.cut_off.extend(self.store.tasks_on(id).map(|t| t.id));
        }
        self.commit(vec![Change::Put(Object::Node(Arc::new(node)))]);
    }

    pub fn set_state(&mut self, id: NodeId, state: NodeState) {
        self.change_node(id, |n| n.status.state = state);
    }

    pub fn set_availability(&mut self, id: NodeId, availability: Availability) {
        self.change_node(id, |n| n.spec.availability = availability);
    }

    pub fn remove_node(&mut self, id: NodeId) {
        self.cut_off.extend(self.store.tasks_on(id).map(|t| t.id));
        self.commit(vec![Change::Remove(ObjectKind::Node(id))]);
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
        self.commit(vec![Change::Put(Object::Service(Arc::new(service)))]);
        id
    }

    /// As the control API does it: every update counts, whether or not the spec differs.
    pub fn update(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let old = self.service(id);
        let mut spec = (*old.spec).clone();
        change(&mut spec);
        let service = Service {
            spec: Arc::new(spec),
            spec_version: old.meta.version,
            previous_spec: Some(old.spec.clone()),
            previous_spec_version: Some(old.spec_version),
            update_status: None,
            job_status: self.next_run(&old),
            ..(*old).clone()
        };
        self.commit(vec![Change::Put(Object::Service(Arc::new(service)))]);
    }

    /// `service rollback`
    pub fn rollback(&mut self, id: ServiceId) {
        let old = self.service(id);
        let status = UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: Some(self.now),
            completed_at: None,
            message: "manually requested rollback".into(),
        };
        let service = Service {
            spec: old.previous_spec.clone().expect("a previous spec"),
            spec_version: old.previous_spec_version.expect("a previous version"),
            previous_spec: Some(old.spec.clone()),
            previous_spec_version: Some(old.spec_version),
            update_status: Some(status).filter(|_| old.job_status.is_none()),
            job_status: self.next_run(&old),
            ..(*old).clone()
        };
        self.commit(vec![Change::Put(Object::Service(Arc::new(service)))]);
    }

    fn next_run(&self, old: &Service) -> Option<JobStatus> {
        old.job_status.map(|job| JobStatus { job_iteration: job.job_iteration + 1, last_execution: self.now })
    }

    pub fn remove(&mut self, id: ServiceId) {
        self.commit(vec![Change::Remove(ObjectKind::Service(id))]);
    }

    /// A container ends by itself (`docker rm -f` behind our back, a crash, a clean exit).
    pub fn end_task(&mut self, id: TaskId, state: TaskState) {
        self.report(id, state, "task: non-zero exit (1)");
    }

    pub fn report(&mut self, id: TaskId, state: TaskState, err: &str) {
        let status = TaskStatus {
            timestamp: self.now,
            state,
            err: err.into(),
            applied_at: Some(self.now),
            ..TaskStatus::default()
        };
        self.commit(vec![Change::Patch(TaskPatch { status: Some(status), ..TaskPatch::of(id) })]);
    }

    /// Another manager takes over.
    pub fn change_leader(&mut self) {
        self.planner = Planner::new();
        self.plan();
    }

    // --- time ---

    /// Lets `seconds` pass.
    pub fn run(&mut self, seconds: i64) {
        self.run_until(after(self.now, seconds * SECOND));
    }

    pub fn run_until(&mut self, end: Timestamp) {
        loop {
            let next = self.agents_due().into_iter().chain(self.wake_at).min();
            let Some(next) = next.filter(|t| *t <= end) else { break };
            self.now = self.now.max(next);
            let changes = self.agents_act();
            if changes.is_empty() {
                self.plan();
            } else {
                self.commit(changes);
            }
        }
        self.now = end;
    }

    /// Applies changes as one transaction, and lets the planner answer until it has nothing more to say.
    pub fn commit(&mut self, changes: Vec<Change>) {
        self.apply(&changes);
        self.plan();
    }

    fn plan(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the planner does not come to rest at {}: {:?}", self.now, self.steps.last());
            let Step { changes, wake_at } = self.planner.step(&self.store, self.now, &mut self.ids);
            self.wake_at = wake_at;
            if changes.is_empty() {
                assert!(wake_at.is_none_or(|at| at > self.now), "a step without changes asks to be called at once");
                break;
            }
            self.apply(&changes);
            self.steps.push((self.now, changes));
        }
    }

    /// Applies changes as one transaction, which the planner does not hear of.
    pub fn write(&mut self, changes: &[Change]) -> Vec<Event> {
        let events = self.written.apply(self.written.index() + 1, self.now, changes);
        self.store = self.written.snapshot();
        events
    }

    fn apply(&mut self, changes: &[Change]) {
        for event in self.write(changes) {
            self.planner.handle(&event);
        }
        let tasks: Vec<_> = self.store.tasks().map(|t| (t.id, t.status.state, t.desired_state)).collect();
        self.entered.retain(|id, _| self.store.task(*id).is_some());
        for (id, state, desired) in tasks {
            let entry = self.entered.entry(id).or_insert((state, desired, self.now));
            if (entry.0, entry.1) != (state, desired) {
                *entry = (state, desired, self.now);
            }
        }
        for check in self.checks.clone() {
            check(self);
        }
    }

    // --- what there is ---

    pub fn service(&self, id: ServiceId) -> Arc<Service> {
        self.store.service(id).expect("a known service").clone()
    }

    pub fn status(&self, id: ServiceId) -> Option<UpdateStatus> {
        self.service(id).update_status.clone()
    }

    pub fn phase(&self, id: ServiceId) -> Option<UpdateState> {
        self.status(id).map(|s| s.state)
    }

    /// All tasks of a service, oldest first.
    pub fn tasks(&self, id: ServiceId) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.store.tasks_of(id).cloned().collect();
        tasks.sort_by_key(|t| (t.meta.created_at, t.id));
        tasks
    }

    /// The tasks of a slot, oldest first.
    pub fn slot(&self, id: ServiceId, slot: u64) -> Vec<Arc<Task>> {
        self.tasks(id).into_iter().filter(|t| t.slot == slot).collect()
    }

    /// The tasks that are to run and do.
    pub fn running(&self, id: ServiceId) -> Vec<Arc<Task>> {
        let runs = |t: &Arc<Task>| t.desired_state == TaskState::Running && t.status.state == TaskState::Running;
        self.tasks(id).into_iter().filter(runs).collect()
    }

    /// The images of the running tasks by slot.
    pub fn images(&self, id: ServiceId) -> Vec<String> {
        let mut running = self.running(id);
        running.sort_by_key(|t| (t.slot, t.node_id));
        running.iter().map(|t| image(t).to_owned()).collect()
    }

    /// How many tasks were ever made.
    pub fn tasks_made(&self) -> usize {
        let changes = self.steps.iter().flat_map(|(_, changes)| changes);
        changes.filter(|c| matches!(c, Change::Put(Object::Task(_)))).count()
    }

    /// What the user is told about the update.
    pub fn message(&self, id: ServiceId) -> String {
        self.status(id).map(|s| s.message).unwrap_or_default()
    }
}

pub fn image(task: &Task) -> &str {
    task.spec.container_spec.as_ref().map_or("", |c| &c.image)
}

/// A replicated service of `image`. What its containers do is in the image's name: see `agent`.
pub fn replicated(image: &str, replicas: i64) -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        task_template: TaskSpec {
            container_spec: Some(ContainerSpec { image: image.into(), ..ContainerSpec::default() }),
            ..TaskSpec::default()
        },
        mode: ServiceMode { replicated: Some(Replicated { replicas: Some(replicas) }), ..ServiceMode::default() },
        ..ServiceSpec::default()
    }
}

pub fn global(image: &str) -> ServiceSpec {
    let mode = ServiceMode { global: Some(Default::default()), ..ServiceMode::default() };
    ServiceSpec { mode, ..replicated(image, 0) }
}

/// A job that runs `concurrent` tasks at a time until `total` have ended well.
pub fn job(image: &str, concurrent: i64, total: i64) -> ServiceSpec {
    let counts = ReplicatedJob { max_concurrent: Some(concurrent), total_completions: Some(total) };
    let mode = ServiceMode { replicated_job: Some(counts), ..ServiceMode::default() };
    ServiceSpec { mode, ..replicated(image, 0) }
}

pub fn global_job(image: &str) -> ServiceSpec {
    let mode = ServiceMode { global_job: Some(Default::default()), ..ServiceMode::default() };
    ServiceSpec { mode, ..replicated(image, 0) }
}

pub fn set_image(spec: &mut ServiceSpec, image: &str) {
    spec.task_template.container_spec.get_or_insert_default().image = image.into();
}

pub fn set_replicas(spec: &mut ServiceSpec, replicas: i64) {
    spec.mode.replicated = Some(Replicated { replicas: Some(replicas) });
}

pub fn set_constraints(spec: &mut ServiceSpec, constraints: &[&str]) {
    let constraints = constraints.iter().map(|c| (*c).to_owned()).collect();
    spec.task_template.placement = Some(Placement { constraints, ..Placement::default() });
}

pub fn policy(condition: RestartCondition, max_attempts: u64) -> Option<RestartPolicy> {
    Some(RestartPolicy { condition, max_attempts, ..RestartPolicy::default() })
}

pub fn config(change: impl FnOnce(&mut UpdateConfig)) -> Option<UpdateConfig> {
    let mut config = UpdateConfig::default();
    change(&mut config);
    Some(config)
}

/// The promise that slots make: never more containers than the update order allows.
pub fn no_slot_is_overfull(world: &World) {
    let mut slots: BTreeMap<_, (usize, usize, usize)> = BTreeMap::new();
    for task in world.store.tasks().filter(|t| !world.cut_off.contains(&t.id)) {
        let Some(service) = world.store.service(task.service_id) else { continue };
        let starts_first = [&service.spec.update_config, &service.spec.rollback_config]
            .iter()
            .any(|c| c.as_ref().is_some_and(|c| c.order == shoal_types::spec::UpdateOrder::StartFirst));
        let slot = slots.entry((task.service_id, task.slot, task.node_id.filter(|_| task.slot == 0))).or_default();
        slot.0 += usize::from((TaskState::Starting..=TaskState::Running).contains(&task.status.state));
        slot.1 += usize::from(task.desired_state == TaskState::Running && !task.status.state.is_terminal());
        slot.2 = if starts_first { 2 } else { 1 };
    }
    for ((_, slot, node), (containers, wanted, limit)) in slots {
        assert!(containers <= limit, "{containers} containers in slot {slot} {node:?} at {}", world.now);
        assert!(wanted <= limit, "{wanted} wanted tasks in slot {slot} {node:?} at {}", world.now);
    }
}

/// A cluster with the settings of a new one.
fn cluster(ids: &mut dyn IdSource) -> Cluster {
    let root_ca = RootCa {
        cert_pem: String::new(),
        key_pem: String::new(),
        worker_token: String::new(),
        manager_token: String::new(),
    };
    Cluster {
        id: Id::new(ids),
        meta: Meta::default(),
        spec: ClusterSpec::initial(),
        root_ca,
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 0,
        blacklist: Default::default(),
        unlock_keys: None,
        root_rotation: None,
    }
}
