//! Creating, scaling, removing.

use shoal_types::spec::{RestartCondition, UpdateState};
use shoal_types::{Change, Object, TaskState, View};

use crate::support::*;

#[test]
fn creating_a_service_makes_new_tasks_in_the_lowest_slots() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 3));
    let (_, changes) = &world.steps[0];
    let made: Vec<_> = changes
        .iter()
        .map(|c| match c {
            Change::Put(Object::Task(t)) => (t.slot, t.desired_state, t.status.state, t.status.message.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    let one = |slot| (slot, TaskState::Running, TaskState::New, "created");
    assert_eq!(made, [one(1), one(2), one(3)]);
    assert_eq!(world.steps.len(), 1);
    world.run(2);
    assert_eq!(world.images(web), ["v1"; 3]);
    let steps = world.steps.len();
    world.run(1000);
    assert_eq!(world.steps.len(), steps, "a service that runs needs nothing more");
    assert_eq!(world.status(web), None);
}

#[test]
fn tasks_carry_what_the_service_says() {
    let mut world = World::new(1);
    let mut spec = replicated("v1", 1);
    spec.labels.insert("a".into(), "b".into());
    spec.endpoint_spec = Some(Default::default());
    let web = world.create(spec.clone());
    let task = world.tasks(web).remove(0);
    assert_eq!((&*task.annotations.name, &task.annotations.labels), ("web", &spec.labels));
    assert_eq!(*task.spec, spec.task_template);
    assert_eq!(task.endpoint.as_deref(), spec.endpoint_spec.as_ref());
    assert_eq!(task.spec_version, world.service(web).spec_version);
}

#[test]
fn a_task_whose_service_names_no_log_driver_has_the_one_of_the_cluster() {
    let mut world = World::new(1);
    let driver = shoal_types::spec::LogDriver { name: "none".into(), ..Default::default() };
    let mut cluster = (**world.store.cluster().unwrap()).clone();
    cluster.spec.task_defaults.log_driver = Some(driver.clone());
    world.commit(vec![Change::Put(Object::Cluster(cluster.into()))]);
    let web = world.create(replicated("v1", 1));
    assert_eq!(world.tasks(web)[0].spec.log_driver, Some(driver));
    world.run(1);
    world.update(web, |s| s.labels.extend([("x".into(), "y".into())]));
    world.run(10);
    assert_eq!(world.tasks(web).len(), 1, "the default does not make tasks look out of date");
}

#[test]
fn scaling_up_fills_the_gaps_and_starts_at_once() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 5));
    world.run(2);
    world.update(web, |s| set_replicas(s, 3));
    world.run(5);
    assert_eq!(world.tasks(web).iter().map(|t| t.slot).collect::<std::collections::BTreeSet<_>>().len(), 3);
    world.update(web, |s| set_replicas(s, 7));
    let slots: std::collections::BTreeSet<_> = world.tasks(web).iter().map(|t| t.slot).collect();
    assert_eq!(slots, (1..=7).collect());
    assert!(world.tasks(web).iter().all(|t| t.desired_state == TaskState::Running));
}

#[test]
fn a_slot_that_comes_back_waits_for_its_old_container() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 2));
    world.run(2);
    world.update(web, |s| set_replicas(s, 1));
    world.run(1); // stopping takes two
    world.update(web, |s| set_replicas(s, 2));
    let slot = world.slot(web, 2);
    assert_eq!(slot.iter().map(|t| t.desired_state).collect::<Vec<_>>(), [TaskState::Remove, TaskState::Ready]);
    world.run(3);
    assert_eq!(world.images(web).len(), 2);
    assert_eq!(world.slot(web, 2).len(), 1);
}

#[test]
fn scaling_down_takes_from_the_fullest_nodes_and_the_highest_slots() {
    let mut world = World::new(2);
    let web = world.create(replicated("v1", 5));
    world.run(2);
    let nodes: Vec<_> = world.running(web).iter().map(|t| t.node_id.unwrap()).collect();
    world.update(web, |s| set_replicas(s, 2));
    let kept: Vec<_> = world.tasks(web).into_iter().filter(|t| t.desired_state == TaskState::Running).collect();
    assert_eq!(kept.len(), 2);
    assert_ne!(kept[0].node_id, kept[1].node_id, "one copy on each node stays: {nodes:?}");
    assert!(world.tasks(web).iter().filter(|t| t.desired_state == TaskState::Remove).count() == 3);
    world.run(5);
    assert_eq!(world.tasks(web).len(), 2, "what was removed is forgotten once it has stopped");
}

#[test]
fn scaling_down_prefers_to_drop_what_does_not_run_and_what_has_no_node() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 2));
    world.run(2);
    let node = world.store.nodes().next().unwrap().id;
    world.set_availability(node, shoal_types::spec::Availability::Pause);
    world.update(web, |s| set_replicas(s, 4));
    world.run(2);
    let waiting: Vec<_> = world.tasks(web).into_iter().filter(|t| t.node_id.is_none()).map(|t| t.slot).collect();
    assert_eq!(waiting, [3, 4]);
    world.update(web, |s| set_replicas(s, 2));
    world.run(1);
    assert_eq!(world.tasks(web).iter().map(|t| t.slot).collect::<Vec<_>>().len(), 2);
    assert_eq!(world.running(web).iter().map(|t| t.slot).max(), Some(2));
}

