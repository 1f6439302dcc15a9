//! Another manager becomes leader: it decides as the old one would have.

use shoal_types::object::TaskStatus;
use shoal_types::spec::{FailureAction, UpdateOrder, UpdateState};
use shoal_types::{TaskPatch, TaskState, View, after};

use crate::support::*;

#[test]
fn a_settled_cluster_stays_as_it_is() {
    let mut world = World::new(3);
    let web = world.create(replicated("v1", 4));
    world.create(shoal_types::spec::ServiceSpec { name: "other".into(), ..global("v1") });
    world.run(10);
    world.update(web, |s| set_image(s, "v2"));
    world.run(100);
    let steps = world.steps.len();
    world.change_leader();
    world.run(1000);
    assert_eq!(world.steps.len(), steps);
}

#[test]
fn a_restart_delay_ends_when_it_would_have() {
    for at in [0, 1, 4] {
        let mut world = World::new(1);
        let web = world.create(replicated("v1", 1));
        world.run(2);
        world.end_task(world.slot(web, 1)[0].id, TaskState::Failed);
        let failed = world.now;
        world.run(at);
        world.change_leader();
        world.run_until(after(failed, 5 * SECOND - 1));
        assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Ready);
        world.run_until(after(failed, 5 * SECOND));
        assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Running);
    }
}

#[test]
fn a_replacement_still_waits_for_the_old_task_but_not_for_a_delay_that_is_not_its() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 1));
    world.run(2);
    world.stop_time = 20 * SECOND;
    world.update(web, |s| set_image(s, "v2"));
    let begin = world.now;
    world.run(1);
    world.change_leader();
    world.run_until(after(begin, 20 * SECOND - 1));
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Ready);
    world.run_until(after(begin, 20 * SECOND));
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Running);
}

#[test]
fn an_update_goes_on_wherever_it_was() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        for at in 0..60 {
            let mut world = World::new(2);
            let web = world.create(replicated("v1", 3));
            world.run(3);
            world.update(web, |s| {
                set_image(s, "v2");
                s.update_config = config(|c| (c.order, c.parallelism) = (order, 2));
            });
            world.run_until(after(world.now, at * 200 * MS));
            world.change_leader();
            world.run(60);
            assert_eq!(world.images(web), ["v2"; 3], "{order:?} {at}");
            assert_eq!(world.phase(web), Some(UpdateState::Completed), "{order:?} {at}");
            assert_eq!(world.tasks(web).len(), 6, "{order:?} {at}");
        }
    }
}

#[test]
fn an_update_keeps_to_its_parallelism() {
    let mut world = World::new(2);
    let web = world.create(replicated("v1", 3));
    world.run(3);
    world.update(web, |s| set_image(s, "v2-slow"));
    world.run(10);
    world.change_leader();
    world.run(5);
    assert_eq!(world.images(web), ["v1", "v1"]);
}

#[test]
fn a_slot_whose_new_task_runs_is_finished_while_the_only_worker_is_held_up() {
    let mut world = World::new(2);
    let web = world.create(replicated("v1", 2));
    world.run(3);
    world.update(web, |s| {
        set_image(s, "v2-slow");
        s.update_config = config(|c| (c.order, c.parallelism) = (UpdateOrder::StartFirst, 1));
    });
    world.run(1);
    world.end_task(world.slot(web, 2)[0].id, TaskState::Failed);
    let [old, new] = &world.slot(web, 1)[..] else { panic!("the new task comes beside the old one") };
    world.planner = shoal_plan::Planner::new();
    world.report(new.id, TaskState::Running, "");
    assert!(world.slot(web, 2)[1].status.state < TaskState::Running, "it holds the worker");
    assert_eq!(world.slot(web, 1)[0].desired_state, TaskState::Shutdown, "{}", old.id);
    world.run(60);
    assert_eq!((world.phase(web), world.images(web).len()), (Some(UpdateState::Completed), 2));
}

#[test]
fn a_slot_that_waits_for_a_worker_keeps_one_task_of_an_update_that_was_overtaken() {
    let mut world = World::new(2);
    let web = world.create(replicated("v1", 2));
    world.run(3);
    let start_first = |parallelism| config(|c| (c.order, c.parallelism) = (UpdateOrder::StartFirst, parallelism));
    world.update(web, |s| {
        set_image(s, "v2-slow");
        s.update_config = start_first(2);
    });
    world.run(1);
    world.planner = shoal_plan::Planner::new();
    for slot in [1, 2] {
        let task = world.slot(web, slot)[1].id;
        let status = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
        let patch = TaskPatch { status: Some(status), ..TaskPatch::of(task) };
        world.write(&[shoal_types::Change::Patch(patch)]);
    }
    world.update(web, |s| {
        set_image(s, "v3-slow");
        s.update_config = start_first(1);
    });
    let desired = |world: &World, slot| world.slot(web, slot).iter().map(|t| t.desired_state).collect::<Vec<_>>();
    let (shutdown, running) = (TaskState::Shutdown, TaskState::Running);
    // Three containers would be a pile: the newest waits until the first has stopped.
    assert_eq!(desired(&world, 1), [shutdown, running, TaskState::Ready], "it is being replaced");
    assert_eq!(desired(&world, 2), [shutdown, running]);
    world.run(100);
    assert_eq!(world.images(web), ["v3-slow"; 2]);
}

#[test]
fn failures_of_tasks_that_the_old_leader_made_count() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 2));
    world.run(3);
    world.update(web, |s| {
        set_image(s, "v2-slow");
        s.update_config = config(|c| c.failure_action = FailureAction::Rollback);
    });
    world.run(10);
    world.change_leader();
    world.end_task(world.slot(web, 1)[1].id, TaskState::Failed);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackStarted));
    world.change_leader();
    world.run(60);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
    assert_eq!(world.images(web), ["v1", "v1"]);
}

#[test]
fn a_paused_update_stays_paused() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 2));
    world.run(3);
    world.update(web, |s| set_image(s, "v2-reject"));
    world.run(20);
    world.change_leader();
    world.run(100);
    assert_eq!((world.phase(web), world.images(web).len()), (Some(UpdateState::Paused), 1));
}

#[test]
fn what_happened_while_there_was_no_leader_is_made_good() {
    let mut world = World::new(2);
    let web = world.create(replicated("v1", 4));
    let gone = world.create(shoal_types::spec::ServiceSpec { name: "gone".into(), ..replicated("v1", 2) });
    world.run(3);
    let node = world.store.nodes().next().unwrap().id;
    world.planner = shoal_plan::Planner::new();
    let changes = [
        shoal_types::Change::Remove(shoal_types::ObjectKind::Node(node)),
        shoal_types::Change::Remove(shoal_types::ObjectKind::Service(gone)),
    ];
    world.cut_off.extend(world.store.tasks_on(node).map(|t| t.id));
    world.write(&changes);
    world.change_leader();
    world.run(20);
    assert_eq!(world.running(web).len(), 4);
    assert_eq!(world.tasks(gone).len(), 0);
}
