//! What a decision costs: the changes, not the cluster.

use std::cell::Cell;
use std::sync::Arc;

use shoal_plan::Planner;
use shoal_types::view::List;
use shoal_types::{Change, object::TaskStatus};
use shoal_types::{Cluster, Config, ConfigId, Node, NodeId, Secret, SecretId, Service, ServiceId};
use shoal_types::{Task, TaskId, TaskPatch, TaskState, View};

use crate::support::*;

/// A view that counts the tasks it shows.
struct Counted<'a> {
    store: &'a Snapshot,
    tasks: Cell<usize>,
}

impl<'a> Counted<'a> {
    fn new(store: &'a Snapshot) -> Self {
        Self { store, tasks: Cell::new(0) }
    }

    fn count<'b>(&'b self, tasks: List<'b, Task>) -> List<'b, Task> {
        Box::new(tasks.inspect(|_| self.tasks.set(self.tasks.get() + 1)))
    }
}

impl View for Counted<'_> {
    fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.store.cluster()
    }
    fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.store.node(id)
    }
    fn nodes(&self) -> List<'_, Node> {
        self.store.nodes()
    }
    fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.store.service(id)
    }
    fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.store.service_named(name)
    }
    fn services(&self) -> List<'_, Service> {
        self.store.services()
    }
    fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.set(self.tasks.get() + 1);
        self.store.task(id)
    }
    fn tasks(&self) -> List<'_, Task> {
        self.count(self.store.tasks())
    }
    fn tasks_of(&self, service: ServiceId) -> List<'_, Task> {
        self.count(self.store.tasks_of(service))
    }
    fn tasks_on(&self, node: NodeId) -> List<'_, Task> {
        self.count(self.store.tasks_on(node))
    }
    fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.store.secret(id)
    }
    fn secret_named(&self, name: &str) -> Option<&Arc<Secret>> {
        self.store.secret_named(name)
    }
    fn secrets(&self) -> List<'_, Secret> {
        self.store.secrets()
    }
    fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        self.store.config(id)
    }
    fn config_named(&self, name: &str) -> Option<&Arc<Config>> {
        self.store.config_named(name)
    }
    fn configs(&self) -> List<'_, Config> {
        self.store.configs()
    }
}

/// Ends a task of a service with `replicas`, and counts how many tasks are read to replace it.
fn reads_for_one_failure(replicas: i64, update: bool) -> usize {
    let mut world = World::new(0);
    world.checks.clear();
    let web = world.create(replicated("v1", replicas));
    if update {
        world.update(web, |s| set_image(s, "v2"));
    }
    let task = world.slot(web, 5).remove(0);
    let status = TaskStatus { state: TaskState::Failed, timestamp: world.now, ..TaskStatus::default() };
    let change = Change::Patch(TaskPatch { status: Some(status), ..TaskPatch::of(task.id) });
    for event in world.write(&[change]) {
        world.planner.handle(&event);
    }
    let view = Counted::new(&world.store);
    let step = world.planner.step(&view, world.now, &mut world.ids);
    assert_eq!(step.changes.len(), 2, "one stopped, one made");
    view.tasks.get()
}

#[test]
fn replacing_a_task_reads_no_more_tasks_in_a_large_service_than_in_a_small_one() {
    for update in [false, true] {
        let (small, large) = (reads_for_one_failure(10, update), reads_for_one_failure(2000, update));
        assert_eq!(small, large, "update: {update}");
        assert!(large <= 20, "{large}");
    }
}

#[test]
fn a_new_leader_reads_every_task_a_few_times_and_writes_nothing() {
    let mut world = World::new(0);
    world.checks.clear();
    world.create(replicated("v1", 1000));
    let view = Counted::new(&world.store);
    let step = Planner::new().step(&view, world.now, &mut world.ids);
    assert_eq!(step.changes, []);
    assert!(view.tasks.get() <= 3 * 1000, "{}", view.tasks.get());
}
