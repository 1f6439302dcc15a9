mod filters;
mod properties;
mod spreading;
mod world;

use shoal_types::{NodeId, TaskState};

use world::{World, id, node, task};

#[test]
fn a_new_task_is_assigned_in_one_step_and_no_second_look_is_needed() {
    let mut world = World::new([node(1)]);
    world.add(task(1));
    let step = world.decide();
    assert_eq!(step.changes.len(), 1);
    assert_eq!(world.settle(), 1);
    let placed = world.task(1);
    assert_eq!((placed.status.state, placed.node_id), (TaskState::Assigned, Some(id(1))));
    assert_eq!(placed.status.message, "scheduler assigned task to node");
    assert_eq!(world.decide().changes, []);
}

#[test]
fn a_task_without_a_place_is_pending_and_says_why_once() {
    let mut world = World::new([]);
    world.add(task(1));
    assert_eq!(world.settle(), 1);
    let waiting = world.task(1);
    assert_eq!((waiting.status.state, &*waiting.status.message), (TaskState::Pending, "pending task scheduling"));
    assert_eq!(waiting.status.err, "no suitable node");
    world.put_node(world::down(node(1)));
    assert_eq!(world.settle(), 1);
    assert_eq!(world.task(1).status.err, "no suitable node (1 node not available for new tasks)");
    assert_eq!(world.task(1).status.message, "pending task scheduling");
    world.put_node(world::down(node(1)));
    assert_eq!(world.settle(), 0);
    world.put_node(node(1));
    assert_eq!(world.settle(), 1);
    assert_eq!((world.task(1).status.state, &*world.task(1).status.err), (TaskState::Assigned, ""));
}

#[test]
fn a_step_that_was_not_committed_is_decided_again() {
    let mut world = World::new([node(1)]);
    world.add(task(1));
    let first = world.decide();
    assert_eq!(world.decide(), first);
}

#[test]
fn a_preset_node_is_only_confirmed_or_explained() {
    let mut world = World::new([node(1), node(2)]);
    world.add(world::preset(task(1), 2));
    world.add(world::preset(task(2), 3));
    world.settle();
    assert_eq!(world.task(1).node_id, Some(id(2)));
    assert_eq!(world.task(1).status.message, "scheduler confirmed task can run on preassigned node");
    assert_eq!(world.task(2).status.err, "no suitable node (1 node not available for new tasks)");
    world.put_node(node(3));
    world.settle();
    assert_eq!(world.task(2).status.state, TaskState::Assigned);
}

#[test]
fn a_task_that_is_unwanted_before_it_had_a_node_is_shut_down_here() {
    let mut world = World::new([node(1)]);
    world.add(world::desire(task(1), TaskState::Shutdown));
    world.add(world::desire(world::preset(task(2), 1), TaskState::Shutdown));
    world.add(world::desire(task(3), TaskState::Remove));
    world.settle();
    assert_eq!(
        [1, 2, 3].map(|n| world.task(n).status.state),
        [TaskState::Shutdown, TaskState::Shutdown, TaskState::New]
    );
}

#[test]
fn a_replacement_that_is_desired_ready_is_placed_already() {
    let mut world = World::new([node(1)]);
    world.add(world::desire(task(1), TaskState::Ready));
    world.settle();
    assert_eq!(world.task(1).status.state, TaskState::Assigned);
}

#[test]
fn room_that_becomes_free_is_given_to_those_that_wait() {
    let mut world = World::new([world::with_resources(node(1), 0, 10 << 20)]);
    for n in [1, 2] {
        world.add(world::reserving(task(n), 0, 10 << 20));
    }
    world.settle();
    assert_eq!(world.nodes_of_tasks(), [Some(id(1)), None]);
    world.observe(1, TaskState::Failed);
    world.settle();
    assert_eq!(world.task(2).node_id, Some(id(1)));
}

#[test]
fn a_running_task_that_is_only_desired_to_stop_makes_room() {
    let mut world = World::new([world::with_resources(node(1), 0, 10 << 20)]);
    world.add(world::reserving(task(1), 0, 10 << 20));
    world.settle();
    world.want(1, TaskState::Shutdown);
    world.add(world::reserving(task(2), 0, 10 << 20));
    world.settle();
    assert_eq!(world.task(2).node_id, Some(id::<shoal_types::id::NodeKind>(1) as NodeId));
}

#[test]
fn a_scheduler_that_starts_late_decides_like_one_that_saw_everything() {
    let mut world = World::new((1..=5).map(node));
    for n in 1..=7 {
        world.add(task(n));
    }
    world.settle();
    for n in 8..=15 {
        world.add(task(n));
    }
    let seen = world.decide();
    world.restart();
    assert_eq!(world.decide(), seen);
}

#[test]
fn events_that_the_first_view_already_held_do_no_harm() {
    let mut world = World::new([node(1), node(2)]);
    for n in 1..=3 {
        world.add(task(n));
    }
    world.settle();
    world.replay();
    for n in 4..=6 {
        world.add(task(n));
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [3, 3]);
}
