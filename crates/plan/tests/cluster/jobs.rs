//! Jobs, replicated and global.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, RestartCondition};
use shoal_types::{Change, ServiceId, Task, TaskState, View};

use crate::support::*;

/// The tasks of the present run that have ended well.
fn done(world: &World, job: ServiceId) -> Vec<Arc<Task>> {
    let run = world.service(job).job_status.unwrap().job_iteration;
    let mut tasks = world.tasks(job);
    tasks.retain(|t| t.status.state == TaskState::Complete && t.job_iteration == Some(run));
    tasks
}

/// How many containers of a job there are.
fn containers(world: &World, job: ServiceId) -> usize {
    let runs = |t: &&Arc<Task>| (TaskState::Starting..=TaskState::Running).contains(&t.status.state);
    world.store.tasks_of(job).filter(runs).count()
}

/// No job has more containers than may run at a time, whatever happens.
fn never_too_many_at_a_time(world: &World) {
    for service in world.store.services().filter(|s| s.spec.mode.replicated_job.is_some()) {
        let (concurrent, _) = service.spec.mode.job_counts();
        let cut_off = world.store.tasks_of(service.id).filter(|t| world.cut_off.contains(&t.id)).count();
        assert!(containers(world, service.id) as u64 <= concurrent + cut_off as u64, "at {}", world.now);
    }
}

fn world(nodes: usize) -> World {
    let mut world = World::new(nodes);
    world.checks.push(never_too_many_at_a_time);
    world
}

#[test]
fn a_job_runs_so_many_at_a_time_until_all_have_ended_well() {
    let mut world = world(3);
    let job = world.create(job("v1-exit0", 2, 5));
    assert_eq!(world.tasks(job).len(), 2);
    let first = world.tasks(job).remove(0);
    assert_eq!((first.desired_state, first.job_iteration), (TaskState::Complete, Some(0)));
    world.run(30);
    let slots: Vec<_> = done(&world, job).iter().map(|t| t.slot).collect();
    assert_eq!(BTreeSet::from_iter(slots.clone()), BTreeSet::from([0, 1, 2, 3, 4]));
    assert_eq!((slots.len(), world.tasks(job).len()), (5, 5));
    assert!(world.tasks(job).iter().all(|t| t.desired_state == TaskState::Complete));
    world.change_leader();
    world.run(30);
    assert_eq!(world.tasks_made(), 5, "what is done is done");
}

#[test]
fn what_fails_is_tried_again_in_its_slot_after_the_delay() {
    let mut world = world(2);
    let job = world.create(job("v1-exit3", 1, 2));
    world.run(2);
    let failed = world.slot(job, 0).remove(0);
    assert_eq!((failed.status.state, failed.desired_state), (TaskState::Failed, TaskState::Shutdown));
    assert_eq!(world.slot(job, 0)[1].desired_state, TaskState::Ready);
    world.run(2);
    assert_eq!(world.slot(job, 0)[1].desired_state, TaskState::Ready, "5 s have not passed");
    world.run(60);
    assert_eq!(world.slot(job, 1).len(), 0, "the second slot waits for the first");
    assert!(world.slot(job, 0).len() <= 5, "history has its limit");
    assert!(world.tasks_made() > 8);
}

#[test]
fn a_policy_of_any_restarts_nothing_that_ended_well() {
    let mut world = world(1);
    let mut spec = job("v1-exit0", 1, 1);
    spec.task_template.restart_policy = policy(RestartCondition::Any, 0);
    let job = world.create(spec);
    world.run(60);
    assert_eq!((world.tasks(job).len(), done(&world, job).len()), (1, 1));
}

#[test]
fn a_slot_that_may_not_be_tried_again_is_spent_and_the_others_go_on() {
    for (condition, attempts, made) in [(RestartCondition::None, 0, 1), (RestartCondition::OnFailure, 2, 3)] {
        let mut world = world(2);
        let mut spec = job("v1-exit3", 1, 3);
        spec.task_template.restart_policy = policy(condition, attempts);
        let job = world.create(spec);
        world.run(300);
        for slot in 0..3 {
            assert_eq!(world.slot(job, slot).len(), made, "slot {slot}");
        }
        assert!(world.tasks(job).iter().all(|t| t.desired_state == TaskState::Shutdown));
        world.change_leader();
        world.run(300);
        assert_eq!(world.tasks_made(), 3 * made);
    }
}

