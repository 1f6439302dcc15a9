//! Rolling updates.

use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, FailureAction, RestartCondition, UpdateOrder, UpdateState};
use shoal_types::{Nanos, ServiceId, TaskState, after};

use crate::support::*;

fn running(image: &str, replicas: i64) -> (World, ServiceId) {
    let mut world = World::new(2);
    let web = world.create(replicated(image, replicas));
    world.run(3);
    assert_eq!(world.running(web).len() as i64, replicas);
    (world, web)
}

/// Runs until `done`, at most 1000 s. Returns the time it took.
fn until(world: &mut World, done: impl Fn(&World) -> bool) -> Nanos {
    let start = world.now;
    for _ in 0..10_000 {
        if done(world) {
            return world.now.duration_since(start).as_nanos() as Nanos;
        }
        world.run_until(after(world.now, 100 * MS));
    }
    panic!("it never comes to that; {:?}", world.service_states());
}

fn count(world: &World, web: ServiceId, wanted: &str) -> usize {
    world.images(web).iter().filter(|i| *i == wanted).count()
}

impl World {
    fn service_states(&self) -> Vec<(u64, TaskState, TaskState, String)> {
        let tasks = shoal_types::View::tasks(&self.store);
        tasks.map(|t| (t.slot, t.desired_state, t.status.state, image(t).to_owned())).collect()
    }
}

#[test]
fn a_stop_first_update_replaces_one_slot_at_a_time_and_reports() {
    let (mut world, web) = running("v1", 2);
    let begin = world.now;
    world.update(web, |s| set_image(s, "v2"));
    let status = world.status(web).unwrap();
    assert_eq!((status.state, &*status.message), (UpdateState::Updating, "update in progress"));
    assert_eq!((status.started_at, status.completed_at), (Some(begin), None));
    let slot = world.slot(web, 1);
    assert_eq!(slot.iter().map(|t| t.desired_state).collect::<Vec<_>>(), [TaskState::Shutdown, TaskState::Ready]);
    assert_eq!(world.slot(web, 2).len(), 1);
    world.run_until(after(begin, 2 * SECOND - 1));
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Ready, "prepared while the old one stops");
    world.run_until(after(begin, 2 * SECOND));
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Running);
    let took = until(&mut world, |w| w.images(web) == ["v2", "v2"]);
    assert!(took < 3 * SECOND);
    let end = until(&mut world, |w| w.phase(web) == Some(UpdateState::Completed));
    assert!((48 * MS * 100..=51 * MS * 100).contains(&end), "monitored for five seconds: {end}");
    let status = world.status(web).unwrap();
    assert_eq!((status.started_at, &*status.message), (Some(begin), "update completed"));
    assert!(status.completed_at > Some(begin));
    let steps = world.steps.len();
    world.run(1000);
    assert_eq!(world.steps.len(), steps);
}

#[test]
fn t43_four_replicas_by_two_with_a_delay_of_ten_seconds() {
    let (mut world, web) = running("v1", 4);
    world.update(web, |s| {
        set_image(s, "v2");
        s.update_config = config(|c| (c.parallelism, c.delay) = (2, 10 * SECOND));
    });
    until(&mut world, |w| count(w, web, "v2") == 2);
    assert_eq!(world.running(web).len(), 4, "the other two are not touched");
    let pause = until(&mut world, |w| w.running(web).len() < 4);
    assert!((99 * MS * 100..=101 * MS * 100).contains(&pause), "{pause}");
    until(&mut world, |w| count(w, web, "v2") == 4);
    assert_eq!(world.phase(web), Some(UpdateState::Updating));
    let end = until(&mut world, |w| w.phase(web) == Some(UpdateState::Completed));
    assert!((209 * MS * 100..=212 * MS * 100).contains(&end), "the delay, then the delay and a second: {end}");
}

#[test]
fn parallelism_zero_replaces_all_at_once() {
    let (mut world, web) = running("v1", 4);
    world.update(web, |s| {
        set_image(s, "v2");
        s.update_config = config(|c| c.parallelism = 0);
    });
    assert_eq!(world.tasks(web).len(), 8);
    world.run(3);
    assert_eq!(world.images(web), ["v2"; 4]);
}

