//! The scheduler with its store: tasks that wait are given nodes, and the store holds them there. What SwarmKit's own benchmark
//! of its scheduler measures, from tasks in the store to all of them assigned.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion};
use shoal_schedule::Scheduler;
use shoal_store::{Snapshot, Store};
use shoal_types::object::{NodeDescription, NodeState, NodeStatus, Platform, TaskStatus};
use shoal_types::spec::{
    Annotations, ContainerSpec, NodeRole, NodeSpec, Placement, Preference, ResourceRequirements, Resources, Spread,
    TaskSpec,
};
use shoal_types::{Change, Id, Meta, Node, Object, Task, TaskState, Timestamp, View};

use crate::{CpuTime, Ids};

/// Nodes, tasks, and how many tasks are of one service.
#[derive(Clone, Copy)]
struct Shape {
    nodes: u64,
    tasks: u64,
    of_one: u64,
    is_picky: bool,
}

fn node(n: u64, ids: &mut Ids) -> Node {
    let description = NodeDescription {
        hostname: format!("node{n}"),
        platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
        resources: Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Resources::default() },
        ..NodeDescription::default()
    };
    let labels = [("zone".to_owned(), (n % 3).to_string())].into();
    Node {
        id: Id::new(ids),
        meta: Meta::default(),
        spec: NodeSpec { labels, ..NodeSpec::default() },
        role: NodeRole::Worker,
        description: Some(Arc::new(description)),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager_addr: None,
        wanted_issuer: None,
    }
}

/// What a picky task asks for: an even spread over zones, on Linux, with memory of its own.
fn template(is_picky: bool) -> TaskSpec {
    let container_spec = Some(ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() });
    if !is_picky {
        return TaskSpec { container_spec, ..TaskSpec::default() };
    }
    let spread = Some(Spread { spread_descriptor: "node.labels.zone".into() });
    let placement = Placement {
        constraints: vec!["node.platform.os==linux".into()],
        preferences: vec![Preference { spread }],
        ..Placement::default()
    };
    let reservations = Some(Resources { memory_bytes: 8 << 20, ..Resources::default() });
    let resources = Some(ResourceRequirements { reservations, ..ResourceRequirements::default() });
    TaskSpec { container_spec, placement: Some(placement), resources, ..TaskSpec::default() }
}

/// A store in which all tasks wait.
fn waiting(shape: Shape) -> Snapshot {
    let mut ids = Ids(0);
    let (mut store, spec, annotations) =
        (Store::new(), Arc::new(template(shape.is_picky)), Arc::<Annotations>::default());
    let nodes = (0..shape.nodes).map(|n| Change::Put(Object::Node(Arc::new(node(n, &mut ids)))));
    store.apply(1, Timestamp::UNIX_EPOCH, &nodes.collect::<Vec<_>>());
    let mut service_id = Id::new(&mut ids);
    for (n, index) in (0..shape.tasks).zip(2..) {
        if n % shape.of_one == 0 {
            service_id = Id::new(&mut ids);
        }
        let task = Task {
            id: Id::new(&mut ids),
            meta: Meta::default(),
            service_id,
            slot: n % shape.of_one + 1,
            node_id: None,
            annotations: annotations.clone(),
            spec: spec.clone(),
            spec_version: 0,
            endpoint: None,
            registry_auth: None,
            status: TaskStatus { message: "created".into(), ..TaskStatus::default() },
            desired_state: TaskState::Running,
            job_iteration: None,
            assigned_generic: Vec::new(),
        };
        store.apply(index, Timestamp::UNIX_EPOCH, &[Change::Put(Object::Task(Arc::new(task)))]);
    }
    store.snapshot()
}

/// A new leader's scheduler, until nothing waits. Gives the store back, so that taking it down is not measured.
fn schedule(state: Snapshot) -> Store {
    let mut store = Store::from(state);
    let mut scheduler = Scheduler::new();
    for index in store.index() + 1.. {
        let step = scheduler.step(&store.snapshot(), Timestamp::UNIX_EPOCH);
        if step.changes.is_empty() {
            break;
        }
        let events = store.apply(index, Timestamp::UNIX_EPOCH, &step.changes);
        events.iter().for_each(|event| scheduler.handle(event));
    }
    store
}

/// Runs them.
pub fn bench(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("schedule");
    group.sample_size(10);
    for (name, nodes, tasks, of_one, is_picky) in [
        ("10k tasks of their own", 1_000, 10_000, 1, false),
        ("100k tasks of their own", 1_000, 100_000, 1, false),
        ("1000 services of 100", 1_000, 100_000, 100, false),
        ("1 service of 100k", 1_000, 100_000, 100_000, false),
        ("1000 picky services of 100", 1_000, 100_000, 100, true),
        ("20 services of 5000", 5_000, 100_000, 5_000, false),
    ] {
        let state = waiting(Shape { nodes, tasks, of_one, is_picky });
        let placed = schedule(state.clone()).snapshot();
        assert!(placed.tasks().all(|t| t.status.state == TaskState::Assigned), "{name}: something was not placed");
        group.bench_function(BenchmarkId::new(name, format!("{nodes} nodes")), |b| {
            b.iter_batched(|| state.clone(), |state| black_box(schedule(state)), BatchSize::PerIteration);
        });
    }
    group.finish();
}
