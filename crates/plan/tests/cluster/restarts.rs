//! Restart policies, their delays and attempts, and the history they leave.

use shoal_types::spec::{RestartCondition, RestartPolicy};
use shoal_types::{Change, Object, ServiceId, TaskState, after};

use crate::support::*;

fn with_policy(image: &str, policy: Option<RestartPolicy>) -> (World, ServiceId) {
    let mut world = World::new(1);
    let mut spec = replicated(image, 1);
    spec.task_template.restart_policy = policy;
    let web = world.create(spec);
    (world, web)
}

fn set_history(world: &mut World, limit: Option<i64>) {
    let mut cluster = (**shoal_types::View::cluster(&world.store).unwrap()).clone();
    cluster.spec.orchestration.task_history_retention_limit = limit;
    world.commit(vec![Change::Put(Object::Cluster(cluster.into()))]);
}

#[test]
fn a_container_that_is_gone_is_replaced_after_five_seconds() {
    let (mut world, web) = with_policy("v1", None);
    world.run(2);
    let old = world.slot(web, 1)[0].id;
    world.end_task(old, TaskState::Failed);
    let slot = world.slot(web, 1);
    assert_eq!(slot.iter().map(|t| t.desired_state).collect::<Vec<_>>(), [TaskState::Shutdown, TaskState::Ready]);
    let failed_at = world.now;
    world.run_until(after(failed_at, 5 * SECOND - 1));
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Ready);
    assert_eq!(world.slot(web, 1)[1].status.state, TaskState::Ready, "it is prepared meanwhile");
    world.run_until(after(failed_at, 5 * SECOND));
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Running);
    world.run(1);
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn the_delay_is_the_policys() {
    let policy = RestartPolicy { delay: Some(30 * SECOND), ..RestartPolicy::default() };
    let (mut world, web) = with_policy("v1", Some(policy));
    world.run(2);
    world.end_task(world.slot(web, 1)[0].id, TaskState::Complete);
    world.run(29);
    assert_eq!(world.running(web).len(), 0);
    world.run(2);
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn without_delay_the_replacement_runs_at_once() {
    let policy = RestartPolicy { delay: Some(0), ..RestartPolicy::default() };
    let (mut world, web) = with_policy("v1", Some(policy));
    world.run(2);
    world.end_task(world.slot(web, 1)[0].id, TaskState::Failed);
    assert_eq!(world.slot(web, 1)[1].desired_state, TaskState::Running);
}

#[test]
fn t26_a_failing_service_makes_one_task_about_every_five_seconds() {
    for (image, cycle) in [("v1-exit3", 6), ("v1-exit0", 6), ("v1-nostart", 5), ("v1-reject", 5)] {
        let (mut world, web) = with_policy(image, None);
        set_history(&mut world, Some(-1));
        world.run(600);
        let count = world.slot(web, 1).len();
        assert!((600 / cycle - 10..=600 / cycle + 2).contains(&count), "{image}: {count} tasks in 600 s");
    }
}

#[test]
fn a_policy_of_none_or_on_failure_lets_tasks_rest() {
    let rests = [
        (RestartCondition::None, "v1-exit3", true),
        (RestartCondition::None, "v1-exit0", true),
        (RestartCondition::None, "v1-reject", true),
        (RestartCondition::OnFailure, "v1-exit0", true),
        (RestartCondition::OnFailure, "v1-exit3", false),
        (RestartCondition::Any, "v1-exit0", false),
    ];
    for (condition, image, rest) in rests {
        let (mut world, web) = with_policy(image, policy(condition, 0));
        world.run(60);
        assert_eq!(world.tasks(web).len() == 1, rest, "{condition:?} {image}");
    }
}

#[test]
fn a_task_at_rest_counts_as_a_replica() {
    let (mut world, web) = with_policy("v1-exit0", policy(RestartCondition::None, 0));
    world.run(10);
    world.update(web, |s| set_replicas(s, 3));
    world.run(10);
    assert_eq!(world.tasks(web).iter().map(|t| t.slot).collect::<std::collections::BTreeSet<_>>().len(), 3);
    world.update(web, |s| set_replicas(s, 1));
    world.run(10);
    assert_eq!(world.tasks(web).len(), 1);
}

#[test]
fn t27_two_attempts_make_three_tasks_and_an_update_gives_two_more() {
    let (mut world, web) = with_policy("v1-exit3", policy(RestartCondition::Any, 2));
    world.run(100);
    assert_eq!(world.slot(web, 1).len(), 3);
    assert!(world.slot(web, 1).iter().all(|t| t.status.state == TaskState::Failed));
    world.update(web, |s| s.task_template.force_update += 1);
    world.run(100);
    let version = world.service(web).spec_version;
    let slot = world.slot(web, 1);
    assert_eq!(slot.iter().filter(|t| t.spec_version == version).count(), 3);
    assert_eq!(slot.len(), 3, "the history of a service with attempts is the attempts and one");
    let steps = world.steps.len();
    world.run(1000);
    assert_eq!(world.steps.len(), steps);
}

#[test]
fn attempts_are_counted_in_the_window() {
    let policy = RestartPolicy { max_attempts: 2, window: Some(15 * SECOND), ..RestartPolicy::default() };
    let (mut world, _) = with_policy("v1-late", Some(policy.clone()));
    world.run(300);
    assert!(world.tasks_made() >= 11, "a failure every 25 s is within two per 15 s");
    let (mut world, web) = with_policy("v1-exit3", Some(policy));
    world.run(300);
    assert_eq!(world.slot(web, 1).len(), 3);
    assert_eq!(world.running(web).len(), 0);
}

#[test]
fn t28_after_seven_failures_there_are_five_records() {
    let (mut world, web) = with_policy("v1-exit3", None);
    while world.slot(web, 1).len() < 5 {
        world.run(1);
    }
    world.run(5 * 7);
    for _ in 0..50 {
        world.run(1);
        assert_eq!(world.slot(web, 1).len(), 5);
    }
}

#[test]
fn the_history_limit_is_the_clusters() {
    for (limit, kept) in [(Some(2), 2), (Some(1), 2), (Some(0), 2), (None, 5), (Some(-1), 17)] {
        let (mut world, web) = with_policy("v1-exit3", None);
        set_history(&mut world, limit);
        world.run(100);
        let most = world.slot(web, 1).len();
        assert!(most.abs_diff(kept) <= usize::from(limit.is_some_and(|l| l < 2)), "{limit:?}: {most}");
    }
}

#[test]
fn a_small_history_does_not_shorten_the_delay() {
    let (mut world, web) = with_policy("v1-exit3", None);
    set_history(&mut world, Some(0));
    world.run(60);
    let made = world.tasks_made();
    assert!((9..=11).contains(&made), "{made}");
    world.change_leader();
    world.run(60);
    let made = world.tasks_made();
    assert!((18..=22).contains(&made), "{made}");
    assert!(world.slot(web, 1).len() <= 2);
}

#[test]
fn a_task_at_rest_is_not_forgotten_however_short_the_history() {
    let (mut world, web) = with_policy("v1-exit0", policy(RestartCondition::None, 0));
    set_history(&mut world, Some(0));
    world.run(100);
    world.change_leader();
    world.run(100);
    assert_eq!(world.slot(web, 1).len(), 1);
}