#[test]
fn t47_start_first_stops_the_old_task_when_the_new_one_runs() {
    let (mut world, web) = running("v1", 1);
    world.update(web, |s| {
        set_image(s, "v2-slow");
        s.update_config = config(|c| c.order = UpdateOrder::StartFirst);
    });
    world.run(19);
    assert_eq!(world.images(web), ["v1"]);
    assert_eq!(world.slot(web, 1)[1].status.state, TaskState::Starting);
    let old = world.slot(web, 1)[0].id;
    until(&mut world, |w| w.slot(web, 1)[0].desired_state == TaskState::Shutdown);
    assert_eq!(world.slot(web, 1)[1].status.state, TaskState::Running);
    assert_eq!(world.slot(web, 1)[0].id, old);
    world.run(20);
    assert_eq!(world.images(web), ["v2-slow"]);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
}

#[test]
fn start_first_keeps_the_old_task_if_the_new_one_fails() {
    let (mut world, web) = running("v1", 2);
    world.update(web, |s| {
        set_image(s, "v2-nostart");
        s.update_config = config(|c| c.order = UpdateOrder::StartFirst);
    });
    world.run(200);
    assert_eq!(world.images(web), ["v1", "v1"]);
    assert_eq!(world.phase(web), Some(UpdateState::Paused));
    assert_eq!(world.tasks(web).len(), 3, "it is not tried again while paused: {:?}", world.service_states());
}

#[test]
fn start_first_that_continues_tries_again_at_the_pace_of_restarts_and_ends() {
    let (mut world, web) = running("v1", 2);
    world.update(web, |s| {
        set_image(s, "v2-nostart");
        s.update_config = config(|c| (c.order, c.failure_action) = (UpdateOrder::StartFirst, FailureAction::Continue));
    });
    world.run(60);
    assert_eq!(world.images(web), ["v1", "v1"]);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    let made = world.tasks_made();
    world.run(60);
    let more = world.tasks_made() - made;
    assert!((20..=26).contains(&more), "two slots, a try in five seconds each: {more}");
}

#[test]
fn start_first_that_continues_ends_well_once_a_later_try_does() {
    let (mut world, web) = running("v1", 1);
    world.update(web, |s| {
        set_image(s, "v2");
        s.update_config = config(|c| (c.order, c.failure_action) = (UpdateOrder::StartFirst, FailureAction::Continue));
    });
    world.end_task(world.slot(web, 1)[1].id, TaskState::Failed);
    world.run(60);
    assert_eq!(world.images(web), ["v2"]);
    assert_eq!(world.running(web).len(), 1);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
}

#[test]
fn start_first_without_restarts_does_not_try_for_ever() {
    let (mut world, web) = running("v1", 1);
    world.update(web, |s| {
        set_image(s, "v2-nostart");
        s.task_template.restart_policy = policy(RestartCondition::None, 0);
        s.update_config = config(|c| (c.order, c.failure_action) = (UpdateOrder::StartFirst, FailureAction::Continue));
    });
    world.run(600);
    assert_eq!(world.images(web), ["v1"]);
    assert_eq!(world.tasks(web).len(), 2);
}

#[test]
fn t44_a_bad_image_pauses_after_one_slot_and_names_the_task() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2-reject"));
    until(&mut world, |w| w.phase(web) == Some(UpdateState::Paused));
    let failed = world.slot(web, 1).into_iter().find(|t| image(t) == "v2-reject").unwrap();
    let expected = format!("update paused due to failure or early termination of task {}", failed.id);
    assert_eq!(world.message(web), expected);
    assert_eq!(world.status(web).unwrap().completed_at, None);
    world.run(60);
    assert_eq!(world.images(web), ["v1", "v1"]);
    assert_eq!((world.slot(web, 2).len(), world.slot(web, 3).len()), (1, 1));
    assert!(world.slot(web, 1).len() > 3, "the slot goes on trying");
}

#[test]
fn t48_a_one_shot_image_counts_as_failure() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2-exit0"));
    world.run(60);
    assert_eq!(world.phase(web), Some(UpdateState::Paused));
    assert_eq!(count(&world, web, "v1"), 1, "two slots had begun when the first task ended");
}

#[test]
fn a_failure_after_the_monitor_time_does_not_count() {
    for (monitor, phase) in [(5, UpdateState::Completed), (30, UpdateState::Paused)] {
        let (mut world, web) = running("v1", 1);
        world.update(web, |s| {
            set_image(s, "v2-late");
            s.update_config = config(|c| c.monitor = Some(monitor * SECOND));
        });
        world.run(60);
        assert_eq!(world.phase(web), Some(phase));
    }
}

