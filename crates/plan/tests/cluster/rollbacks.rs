//! Rollbacks, by hand and by failure.

use shoal_types::spec::{FailureAction, RestartCondition, UpdateConfig, UpdateOrder, UpdateState};
use shoal_types::{ServiceId, TaskState};

use crate::support::*;

fn running(replicas: i64, change: impl FnOnce(&mut UpdateConfig)) -> (World, ServiceId) {
    let mut world = World::new(2);
    let mut spec = replicated("v1", replicas);
    spec.update_config = config(|c| {
        c.failure_action = FailureAction::Rollback;
        change(c);
    });
    let web = world.create(spec);
    world.run(3);
    (world, web)
}

#[test]
fn t45_a_bad_image_rolls_back() {
    let (mut world, web) = running(3, |_| {});
    let old = world.service(web);
    world.update(web, |s| set_image(s, "v2-reject"));
    while world.phase(web) == Some(UpdateState::Updating) {
        world.run(1);
    }
    let service = world.service(web);
    let failed = world.slot(web, 1).into_iter().find(|t| image(t) == "v2-reject").unwrap();
    let expected = format!("update rolled back due to failure or early termination of task {}", failed.id);
    assert_eq!((world.phase(web), world.message(web)), (Some(UpdateState::RollbackStarted), expected));
    assert_eq!((&service.spec, service.spec_version), (&old.spec, old.spec_version));
    assert_eq!((&service.previous_spec, service.previous_spec_version), (&None, None));
    world.run(20);
    assert_eq!((world.phase(web), &*world.message(web)), (Some(UpdateState::RollbackCompleted), "rollback completed"));
    assert!(world.status(web).unwrap().completed_at.is_some());
    assert_eq!(world.images(web), ["v1"; 3]);
    assert_eq!(world.slot(web, 1).len(), 3, "no task is made that a rollback makes pointless");
    assert_eq!((world.slot(web, 2).len(), world.slot(web, 3).len()), (1, 1));
}

#[test]
fn the_slot_that_failed_comes_back_without_the_restart_delay() {
    let (mut world, web) = running(1, |_| {});
    world.update(web, |s| set_image(s, "v2-nostart"));
    while world.phase(web) != Some(UpdateState::RollbackStarted) {
        world.run_until(shoal_types::after(world.now, 100 * MS));
    }
    world.run(1);
    assert_eq!(world.images(web), ["v1"]);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackStarted), "watched before it is called complete");
    world.run(5);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
}

#[test]
fn start_first_rolls_back_to_the_task_that_never_stopped() {
    for (image, kept) in [("v2-nostart", 2), ("v2-exit3", 1)] {
        let (mut world, web) = running(2, |c| (c.order, c.delay) = (UpdateOrder::StartFirst, 2 * SECOND));
        let ids: Vec<_> = world.running(web).iter().map(|t| t.id).collect();
        world.update(web, |s| set_image(s, image));
        world.run(60);
        assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
        assert_eq!(world.images(web), ["v1", "v1"]);
        assert_eq!(world.running(web).iter().filter(|t| ids.contains(&t.id)).count(), kept, "{image}");
    }
}

#[test]
fn several_failures_at_once_roll_back_all_slots() {
    for (parallelism, ratio) in [(0, 0.0), (3, 0.4), (0, 0.9)] {
        let (mut world, web) = running(4, |c| (c.parallelism, c.max_failure_ratio) = (parallelism, ratio));
        world.update(web, |s| set_image(s, "v2-exit3"));
        world.run(200);
        assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
        assert_eq!(world.images(web), ["v1"; 4]);
    }
}

#[test]
fn a_rollback_revives_slots_that_the_update_left_at_rest() {
    let (mut world, web) = running(3, |c| c.max_failure_ratio = 0.5);
    world.update(web, |s| {
        set_image(s, "v2-exit3");
        s.task_template.restart_policy = policy(RestartCondition::None, 0);
    });
    world.run(100);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
    assert_eq!(world.images(web), ["v1"; 3]);
}

