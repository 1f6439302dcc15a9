//! Nodes that go down, are drained, paused, removed, or stop fitting.

use std::sync::Arc;

use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, ResourceRequirements, Resources};
use shoal_types::{Change, GenericResource, NodeId, ServiceId, TaskPatch, TaskState, View, after, generic};

use crate::support::*;

/// Two nodes with two replicas each; the first node.
fn spread(image: &str) -> (World, ServiceId, NodeId) {
    let mut world = World::new(2);
    let web = world.create(replicated(image, 4));
    world.run(2);
    let node = world.running(web)[0].node_id.unwrap();
    assert_eq!(on(&world, web, node), 2);
    (world, web, node)
}

fn on(world: &World, web: ServiceId, node: NodeId) -> usize {
    world.running(web).iter().filter(|t| t.node_id == Some(node)).count()
}

#[test]
fn tasks_of_a_node_that_is_down_run_elsewhere_without_the_delay() {
    let (mut world, web, node) = spread("v1");
    world.set_state(node, NodeState::Down);
    let lost = world.tasks(web).into_iter().filter(|t| t.node_id == Some(node));
    assert!(lost.into_iter().all(|t| t.desired_state == TaskState::Shutdown));
    world.run(1);
    assert_eq!((world.running(web).len(), on(&world, web, node)), (4, 0), "nobody waits for a node that is down");
    world.set_state(node, NodeState::Ready);
    world.run(30);
    assert_eq!(on(&world, web, node), 0, "nothing moves back");
    assert_eq!(world.tasks(web).iter().filter(|t| t.status.state == TaskState::Shutdown).count(), 2);
}

#[test]
fn tasks_of_a_node_that_is_long_down_are_given_up() {
    let (mut world, web, node) = spread("v1");
    world.set_state(node, NodeState::Down);
    world.run(24 * 3600 - 1);
    let orphans = |w: &World| w.tasks(web).iter().filter(|t| t.status.state == TaskState::Orphaned).count();
    assert_eq!(orphans(&world), 0);
    world.run(1);
    assert_eq!(orphans(&world), 2);
    world.run(60);
    assert_eq!(world.running(web).len(), 4);
}

#[test]
fn a_service_that_is_gone_leaves_nothing_on_a_node_that_never_returns() {
    let (mut world, web, node) = spread("v1");
    world.set_state(node, NodeState::Down);
    world.remove(web);
    world.run(60);
    assert_eq!(world.tasks(web).len(), 2);
    world.run(24 * 3600);
    assert_eq!(world.tasks(web).len(), 0);
}

#[test]
fn t40_draining_moves_tasks_without_the_delay_but_after_they_stopped() {
    let (mut world, web, node) = spread("v1");
    world.set_availability(node, Availability::Drain);
    let drained = world.now;
    world.run_until(after(drained, 2 * SECOND - 1));
    assert_eq!(world.running(web).len(), 2);
    world.run(1);
    assert_eq!((world.running(web).len(), on(&world, web, node)), (4, 0));
}

#[test]
fn t41_tasks_do_not_return_after_a_drain() {
    let (mut world, web, node) = spread("v1");
    world.set_availability(node, Availability::Drain);
    world.run(30);
    world.set_availability(node, Availability::Active);
    world.run(300);
    assert_eq!(on(&world, web, node), 0);
}

#[test]
fn t40_pausing_moves_nothing_and_failed_tasks_restart_elsewhere() {
    let (mut world, web, node) = spread("v1");
    let steps = world.steps.len();
    world.set_availability(node, Availability::Pause);
    world.run(60);
    assert_eq!(world.steps.len(), steps);
    let victim = world.running(web).into_iter().find(|t| t.node_id == Some(node)).unwrap();
    world.end_task(victim.id, TaskState::Failed);
    world.run(10);
    assert_eq!((world.running(web).len(), on(&world, web, node)), (4, 1));
}

#[test]
fn nodes_that_are_unknown_or_disconnected_keep_their_tasks() {
    let (mut world, _, node) = spread("v1");
    let steps = world.steps.len();
    world.set_state(node, NodeState::Unknown);
    world.run(60);
    world.set_state(node, NodeState::Disconnected);
    world.run(60);
    assert_eq!(world.steps.len(), steps);
}

#[test]
fn tasks_of_a_removed_node_are_orphaned_and_replaced() {
    let (mut world, web, node) = spread("v1");
    world.remove_node(node);
    let orphans: Vec<_> = world.tasks(web).into_iter().filter(|t| t.node_id == Some(node)).collect();
    assert_eq!(orphans.len(), 2);
    for task in orphans {
        assert_eq!((task.status.state, task.desired_state), (TaskState::Orphaned, TaskState::Shutdown));
        assert_eq!(task.status.message, "Task belonged to a node that has been deleted");
    }
    world.run(10);
    assert_eq!(world.running(web).len(), 4);
}