#[test]
fn removing_a_service_stops_its_tasks_and_then_forgets_them() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 3));
    world.run(2);
    world.remove(web);
    assert!(world.tasks(web).iter().all(|t| t.desired_state == TaskState::Remove));
    assert_eq!(world.tasks(web).len(), 3);
    world.run(5);
    assert_eq!(world.tasks(web).len(), 0);
}

#[test]
fn removing_a_service_forgets_tasks_that_never_had_a_node_at_once() {
    let mut world = World::new(0);
    let web = world.create(replicated("v1", 3));
    world.remove(web);
    assert_eq!(world.tasks(web).len(), 0);
}

#[test]
fn removing_a_service_amid_an_update_leaves_nothing() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 3));
    world.run(2);
    world.update(web, |s| set_image(s, "v2"));
    world.run(1);
    world.remove(web);
    world.run(10);
    assert_eq!(world.tasks(web).len(), 0);
    assert_eq!(world.store.tasks().count(), 0);
}

#[test]
fn a_task_record_that_is_deleted_is_made_anew() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 2));
    world.run(2);
    let victim = world.slot(web, 1)[0].id;
    world.commit(vec![Change::Remove(shoal_types::ObjectKind::Task(victim))]);
    world.run(2);
    assert_eq!(world.images(web).len(), 2);
    assert_ne!(world.slot(web, 1)[0].id, victim);
}

#[test]
fn many_tasks_are_made_in_transactions_of_bounded_size() {
    let mut world = World::new(0);
    world.checks.clear();
    let web = world.create(replicated("v1", 9000));
    assert!(world.steps.len() > 1, "{}", world.steps.len());
    assert!(world.steps.iter().all(|(_, changes)| changes.len() <= 3000));
    assert_eq!(world.tasks(web).len(), 9000);
    world.remove(web);
    assert_eq!(world.tasks(web).len(), 0);
}

#[test]
fn t31_labels_replicas_and_update_settings_restart_nothing() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 2));
    world.run(2);
    let before: Vec<_> = world.tasks(web).iter().map(|t| t.id).collect();
    world.update(web, |s| s.labels.extend([("x".into(), "y".into())]));
    world.update(web, |s| s.update_config = config(|c| c.parallelism = 7));
    world.update(web, |s| s.rollback_config = config(|c| c.delay = 7));
    world.update(web, |_| {});
    world.run(60);
    assert_eq!(world.tasks(web).iter().map(|t| t.id).collect::<Vec<_>>(), before);
    assert_eq!(world.status(web), None);
}

#[test]
fn t31_container_labels_environment_and_force_restart_all() {
    let changes: [fn(&mut shoal_types::spec::ServiceSpec); 6] = [
        |s| s.task_template.container_spec.as_mut().unwrap().labels.extend([("x".into(), "y".into())]),
        |s| s.task_template.container_spec.as_mut().unwrap().env.push("A=b".into()),
        |s| s.task_template.force_update += 1,
        |s| s.task_template.restart_policy = policy(RestartCondition::OnFailure, 0),
        |s| s.task_template.log_driver = Some(Default::default()),
        |s| s.endpoint_spec = Some(Default::default()),
    ];
    for change in changes {
        let mut world = World::new(1);
        let web = world.create(replicated("v1", 2));
        world.run(2);
        let before: Vec<_> = world.tasks(web).iter().map(|t| t.id).collect();
        world.update(web, change);
        world.run(60);
        assert_eq!(world.phase(web), Some(UpdateState::Completed));
        assert_eq!(world.running(web).len(), 2);
        assert!(world.running(web).iter().all(|t| !before.contains(&t.id)));
    }
}

#[test]
fn t32_a_constraint_that_the_nodes_satisfy_restarts_nothing() {
    let mut world = World::new(2);
    let web = world.create(replicated("v1", 2));
    world.run(2);
    let node = world.running(web)[0].node_id.unwrap();
    world.update(web, |s| set_constraints(s, &["node.role==worker"]));
    world.run(60);
    assert_eq!((world.tasks(web).len(), world.status(web)), (2, None));
    let keep = format!("node.id=={node}");
    world.update(web, |s| set_constraints(s, &[&keep]));
    world.run(60);
    assert_eq!(world.phase(web), Some(UpdateState::Completed));
    assert!(world.running(web).iter().all(|t| t.node_id == Some(node)));
    assert_eq!(world.tasks(web).len(), 3, "only the task elsewhere was replaced");
}

#[test]
fn new_registry_credentials_alone_restart_nothing_that_runs() {
    let mut world = World::new(1);
    let web = world.create(replicated("v1", 1));
    world.run(2);
    let mut service = (*world.service(web)).clone();
    (service.registry_auth, service.spec_version) = (Some("secret".into()), service.meta.version);
    world.commit(vec![Change::Put(Object::Service(service.into()))]);
    world.run(20);
    assert_eq!(world.tasks(web).len(), 1);
}
