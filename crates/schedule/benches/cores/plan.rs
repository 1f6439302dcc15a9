//! The planner with its store, on services of a hundred thousand tasks: what a new service, a new leader and one event cost.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use shoal_plan::Planner;
use shoal_store::Store;
use shoal_types::object::TaskStatus;
use shoal_types::spec::{ContainerSpec, Replicated, ServiceMode, ServiceSpec, TaskSpec};
use shoal_types::{Change, Id, Meta, NodeId, Object, Service, ServiceId, Task, TaskPatch, TaskState, Timestamp, View};

use crate::{CpuTime, Ids};

const TASKS: i64 = 100_000;

/// A planner and the store that it plans for.
struct World {
    store: Store,
    planner: Planner,
    ids: Ids,
}

impl World {
    /// One service of so many replicas, planned.
    fn new(replicas: i64) -> (Self, ServiceId) {
        let mut world = Self { store: Store::new(), planner: Planner::new(), ids: Ids(0) };
        world.settle();
        let id = Id::new(&mut world.ids);
        world.write(&[Change::Put(Object::Service(Arc::new(service(id, replicas))))]);
        world.settle();
        (world, id)
    }

    fn write(&mut self, changes: &[Change]) {
        let events = self.store.apply(self.store.index() + 1, Timestamp::UNIX_EPOCH, changes);
        events.iter().for_each(|event| self.planner.handle(event));
    }

    fn settle(&mut self) {
        loop {
            let step = self.planner.step(&self.store.snapshot(), Timestamp::UNIX_EPOCH, &mut self.ids);
            if step.changes.is_empty() {
                break;
            }
            self.write(&step.changes);
        }
    }

    /// Reports all tasks running.
    fn run(&mut self) {
        let node: NodeId = Id::new(&mut self.ids);
        let report = |task: &Arc<Task>| observe(task, Some(node), TaskState::Running);
        let changes: Vec<_> = self.store.snapshot().tasks().map(report).collect();
        self.write(&changes);
        self.settle();
    }
}

fn service(id: ServiceId, replicas: i64) -> Service {
    let container_spec = Some(ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() });
    let spec = ServiceSpec {
        name: "web".into(),
        mode: ServiceMode { replicated: Some(Replicated { replicas: Some(replicas) }), ..ServiceMode::default() },
        task_template: TaskSpec { container_spec, ..TaskSpec::default() },
        ..ServiceSpec::default()
    };
    Service {
        id,
        meta: Meta::default(),
        spec: Arc::new(spec),
        previous_spec: None,
        spec_version: 0,
        previous_spec_version: None,
        registry_auth: None,
        previous_registry_auth: None,
        update_status: None,
        job_status: None,
    }
}

fn observe(task: &Task, node_id: Option<NodeId>, state: TaskState) -> Change {
    let status = Some(TaskStatus { state, ..task.status.clone() });
    Change::Patch(TaskPatch { node_id, status, ..TaskPatch::of(task.id) })
}

/// Runs them.
pub fn bench(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("plan, 100k tasks");
    group.sample_size(10);
    group.bench_function("a new service", |b| b.iter_with_large_drop(|| World::new(TASKS)));
    group.bench_function("all tasks running", |b| {
        b.iter_batched(
            || World::new(TASKS).0,
            |mut world| {
                world.run();
                world
            },
            BatchSize::PerIteration,
        );
    });
    let (mut world, id) = World::new(TASKS);
    world.run();
    group.bench_function("a new leader", |b| {
        let view = world.store.snapshot();
        b.iter_with_large_drop(|| {
            let mut planner = Planner::new();
            assert!(planner.step(&view, Timestamp::UNIX_EPOCH, &mut Ids(0)).changes.is_empty());
            planner
        });
    });
    group.sample_size(50);
    group.bench_function("one task fails and is replaced", |b| {
        b.iter(|| {
            let running = world.store.snapshot();
            let task = running.tasks_of(id).find(|t| t.status.state == TaskState::Running).expect("one that runs");
            world.write(&[observe(task, None, TaskState::Failed)]);
            world.settle();
            black_box(&world.store);
        });
    });
    group.finish();
}