#[test]
fn the_share_of_failures_that_is_allowed_is_of_the_slots_to_update() {
    for (ratio, slots) in [(0.0, 1), (0.24, 1), (0.25, 2), (0.5, 3), (0.75, 4)] {
        let (mut world, web) = running("v1", 4);
        world.update(web, |s| {
            set_image(s, "v2-reject");
            s.update_config = config(|c| c.max_failure_ratio = ratio);
        });
        world.run(200);
        assert_eq!(world.images(web).len(), 4 - slots, "{ratio}");
        assert_eq!(world.phase(web), Some(UpdateState::Paused), "{ratio}");
    }
    let (mut world, web) = running("v1", 4);
    world.update(web, |s| {
        set_image(s, "v2-reject");
        s.update_config = config(|c| c.max_failure_ratio = 1.0);
    });
    world.run(200);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
}

#[test]
fn continue_goes_through_all_slots() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| {
        set_image(s, "v2-exit3");
        s.update_config = config(|c| c.failure_action = FailureAction::Continue);
    });
    world.run(100);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    assert_eq!(count(&world, web, "v1"), 0);
}

#[test]
fn a_paused_update_goes_on_with_any_further_update() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2-reject"));
    world.run(30);
    assert_eq!(world.phase(web), Some(UpdateState::Paused));
    world.update(web, |_| {});
    assert_eq!(world.phase(web), Some(UpdateState::Updating), "the same spec again");
    world.run(30);
    assert_eq!((world.phase(web), world.images(web).len()), (Some(UpdateState::Paused), 1));
    world.update(web, |s| set_image(s, "v3"));
    world.run(60);
    assert_eq!((world.phase(web), world.images(web)), (Some(UpdateState::Completed), vec!["v3".to_owned(); 3]));
}

#[test]
fn a_slot_in_work_is_finished_when_another_one_pauses_the_update() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| {
        set_image(s, "v2-slow");
        s.update_config = config(|c| (c.parallelism, c.order) = (2, UpdateOrder::StartFirst));
    });
    world.run(5);
    world.end_task(world.slot(web, 1)[1].id, TaskState::Failed);
    assert_eq!(world.phase(web), Some(UpdateState::Paused));
    world.run(60);
    assert_eq!(world.images(web), ["v1", "v2-slow", "v1"]);
}

#[test]
fn another_update_overtakes_the_one_that_runs() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let (mut world, web) = running("v1", 3);
        world.update(web, |s| {
            set_image(s, "v2-slow");
            s.update_config = config(|c| c.order = order);
        });
        world.run(5);
        world.update(web, |s| set_image(s, "v3"));
        world.run(60);
        assert_eq!(world.images(web), ["v3"; 3], "{order:?}");
        assert_eq!(world.phase(web), Some(UpdateState::Completed));
        let all = world.tasks(web);
        assert_eq!(all.iter().filter(|t| image(t) == "v2-slow").count(), 1, "only one slot had begun");
    }
}

#[test]
fn going_back_by_an_update_leaves_untouched_slots_alone() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2-slow"));
    world.run(5);
    world.update(web, |s| set_image(s, "v1"));
    world.run(60);
    assert_eq!(world.images(web), ["v1"; 3]);
    assert_eq!(world.tasks(web).len(), 5);
}

#[test]
fn the_same_spec_amid_an_update_does_not_disturb_it() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2"));
    world.run(1);
    world.update(web, |_| {});
    assert_eq!(world.phase(web), Some(UpdateState::Updating));
    world.run(60);
    assert_eq!(world.images(web), ["v2"; 3]);
    assert_eq!((world.tasks(web).len(), world.phase(web)), (6, Some(UpdateState::Completed)));
}

#[test]
fn scaling_amid_an_update_keeps_to_its_parallelism() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2-slow"));
    world.run(5);
    world.update(web, |s| set_replicas(s, 5));
    assert_eq!(world.tasks(web).iter().filter(|t| t.desired_state == TaskState::Running).count(), 5);
    world.run(10);
    assert_eq!(count(&world, web, "v1"), 2, "the second slot waits until the first runs");
    world.run(100);
    assert_eq!(world.images(web), ["v2-slow"; 5]);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    world.update(web, |s| {
        set_image(s, "v3");
        set_replicas(s, 2);
    });
    world.run(60);
    assert_eq!(world.images(web), ["v3"; 2]);
}