#[test]
fn attempts_are_counted_anew_in_each_run() {
    let mut world = world(1);
    let mut spec = job("v1-exit3", 1, 1);
    spec.task_template.restart_policy = policy(RestartCondition::Any, 1);
    let job = world.create(spec);
    world.run(60);
    world.update(job, |s| drop(s.labels.insert("a".into(), "b".into())));
    world.run(60);
    world.rollback(job);
    world.run(60);
    assert_eq!(world.tasks_made(), 6, "each run has one task and one restart");
    let last = world.slot(job, 0).pop().unwrap();
    assert_eq!((last.spec_version, last.job_iteration), (0, Some(2)), "an old version, a new run");
}

#[test]
fn any_update_begins_another_run_and_stops_what_is_left_of_the_last_one() {
    let mut world = world(3);
    let job = world.create(job("v1", 2, 4));
    world.run(2);
    let first = world.tasks(job);
    assert_eq!(containers(&world, job), 2);
    world.update(job, |s| drop(s.labels.insert("a".into(), "b".into())));
    for task in &first {
        assert_eq!(world.store.task(task.id).unwrap().desired_state, TaskState::Remove);
    }
    world.run(1);
    let second: Vec<_> = world.tasks(job).into_iter().filter(|t| t.job_iteration == Some(1)).collect();
    assert!(second.iter().all(|t| t.desired_state == TaskState::Ready), "the others still stop");
    world.run(5);
    let second = world.tasks(job);
    assert!(second.iter().all(|t| t.job_iteration == Some(1)), "what stopped is forgotten");
    assert_eq!((second.len(), containers(&world, job)), (2, 2));
    assert_eq!(world.service(job).update_status, None);
}

#[test]
fn a_task_that_does_not_stop_holds_up_the_next_run_for_a_minute_only() {
    let mut world = world(1);
    world.checks.clear();
    world.stop_time = 1000 * SECOND;
    let job = world.create(job("v1", 1, 2));
    world.run(2);
    world.update(job, |s| drop(s.labels.insert("a".into(), "b".into())));
    world.run(58);
    assert_eq!(containers(&world, job), 1);
    world.run(10);
    assert_eq!(containers(&world, job), 2);
}

#[test]
fn what_ended_well_before_stays_as_history_within_its_limit() {
    let mut world = world(1);
    let job = world.create(job("v1-exit0", 1, 1));
    for _ in 0..8 {
        world.run(10);
        world.update(job, |s| s.task_template.force_update += 1);
    }
    world.run(10);
    assert_eq!((world.tasks_made(), world.slot(job, 0).len(), done(&world, job).len()), (9, 5, 1));
}

#[test]
fn a_task_whose_node_goes_away_is_replaced_elsewhere() {
    let mut world = world(2);
    let job = world.create(job("v1", 1, 1));
    world.run(2);
    let node = world.slot(job, 0)[0].node_id.unwrap();
    world.set_availability(node, Availability::Drain);
    world.run(5);
    let tasks = world.slot(job, 0);
    assert_eq!((tasks.len(), tasks[0].status.state), (2, TaskState::Shutdown));
    assert_ne!(tasks[1].node_id, Some(node));
    assert_eq!(tasks[1].status.state, TaskState::Running, "without the delay, once the old one has stopped");
    world.set_state(tasks[1].node_id.unwrap(), NodeState::Down);
    world.set_availability(node, Availability::Active);
    world.run(8);
    let last = world.slot(job, 0).pop().unwrap();
    assert_eq!((last.node_id, last.status.state), (Some(node), TaskState::Running));
}

#[test]
fn what_had_been_given_up_for_lost_but_ended_well_is_not_run_again() {
    let mut world = world(2);
    let job = world.create(job("v1", 1, 1));
    world.run(2);
    let lost = world.slot(job, 0).remove(0);
    world.set_state(lost.node_id.unwrap(), NodeState::Down);
    world.run(1);
    assert_eq!(world.slot(job, 0)[1].desired_state, TaskState::Ready, "it is given the time to be heard of");
    world.end_task(lost.id, TaskState::Complete);
    assert_eq!(world.slot(job, 0)[1].desired_state, TaskState::Shutdown);
    world.run(60);
    assert_eq!((world.slot(job, 0).len(), done(&world, job).len()), (2, 1));
}

#[test]
fn done_is_done_also_where_the_node_goes_away() {
    let mut world = world(1);
    let job = world.create(job("v1-exit0", 1, 1));
    world.run(5);
    let node = world.tasks(job)[0].node_id.unwrap();
    world.set_availability(node, Availability::Drain);
    world.set_state(node, NodeState::Down);
    world.run(60);
    assert_eq!((world.tasks(job).len(), done(&world, job).len()), (1, 1));
    world.change_leader();
    world.run(60);
    assert_eq!(world.tasks(job).len(), 1);
}