#[test]
fn a_replacement_does_not_wait_longer_than_a_minute_for_a_container_that_does_not_stop() {
    let (mut world, web, node) = spread("v1");
    world.stop_time = 3600 * SECOND;
    world.checks.clear();
    world.set_availability(node, Availability::Drain);
    world.run(59);
    assert_eq!(world.running(web).len(), 2);
    world.run(2);
    assert_eq!(world.running(web).len(), 4);
}

#[test]
fn a_replacement_waits_for_the_grace_period_that_the_old_task_was_promised() {
    let mut world = World::new(2);
    let mut spec = replicated("v1", 1);
    spec.task_template.container_spec.as_mut().unwrap().stop_grace_period = Some(300 * SECOND);
    let web = world.create(spec);
    world.run(2);
    world.stop_time = 300 * SECOND;
    world.set_availability(world.running(web)[0].node_id.unwrap(), Availability::Drain);
    world.run(299);
    assert_eq!(world.running(web).len(), 0);
    world.run(2);
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn t42_a_task_whose_node_no_longer_fits_is_rejected_and_runs_elsewhere() {
    let mut world = World::new(2);
    let nodes: Vec<_> = shoal_types::View::nodes(&world.store).map(|n| n.id).collect();
    for node in &nodes {
        world.change_node(*node, |n| _ = n.spec.labels.insert("disk".into(), "ssd".into()));
    }
    let mut spec = replicated("v1", 1);
    set_constraints(&mut spec, &["node.labels.disk==ssd"]);
    let web = world.create(spec);
    world.run(2);
    let task = world.running(web).remove(0);
    let node = task.node_id.unwrap();
    world.change_node(node, |n| n.spec.labels.clear());
    let slot = world.slot(web, 1);
    assert_eq!((slot[0].status.state, slot[0].desired_state), (TaskState::Rejected, TaskState::Shutdown));
    assert_eq!(slot[0].status.message, "task rejected by constraint enforcer");
    assert_eq!(slot[0].status.err, "assigned node no longer meets constraints");
    world.run(10);
    assert_eq!(world.running(web).len(), 1);
    assert_ne!(world.running(web)[0].node_id, Some(node));
}

#[test]
fn a_node_that_shrank_rejects_its_latest_tasks_until_the_rest_fits() {
    let mut world = World::new(1);
    let mut spec = replicated("v1", 1);
    let half = Resources { memory_bytes: 1 << 39, ..Resources::default() };
    spec.task_template.resources = Some(ResourceRequirements { reservations: Some(half), ..Default::default() });
    let web = world.create(spec);
    world.run(1);
    world.update(web, |s| set_replicas(s, 2));
    world.run(1);
    let node = world.running(web)[0].node_id.unwrap();
    world.change_node(node, |n| {
        let mut description = (**n.description.as_ref().unwrap()).clone();
        description.resources.memory_bytes -= 1;
        n.description = Some(description.into());
    });
    assert_eq!(world.slot(web, 1)[0].status.state, TaskState::Running);
    assert_eq!(world.slot(web, 2)[0].status.state, TaskState::Rejected);
}

#[test]
fn a_task_whose_generic_resource_is_no_more_is_rejected() {
    let mut world = World::new(1);
    let node = world.store.nodes().next().unwrap().id;
    let offer = |world: &mut World, has: &[&str]| {
        let has = generic::parse(&has.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap();
        world.change_node(node, |n| {
            let mut description = (**n.description.as_ref().unwrap()).clone();
            description.resources.generic_resources = has;
            n.description = Some(Arc::new(description));
        });
    };
    offer(&mut world, &["gpu=a", "gpu=b", "ssd=3"]);
    let web = world.create(replicated("v1", 2));
    world.run(2);
    let tasks = world.running(web);
    let given = [vec![named("gpu", "b")], vec![GenericResource::Discrete { kind: "ssd".into(), value: 2 }]];
    for (task, assigned_generic) in tasks.iter().zip(given) {
        world.commit(vec![Change::Patch(TaskPatch { assigned_generic, ..TaskPatch::of(task.id) })]);
    }
    let states = |world: &World| tasks.iter().map(|t| world.store.task(t.id).unwrap().status.state).collect::<Vec<_>>();
    offer(&mut world, &["gpu=b", "ssd=2"]);
    assert_eq!(states(&world), [TaskState::Running, TaskState::Running]);
    offer(&mut world, &["gpu=b", "ssd=1"]);
    assert_eq!(states(&world), [TaskState::Running, TaskState::Rejected]);
    offer(&mut world, &["gpu=c"]);
    assert_eq!(states(&world), [TaskState::Rejected, TaskState::Rejected]);
}

fn named(kind: &str, value: &str) -> GenericResource {
    GenericResource::Named { kind: kind.into(), value: value.into() }
}