#[test]
fn t49_a_scale_only_update_has_no_status_and_clears_the_old_one() {
    let (mut world, web) = running("v1", 2);
    world.update(web, |s| set_replicas(s, 3));
    world.run(20);
    assert_eq!(world.status(web), None);
    world.update(web, |s| set_image(s, "v2"));
    world.run(60);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    world.update(web, |s| set_replicas(s, 2));
    world.run(20);
    assert_eq!(world.status(web), None);
}

#[test]
fn an_update_of_a_service_without_replicas_has_nothing_to_do() {
    let (mut world, web) = running("v1", 0);
    world.update(web, |s| set_image(s, "v2"));
    world.run(20);
    assert_eq!((world.status(web), world.tasks(web).len()), (None, 0));
    world.update(web, |s| set_replicas(s, 1));
    world.run(20);
    assert_eq!(world.images(web), ["v2"]);
    world.update(web, |s| set_replicas(s, 0));
    world.run(20);
    world.rollback(web);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
    world.run(20);
    assert_eq!(world.images(web), ["v2"]);
}

#[test]
fn tasks_at_rest_are_revived_by_an_update() {
    for condition in [RestartCondition::None, RestartCondition::OnFailure] {
        let mut world = World::new(1);
        let mut spec = replicated("v1-exit0", 2);
        spec.task_template.restart_policy = policy(condition, 0);
        let web = world.create(spec);
        world.run(20);
        assert_eq!(world.running(web).len(), 0);
        world.update(web, |s| s.labels.extend([("x".into(), "y".into())]));
        world.run(20);
        assert_eq!(world.tasks(web).len(), 2, "labels revive nothing");
        world.update(web, |s| set_image(s, "v2"));
        world.run(20);
        assert_eq!(world.images(web), ["v2", "v2"]);
        assert_eq!(world.phase(web), Some(UpdateState::Completed));
    }
}

#[test]
fn a_crash_looping_service_is_updated_without_its_delay() {
    let (mut world, web) = {
        let mut world = World::new(1);
        let web = world.create(replicated("v1-exit3", 1));
        world.run(20);
        (world, web)
    };
    until(&mut world, |w| w.slot(web, 1).last().unwrap().status.state == TaskState::Ready);
    world.update(web, |s| set_image(s, "v2"));
    world.run(1);
    assert_eq!(world.images(web), ["v2"]);
}

#[test]
fn a_task_that_fails_before_its_turn_is_replaced_by_a_new_one() {
    let (mut world, web) = running("v1", 3);
    world.update(web, |s| set_image(s, "v2-slow"));
    world.run(3);
    world.end_task(world.slot(web, 3)[0].id, TaskState::Failed);
    world.run(10);
    assert_eq!(image(world.slot(web, 3).last().unwrap()), "v2-slow");
    world.run(100);
    assert_eq!(world.images(web), ["v2-slow"; 3]);
    assert_eq!(world.slot(web, 3).len(), 2);
}

#[test]
fn a_node_that_goes_away_amid_an_update_does_not_stop_it() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        for drained in [true, false] {
            let (mut world, web) = running("v1", 4);
            world.update(web, |s| {
                set_image(s, "v2-slow");
                s.update_config = config(|c| c.order = order);
            });
            world.run(6);
            let node = world.slot(web, 1)[1].node_id.unwrap();
            if drained {
                world.set_availability(node, Availability::Drain);
            } else {
                world.set_state(node, NodeState::Down);
            }
            world.run(300);
            assert_eq!(world.images(web), ["v2-slow"; 4], "{order:?} {drained}");
            assert_eq!(world.phase(web), Some(UpdateState::Completed), "{order:?} {drained}");
        }
    }
}

#[test]
fn an_update_that_finds_no_node_waits() {
    let (mut world, web) = running("v1", 2);
    world.update(web, |s| {
        set_image(s, "v2");
        set_constraints(s, &["node.labels.no==such"]);
        s.update_config = config(|c| c.order = UpdateOrder::StartFirst);
    });
    world.run(10_000);
    assert_eq!(world.images(web), ["v1", "v1"]);
    assert_eq!(world.phase(web), Some(UpdateState::Updating));
}
