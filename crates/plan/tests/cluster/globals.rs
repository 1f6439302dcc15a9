//! Global services.

use std::collections::BTreeSet;

use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, RestartCondition, UpdateState};
use shoal_types::{NodeId, ServiceId, TaskState, View};

use crate::support::*;

fn where_it_runs(world: &World, web: ServiceId) -> BTreeSet<NodeId> {
    let nodes: Vec<_> = world.running(web).iter().map(|t| t.node_id.unwrap()).collect();
    let set: BTreeSet<_> = nodes.iter().copied().collect();
    assert_eq!(set.len(), nodes.len(), "more than one on a node");
    set
}

fn three() -> (World, ServiceId, Vec<NodeId>) {
    let mut world = World::new(3);
    let web = world.create(global("v1"));
    world.run(2);
    let nodes: Vec<_> = world.store.nodes().map(|n| n.id).collect();
    assert_eq!(where_it_runs(&world, web), nodes.iter().copied().collect());
    (world, web, nodes)
}

#[test]
fn every_node_has_one_task_without_slot() {
    let (mut world, web, _) = three();
    assert!(world.tasks(web).iter().all(|t| t.slot == 0));
    let node = world.add_node();
    let task = world.tasks(web).pop().unwrap();
    assert_eq!((task.node_id, task.status.state), (Some(node), TaskState::New));
    world.run(2);
    assert_eq!(where_it_runs(&world, web).len(), 4);
}

#[test]
fn a_failed_task_is_replaced_on_its_node_after_the_delay() {
    let (mut world, web, nodes) = three();
    let victim = world.running(web).into_iter().find(|t| t.node_id == Some(nodes[1])).unwrap();
    world.end_task(victim.id, TaskState::Failed);
    world.run(4);
    assert_eq!(where_it_runs(&world, web).len(), 2);
    world.run(2);
    assert_eq!(where_it_runs(&world, web).len(), 3);
}

#[test]
fn a_task_at_rest_is_not_made_anew() {
    let mut world = World::new(2);
    let mut spec = global("v1-exit0");
    spec.task_template.restart_policy = policy(RestartCondition::OnFailure, 0);
    let web = world.create(spec);
    world.run(30);
    world.change_leader();
    world.run(30);
    assert_eq!(world.tasks(web).len(), 2);
}

#[test]
fn drained_and_lost_nodes_have_none_and_get_one_when_they_are_back() {
    for policy in [None, policy(RestartCondition::None, 0), policy(RestartCondition::Any, 1)] {
        for availability in [true, false] {
            let (mut world, _, nodes) = three();
            let mut spec = global("v1");
            spec.name = "other".into();
            spec.task_template.restart_policy = policy.clone();
            let web = world.create(spec);
            world.run(2);
            if availability {
                world.set_availability(nodes[0], Availability::Drain);
            } else {
                world.set_state(nodes[0], NodeState::Down);
            }
            let gone = world.tasks(web).into_iter().find(|t| t.node_id == Some(nodes[0])).unwrap();
            assert_eq!(gone.desired_state, TaskState::Shutdown);
            world.run(20);
            assert_eq!(where_it_runs(&world, web).len(), 2);
            world.set_availability(nodes[0], Availability::Active);
            world.set_state(nodes[0], NodeState::Ready);
            world.run(10);
            assert_eq!(where_it_runs(&world, web).len(), 3);
        }
    }
}

#[test]
fn a_paused_node_keeps_its_task_but_gets_no_other() {
    let (mut world, web, nodes) = three();
    world.set_availability(nodes[0], Availability::Pause);
    world.update(web, |s| set_image(s, "v2"));
    world.run(60);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    let mut images = world.images(web);
    images.sort();
    assert_eq!(images, ["v1", "v2", "v2"]);
    let victim = world.running(web).into_iter().find(|t| t.node_id == Some(nodes[0])).unwrap();
    world.end_task(victim.id, TaskState::Failed);
    world.run(60);
    assert_eq!(world.images(web), ["v2", "v2"]);
    world.set_availability(nodes[0], Availability::Active);
    world.run(10);
    assert_eq!(world.images(web), ["v2"; 3]);
}

#[test]
fn a_paused_node_that_is_back_gets_the_update_it_missed() {
    let (mut world, web, nodes) = three();
    world.set_availability(nodes[0], Availability::Pause);
    world.update(web, |s| set_image(s, "v2"));
    world.run(60);
    let status = world.status(web);
    world.set_availability(nodes[0], Availability::Active);
    world.run(60);
    assert_eq!(world.images(web), ["v2"; 3]);
    assert_eq!(world.status(web), status, "nobody asked for it, nobody is told");
}

#[test]
fn only_nodes_that_fit_the_constraints_have_one() {
    let (mut world, web, nodes) = three();
    world.change_node(nodes[0], |n| _ = n.spec.labels.insert("zone".into(), "a".into()));
    world.update(web, |s| set_constraints(s, &["node.labels.zone==a"]));
    world.run(10);
    assert_eq!(where_it_runs(&world, web), [nodes[0]].into());
    world.change_node(nodes[1], |n| _ = n.spec.labels.insert("zone".into(), "a".into()));
    world.run(10);
    assert_eq!(where_it_runs(&world, web), [nodes[0], nodes[1]].into());
    world.change_node(nodes[0], |n| n.spec.labels.clear());
    world.run(10);
    assert_eq!(where_it_runs(&world, web), [nodes[1]].into());
}

#[test]
fn records_on_a_removed_node_are_deleted() {
    let (mut world, web, nodes) = three();
    world.remove_node(nodes[0]);
    assert!(world.tasks(web).iter().all(|t| t.node_id != Some(nodes[0])));
    world.change_leader();
    assert_eq!(world.tasks(web).len(), 2);
}

#[test]
fn updates_roll_from_node_to_node() {
    let (mut world, web, _) = three();
    world.update(web, |s| {
        set_image(s, "v2");
        s.update_config = config(|c| c.delay = 10 * SECOND);
    });
    world.run(5);
    assert_eq!(world.images(web).iter().filter(|i| *i == "v2").count(), 1);
    assert_eq!(world.phase(web), Some(UpdateState::Updating));
    world.run(60);
    assert_eq!(world.images(web), ["v2"; 3]);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
}

#[test]
fn a_node_that_goes_down_amid_an_update_does_not_block_it() {
    let (mut world, web, _) = three();
    world.update(web, |s| set_image(s, "v2-slow"));
    world.run(5);
    let node = world.tasks(web).into_iter().find(|t| image(t) == "v2-slow").unwrap().node_id.unwrap();
    world.set_state(node, NodeState::Down);
    world.run(120);
    assert_eq!(world.images(web), ["v2-slow"; 2]);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    world.set_state(node, NodeState::Ready);
    world.run(60);
    assert_eq!(world.images(web), ["v2-slow"; 3]);
}
