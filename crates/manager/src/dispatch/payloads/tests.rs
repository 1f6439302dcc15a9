//! What a node has, and when: first the uses alone, then an agent that listens.

use shoal_types::object::TaskStatus;
use shoal_types::spec::{ClusterSpec, FileTarget, PayloadSpec, SecretReference, ServiceSpec, TaskSpec};

use super::*;
use crate::control::ServiceUpdate;
use crate::dispatch::tests::Agent;
use crate::testing::{Fixture, service};

fn secret_id(n: u64) -> SecretId {
    format!("{n:0>25}").parse().unwrap()
}

/// A service whose tasks use secrets.
fn user(replicas: i64, secrets: &[(SecretId, &str)]) -> ServiceSpec {
    let mut spec = service("web", replicas);
    let reference = |(id, name): &(SecretId, &str)| SecretReference {
        file: Some(FileTarget { name: (*name).into(), ..FileTarget::default() }),
        secret_id: id.to_string(),
        secret_name: (*name).into(),
    };
    spec.task_template.container_spec.as_mut().unwrap().secrets = secrets.iter().map(reference).collect();
    spec
}

fn in_state(task: &Task, state: TaskState) -> Task {
    Task { status: TaskStatus { state, ..task.status.clone() }, ..task.clone() }
}

/// The number of the task is in the last place of its identifier.
fn task(n: u64, secrets: &[u64]) -> Task {
    let named: Vec<_> = secrets.iter().map(|n| (secret_id(*n), "s")).collect();
    let template: TaskSpec = user(1, &named).task_template;
    let json = serde_json::json!({
        "id": format!("{n:0>25}"), "service_id": "0".repeat(25), "slot": n, "node_id": "0".repeat(25),
        "annotations": { "Name": "web" }, "spec": template, "spec_version": 0, "endpoint": null,
        "registry_auth": null, "status": TaskStatus::default(), "desired_state": "running",
    });
    in_state(&serde_json::from_value(json).unwrap(), TaskState::Assigned)
}

#[test]
fn what_is_used_is_needed_once_and_released_with_its_last_user() {
    let mut uses = Uses::default();
    let (a, b) = (task(1, &[1, 2]), task(2, &[2]));
    let secret = |n| PayloadId::Secret(secret_id(n));
    let turn = |needed: &[u64], released: &[u64]| Turn {
        needed: needed.iter().map(|n| secret(*n)).collect(),
        released: released.iter().map(|n| secret(*n)).collect(),
    };
    assert_eq!(uses.note(None, Some(&a)), turn(&[1, 2], &[]));
    assert_eq!(uses.note(None, Some(&b)), turn(&[], &[]), "the node has it already");
    let running = in_state(&a, TaskState::Running);
    assert_eq!(uses.note(Some(&a), Some(&running)), turn(&[], &[]));
    let failed = in_state(&a, TaskState::Failed);
    assert_eq!(uses.note(Some(&running), Some(&failed)), turn(&[], &[1]), "the other has a user still");
    assert_eq!(uses.note(Some(&failed), None), turn(&[], &[]));
    assert_eq!(uses.note(Some(&b), None), turn(&[], &[2]));
    assert_eq!(uses.all().count(), 0);
}

async fn secret(f: &Fixture, name: &str) -> SecretId {
    let spec = PayloadSpec { name: name.into(), data: name.as_bytes().to_vec().into(), ..PayloadSpec::default() };
    f.control.create_payload::<SecretKind>(spec).await.unwrap()
}

/// Listens until as many tasks were assigned; gives them, and everything in the order in which it came.
async fn assigned(agent: &mut Agent, count: usize) -> (Vec<TaskId>, Vec<Assigned>) {
    let mut all = Vec::new();
    let is_task = |a: &Assigned| matches!(a, Assigned::Task(_));
    while all.iter().filter(|a| is_task(a)).count() < count {
        all.extend(agent.told().await);
    }
    let tasks = all.iter().filter_map(|a| if let Assigned::Task(task) = a { Some(task.id) } else { None });
    (tasks.collect(), all)
}

#[tokio::test]
async fn a_node_gets_only_what_its_tasks_use_before_them_and_forgets_it_with_the_last() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let (used, _unused) = (secret(&f, "used").await, secret(&f, "unused").await);
    let mut agent = Agent::new(&f).await;
    assert_eq!(agent.told().await, [], "nothing as long as no task is here");
    f.control.create_service(user(2, &[(used, "used")]), None).await.unwrap();
    let (tasks, all) = assigned(&mut agent, 2).await;
    let Assigned::Secret(sent) = &all[0] else { panic!("the secret comes first: {all:?}") };
    assert_eq!((sent.id, sent.spec.data.bytes()), (used, &b"used"[..]));
    assert_eq!(all.len(), 3, "and nothing else");

    agent.report(tasks[0], TaskState::Running).await.unwrap();
    agent.report(tasks[1], TaskState::Running).await.unwrap();
    let mut again = Agent::new(&f).await;
    let told = again.told().await;
    assert!(matches!(&told[0], Assigned::Secret(s) if s.id == used), "a new stream begins with everything");
    assert_eq!(told.len(), 3);

    let version = f.control.get_service("web").unwrap().meta.version;
    let update = ServiceUpdate { version, ..ServiceUpdate::default() };
    f.control.update_service("web", user(0, &[(used, "used")]), update).await.unwrap();
    again.report(tasks[0], TaskState::Shutdown).await.unwrap();
    again.report(tasks[1], TaskState::Shutdown).await.unwrap();
    let mut rest = Vec::new();
    while !rest.contains(&Assigned::RemoveSecret(used)) {
        rest.extend(again.told().await);
    }
    let place = |wanted: &Assigned| rest.iter().position(|a| a == wanted);
    assert!(rest.iter().all(|a| !matches!(a, Assigned::Secret(_))), "{rest:?}");
    assert!(place(&Assigned::RemoveSecret(used)).is_some());
}

#[tokio::test]
async fn an_update_brings_the_new_secret_before_the_new_task() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let (old, new) = (secret(&f, "old").await, secret(&f, "new").await);
    let mut agent = Agent::new(&f).await;
    f.control.create_service(user(1, &[(old, "old")]), None).await.unwrap();
    let (first, _) = assigned(&mut agent, 1).await;
    agent.report(first[0], TaskState::Running).await.unwrap();
    loop {
        let version = f.control.get_service("web").unwrap().meta.version;
        let update = ServiceUpdate { version, ..ServiceUpdate::default() };
        if f.control.update_service("web", user(1, &[(new, "new")]), update).await.is_ok() {
            break;
        }
    }
    let mut all = Vec::new();
    let is_next = |a: &Assigned| matches!(a, Assigned::Task(task) if task.id != first[0]);
    while !all.iter().any(is_next) {
        all.extend(agent.told().await);
        agent.report(first[0], TaskState::Running).await.unwrap();
    }
    let secret = all.iter().position(|a| matches!(a, Assigned::Secret(s) if s.id == new));
    assert!(secret.unwrap() < all.iter().position(is_next).unwrap(), "{all:?}");
}
