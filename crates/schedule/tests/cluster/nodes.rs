//! What becomes of tasks when nodes change.

use shoal_types::TaskState;
use shoal_types::object::NodeState;
use shoal_types::spec::Availability;

use crate::support::*;

#[test]
fn item_40_drain_moves_tasks_at_once_and_pause_moves_nothing_and_takes_nothing() {
    let (mut world, nodes) = World::new(3);
    let web = world.create(service(6));
    world.set_availability(nodes[0], Availability::Drain);
    assert_eq!(world.spread(web), [0, 3, 3], "without the delay of five seconds");
    world.set_availability(nodes[1], Availability::Pause);
    assert_eq!(world.spread(web), [0, 3, 3]);
    world.update(web, |s| s.mode.replicated.as_mut().unwrap().replicas = Some(8));
    assert_eq!(world.spread(web), [0, 3, 5]);
    world.set_availability(nodes[2], Availability::Pause);
    world.update(web, |s| s.mode.replicated.as_mut().unwrap().replicas = Some(9));
    assert_eq!(world.reasons(web), ["no suitable node (3 nodes not available for new tasks)"]);
}

#[test]
fn item_41_nothing_moves_back_by_itself() {
    let (mut world, nodes) = World::new(3);
    let web = world.create(service(6));
    world.set_availability(nodes[0], Availability::Drain);
    world.set_availability(nodes[0], Availability::Active);
    world.run(60);
    assert_eq!(world.spread(web), [0, 3, 3]);
    world.set_state(nodes[1], NodeState::Down);
    world.run(6);
    assert_eq!(world.spread(web), [3, 0, 3], "the empty node is filled first");
    world.set_state(nodes[1], NodeState::Ready);
    world.change_leader();
    world.run(60);
    assert_eq!(world.spread(web), [3, 0, 3]);
    // what is new goes where there is least
    world.update(web, |s| s.mode.replicated.as_mut().unwrap().replicas = Some(9));
    assert_eq!(world.spread(web), [3, 3, 3]);
}

#[test]
fn item_42_a_task_whose_node_no_longer_fits_is_rejected_and_runs_elsewhere() {
    let (mut world, nodes) = World::new(2);
    nodes.iter().for_each(|n| world.label(*n, "disk", "ssd"));
    let web = world.create(constrained(service(1), &["node.labels.disk==ssd"]));
    let task = world.running(web).remove(0);
    world.change_node(task.node_id.unwrap(), |n| n.spec.labels.clear());
    let rejected = &world.tasks(web)[0];
    assert_eq!((rejected.id, rejected.status.state), (task.id, TaskState::Rejected));
    assert_eq!(rejected.status.err, "assigned node no longer meets constraints");
    world.run(6);
    assert_ne!(world.running(web)[0].node_id, task.node_id);
    // and waits where there is no other
    let other = world.running(web)[0].node_id.unwrap();
    world.change_node(other, |n| n.spec.labels.clear());
    world.run(6);
    assert_eq!(world.reasons(web), ["no suitable node (scheduling constraints not satisfied on 2 nodes)"]);
}

#[test]
fn tasks_of_a_node_that_is_down_run_elsewhere_at_once_and_what_returns_is_stopped() {
    let (mut world, nodes) = World::new(3);
    let web = world.create(service(3));
    let lost = world.running(web).into_iter().find(|t| t.node_id == Some(nodes[0])).unwrap();
    world.set_state(nodes[0], NodeState::Down);
    assert_eq!(world.running(web).len(), 3);
    assert_eq!(world.spread(web)[0], 0);
    world.set_state(nodes[0], NodeState::Ready);
    let stopped = world.tasks(web).into_iter().find(|t| t.id == lost.id).unwrap();
    assert_eq!((stopped.desired_state, stopped.status.state), (TaskState::Shutdown, TaskState::Shutdown));
}

#[test]
fn a_node_that_is_only_unknown_keeps_its_tasks_and_takes_no_more() {
    for state in [NodeState::Unknown, NodeState::Disconnected] {
        let (mut world, nodes) = World::new(2);
        let web = world.create(service(2));
        world.set_state(nodes[0], state);
        world.run(600);
        assert_eq!(world.spread(web), [1, 1]);
        world.update(web, |s| s.mode.replicated.as_mut().unwrap().replicas = Some(4));
        assert_eq!(world.spread(web), [1, 3]);
    }
}

#[test]
fn a_node_that_is_removed_leaves_its_tasks_to_the_others() {
    let (mut world, nodes) = World::new(2);
    let web = world.create(service(4));
    world.set_state(nodes[0], NodeState::Down);
    world.remove_node(nodes[0]);
    world.run(6);
    assert_eq!(world.spread(web), [4]);
    assert!(world.tasks(web).iter().any(|t| t.status.state == TaskState::Orphaned));
}

#[test]
fn a_global_service_is_on_each_node_that_fits_and_says_why_it_waits() {
    let (mut world, nodes) = World::new(3);
    let each = world.create(reserving(global(), |r| r.memory_bytes = 900 << 20));
    assert_eq!(world.spread(each), [1, 1, 1]);
    let new = world.add_node("n4");
    world.change_node(new, |n| n.status.state = NodeState::Unknown);
    assert_eq!(world.spread(each), [1, 1, 1, 0]);
    assert_eq!(world.reasons(each), ["no suitable node (1 node not available for new tasks)"]);
    world.set_state(new, NodeState::Ready);
    assert_eq!(world.spread(each), [1, 1, 1, 1]);
    let second = world.create(named("second", reserving(global(), |r| r.memory_bytes = 900 << 20)));
    assert_eq!(world.reasons(second), ["no suitable node (insufficient resources on 1 node)"]);
    world.set_availability(nodes[0], Availability::Drain);
    assert_eq!(world.spread(each), [0, 1, 1, 1]);
    world.set_availability(nodes[0], Availability::Active);
    assert_eq!(world.spread(each).iter().sum::<usize>() + world.spread(second).iter().sum::<usize>(), 4);
}

#[test]
fn a_new_leader_decides_nothing_anew() {
    let (mut world, nodes) = World::new(4);
    let web = world.create(service(10));
    let each = world.create(global());
    world.set_availability(nodes[2], Availability::Drain);
    let before = (world.spread(web), world.spread(each), world.store.index());
    world.change_leader();
    world.run(60);
    assert_eq!((world.spread(web), world.spread(each), world.store.index()), before);
}