#[test]
fn a_global_job_runs_once_on_each_node_that_fits() {
    let mut world = world(3);
    let nodes: Vec<_> = world.store.nodes().map(|n| n.id).collect();
    world.set_availability(nodes[0], Availability::Drain);
    world.set_state(nodes[1], NodeState::Down);
    let job = world.create(global_job("v1-exit0"));
    world.run(10);
    let on = |world: &World| done(world, job).iter().map(|t| t.node_id.unwrap()).collect::<BTreeSet<_>>();
    assert_eq!(on(&world), BTreeSet::from([nodes[2]]));
    assert!(world.tasks(job).iter().all(|t| t.slot == 0 && t.desired_state == TaskState::Complete));
    // nodes that come, or come back, run it too
    world.set_availability(nodes[0], Availability::Active);
    world.set_state(nodes[1], NodeState::Ready);
    let new = world.add_node();
    world.run(10);
    assert_eq!(on(&world), nodes.iter().copied().chain([new]).collect());
    world.change_leader();
    world.run(10);
    assert_eq!(world.tasks(job).len(), 4);
    world.remove_node(new);
    assert_eq!(world.tasks(job).len(), 3, "the records of a node that is gone are forgotten");
}

#[test]
fn a_global_job_counts_attempts_and_is_run_again_by_any_update() {
    let mut world = world(2);
    let mut spec = global_job("v1-exit3");
    spec.task_template.restart_policy = policy(RestartCondition::OnFailure, 2);
    let job = world.create(spec);
    world.run(120);
    let mut by_node: BTreeMap<_, usize> = BTreeMap::new();
    world.tasks(job).iter().for_each(|t| *by_node.entry(t.node_id).or_default() += 1);
    assert_eq!(by_node.into_values().collect::<Vec<_>>(), [3, 3]);
    world.update(job, |s| set_image(s, "v2-exit0"));
    world.run(10);
    assert_eq!((done(&world, job).len(), world.tasks(job).len()), (2, 2), "former runs are forgotten");
}

#[test]
fn a_global_job_leaves_a_paused_node_alone_and_leaves_a_drained_one() {
    let mut world = world(1);
    let job = world.create(global_job("v1"));
    let node = world.store.nodes().next().unwrap().id;
    world.run(2);
    world.set_availability(node, Availability::Pause);
    world.run(10);
    assert_eq!(containers(&world, job), 1, "it goes on");
    let task = world.tasks(job).remove(0);
    world.end_task(task.id, TaskState::Failed);
    world.run(60);
    assert_eq!(world.tasks(job).len(), 1, "nothing new on a paused node");
    world.set_availability(node, Availability::Active);
    world.run(10);
    assert_eq!(containers(&world, job), 1);
    world.set_availability(node, Availability::Drain);
    world.run(10);
    assert_eq!(containers(&world, job), 0);
    world.set_availability(node, Availability::Active);
    world.run(10);
    assert_eq!(containers(&world, job), 1, "what was stopped is run when the node is back");
}

#[test]
fn a_removed_job_goes_with_all_of_its_tasks() {
    let mut world = world(2);
    for spec in [job("v1", 2, 5), job("v1-exit0", 2, 5), global_job("v1")] {
        let id = world.create(spec);
        world.run(5);
        world.remove(id);
        world.run(10);
        assert_eq!(world.tasks(id).len(), 0);
    }
}

#[test]
fn no_step_is_without_end_where_nothing_may_run() {
    for (concurrent, total) in [(0, 5), (5, 0), (1 << 40, 3)] {
        let mut world = world(1);
        let id = world.create(job("v1-exit0", concurrent, total));
        world.run(10);
        let expected = if concurrent == 0 { 0 } else { total as usize };
        assert_eq!(done(&world, id).len(), expected);
    }
}

#[test]
fn a_large_job_is_planned_in_transactions_of_bounded_size() {
    let mut world = World::new(0);
    world.checks.clear();
    let id = world.create(job("v1", 9000, 9000));
    assert_eq!(world.tasks(id).len(), 9000);
    let largest = world.steps.iter().map(|(_, changes)| changes.len()).max().unwrap();
    assert!(largest <= 3000, "{largest}");
    assert!(world.steps.iter().flat_map(|(_, c)| c).all(|c| matches!(c, Change::Put(_))));
}