#[test]
fn t46_two_rollbacks_by_hand_return_to_the_newer_spec() {
    let (mut world, web) = running(2, |_| {});
    world.update(web, |s| set_image(s, "v2"));
    world.run(30);
    world.rollback(web);
    assert_eq!(
        (world.phase(web), &*world.message(web)),
        (Some(UpdateState::RollbackStarted), "manually requested rollback")
    );
    world.run(30);
    assert_eq!(
        (world.phase(web), world.images(web)),
        (Some(UpdateState::RollbackCompleted), vec!["v1".into(), "v1".into()])
    );
    world.rollback(web);
    world.run(30);
    assert_eq!(
        (world.phase(web), world.images(web)),
        (Some(UpdateState::RollbackCompleted), vec!["v2".into(), "v2".into()])
    );
}

#[test]
fn a_rollback_by_hand_amid_an_update_undoes_what_was_done() {
    let (mut world, web) = running(3, |_| {});
    world.update(web, |s| set_image(s, "v2-slow"));
    world.run(10);
    world.rollback(web);
    world.run(60);
    assert_eq!(world.images(web), ["v1"; 3]);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
    assert_eq!((world.slot(web, 2).len(), world.slot(web, 3).len()), (1, 1));
}

#[test]
fn a_rollback_follows_its_own_configuration() {
    let (mut world, web) = running(4, |_| {});
    world.update(web, |s| s.rollback_config = config(|c| (c.parallelism, c.delay) = (2, 30 * SECOND)));
    world.update(web, |s| set_image(s, "v2"));
    world.run(60);
    world.rollback(web);
    world.run(5);
    let mut images = world.images(web);
    images.sort();
    assert_eq!(images, ["v1", "v1", "v2", "v2"]);
    world.run(120);
    assert_eq!((world.phase(web), world.images(web)), (Some(UpdateState::RollbackCompleted), vec!["v1".to_owned(); 4]));
}

#[test]
fn a_rollback_that_fails_is_paused_whatever_its_action() {
    for (action, text) in [
        (FailureAction::Pause, "update paused due to failure or early termination of task"),
        (FailureAction::Rollback, "rollback paused due to failure or early termination of task"),
    ] {
        let mut world = World::new(1);
        let mut spec = replicated("v1-reject", 2);
        spec.rollback_config = config(|c| c.failure_action = action);
        spec.task_template.restart_policy = policy(RestartCondition::None, 0);
        let web = world.create(spec);
        world.run(10);
        world.update(web, |s| set_image(s, "v2"));
        world.run(60);
        assert_eq!(world.images(web), ["v2", "v2"]);
        world.rollback(web);
        world.run(60);
        assert_eq!(world.phase(web), Some(UpdateState::RollbackPaused), "{action:?}");
        assert!(world.message(web).starts_with(text), "{}", world.message(web));
        assert_eq!(world.images(web), ["v2"]);
        assert_eq!(world.status(web).unwrap().completed_at, None);
    }
}

#[test]
fn a_rollback_to_a_service_that_fails_may_continue() {
    let mut world = World::new(1);
    let mut spec = replicated("v1-exit3", 2);
    spec.rollback_config = config(|c| c.failure_action = FailureAction::Continue);
    let web = world.create(spec);
    world.run(10);
    world.update(web, |s| set_image(s, "v2"));
    world.run(60);
    world.rollback(web);
    world.run(60);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
    assert!(world.images(web).iter().all(|i| i == "v1-exit3"));
}

#[test]
fn an_update_after_a_rollback_is_an_update_again() {
    let (mut world, web) = running(2, |_| {});
    world.update(web, |s| set_image(s, "v2-reject"));
    world.run(30);
    assert_eq!(world.phase(web), Some(UpdateState::RollbackCompleted));
    world.update(web, |s| set_image(s, "v3"));
    world.run(30);
    assert_eq!((world.phase(web), world.images(web)), (Some(UpdateState::Completed), vec!["v3".to_owned(); 2]));
    assert!(world.tasks(web).iter().all(|t| t.desired_state <= TaskState::Shutdown));
}
