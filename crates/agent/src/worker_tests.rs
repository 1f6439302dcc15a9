use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use shoal_lifecycle::{Action, Facts, Failure};
use shoal_types::object::NodeDescription;
use shoal_types::spec::{Annotations, ContainerSpec, FileTarget, PayloadSpec, SecretReference, TaskSpec};
use shoal_types::{IdSource, Meta, Secret, SecretId, ServiceId};
use shoal_wire::logs::{LogLine, LogOptions};

use super::*;
use crate::executor::Outcome;

/// Runs nothing, and remembers what it was asked.
#[derive(Default)]
struct Fake {
    containers: Mutex<BTreeSet<TaskId>>,
    done: Mutex<Vec<(TaskId, Action)>>,
    never_prepared: AtomicBool,
    cut_short: AtomicBool,
}

#[async_trait]
impl Executor for Fake {
    async fn describe(&self) -> NodeDescription {
        NodeDescription::default()
    }

    async fn act(&self, action: Action, task: &Task, payloads: &Payloads) -> Outcome {
        match action {
            Action::Prepare if self.never_prepared.load(Ordering::Relaxed) => std::future::pending().await,
            Action::Prepare => drop(self.containers.lock().unwrap().insert(task.id)),
            Action::Wait => std::future::pending().await,
            Action::Start => {
                let wanted = payloads.of(&task.spec.container_spec.clone().unwrap_or_default()).await;
                if let Err(error) = wanted {
                    return (Err(Failure::to_start(error)), Facts::default());
                }
            }
            _ => {}
        }
        self.done.lock().unwrap().push((task.id, action));
        (Ok(()), Facts::default())
    }

    async fn was_cut_short(&self, _: &Task) -> bool {
        self.cut_short.load(Ordering::Relaxed)
    }

    async fn remove(&self, task: TaskId) -> Result<(), Failure> {
        self.containers.lock().unwrap().remove(&task);
        self.done.lock().unwrap().push((task, Action::Remove));
        Ok(())
    }

    async fn present(&self) -> Vec<TaskId> {
        self.containers.lock().unwrap().iter().copied().collect()
    }

    async fn logs(&self, _: Arc<Task>, _: LogOptions) -> Result<BoxStream<'static, LogLine>, Failure> {
        Ok(futures::stream::empty().boxed())
    }
}

struct Count(u8);
impl IdSource for Count {
    fn random(&mut self) -> [u8; 17] {
        self.0 += 1;
        [self.0; 17]
    }
}

fn task(number: u8, desired_state: TaskState) -> Task {
    let ids = &mut Count(number);
    Task {
        id: TaskId::new(ids),
        meta: Meta::default(),
        service_id: ServiceId::new(ids),
        slot: 1,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        spec: Arc::new(TaskSpec::default()),
        spec_version: 0,
        endpoint: None,
        registry_auth: None,
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        desired_state,
        job_iteration: None,
        assigned_generic: Vec::new(),
    }
}

fn step(complete: bool, changes: Vec<Assigned>) -> Assignments {
    Assignments { complete, changes }
}

fn assigned(task: &Task) -> Assigned {
    Assigned::Task(Box::new(task.clone()))
}

fn worker(fake: &Arc<Fake>, dir: &tempfile::TempDir) -> Arc<Worker> {
    let record = Record::open(&dir.path().join("tasks.redb")).unwrap();
    Worker::resume(fake.clone(), record).unwrap()
}

/// Waits until `id` is reported in `state`.
async fn reported(worker: &Worker, id: TaskId, state: TaskState) {
    loop {
        if worker.reporter().take().await.iter().any(|(task, status)| *task == id && status.state == state) {
            return;
        }
    }
}

/// Waits until `id` was removed.
async fn removed(fake: &Fake, id: TaskId) {
    while !fake.done.lock().unwrap().contains(&(id, Action::Remove)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_task_is_taken_to_running_and_stopped_when_that_is_wanted() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let worker = worker(&fake, &dir);
    let mut one = task(1, TaskState::Running);
    worker.assign(step(true, vec![assigned(&one)])).await.unwrap();
    reported(&worker, one.id, TaskState::Running).await;
    one.desired_state = TaskState::Shutdown;
    worker.assign(step(false, vec![assigned(&one)])).await.unwrap();
    reported(&worker, one.id, TaskState::Shutdown).await;
    let done: Vec<Action> = fake.done.lock().unwrap().iter().map(|d| d.1).collect();
    assert_eq!(done, [Action::Accept, Action::Prepare, Action::Start, Action::Shutdown]);
}

#[tokio::test]
async fn a_task_parks_when_it_is_only_to_be_ready() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let worker = worker(&fake, &dir);
    let mut one = task(1, TaskState::Ready);
    worker.assign(step(true, vec![assigned(&one)])).await.unwrap();
    reported(&worker, one.id, TaskState::Ready).await;
    assert!(!fake.done.lock().unwrap().iter().any(|d| d.1 == Action::Start));
    one.desired_state = TaskState::Running;
    worker.assign(step(false, vec![assigned(&one)])).await.unwrap();
    reported(&worker, one.id, TaskState::Running).await;
}

#[tokio::test]
async fn what_is_wanted_later_breaks_off_what_is_being_done() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    fake.never_prepared.store(true, Ordering::Relaxed);
    let worker = worker(&fake, &dir);
    let mut one = task(1, TaskState::Running);
    worker.assign(step(true, vec![assigned(&one)])).await.unwrap();
    reported(&worker, one.id, TaskState::Preparing).await;
    one.desired_state = TaskState::Remove;
    worker.assign(step(false, vec![assigned(&one)])).await.unwrap();
    reported(&worker, one.id, TaskState::Shutdown).await;
}

#[tokio::test]
async fn the_last_assignment_runs_without_any_manager() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let one = task(1, TaskState::Running);
    let first = worker(&fake, &dir);
    first.assign(step(true, vec![assigned(&one)])).await.unwrap();
    reported(&first, one.id, TaskState::Running).await;
    first.release().await;
    drop(first);
    let second = worker(&fake, &dir);
    reported(&second, one.id, TaskState::Running).await;
}

#[tokio::test]
async fn what_ended_with_the_machine_waits_for_a_word_of_the_managers_and_starts_only_where_it_is_still_wanted() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let (kept, mut moved) = (task(1, TaskState::Running), task(4, TaskState::Running));
    let first = worker(&fake, &dir);
    first.assign(step(true, vec![assigned(&kept), assigned(&moved)])).await.unwrap();
    reported(&first, kept.id, TaskState::Running).await;
    first.release().await;
    drop(first);
    fake.done.lock().unwrap().clear();
    fake.cut_short.store(true, Ordering::Relaxed);
    let second = worker(&fake, &dir);
    reported(&second, kept.id, TaskState::Starting).await;
    moved.desired_state = TaskState::Shutdown;
    second.assign(step(true, vec![assigned(&kept), assigned(&moved)])).await.unwrap();
    reported(&second, kept.id, TaskState::Running).await;
    let started: Vec<TaskId> = fake.done.lock().unwrap().iter().filter(|d| d.1 == Action::Start).map(|d| d.0).collect();
    assert_eq!(started, [kept.id]);
}

#[tokio::test]
async fn a_task_that_ended_does_not_run_again_after_a_restart() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let mut one = task(1, TaskState::Running);
    let first = worker(&fake, &dir);
    first.assign(step(true, vec![assigned(&one)])).await.unwrap();
    reported(&first, one.id, TaskState::Running).await;
    one.desired_state = TaskState::Shutdown;
    first.assign(step(false, vec![assigned(&one)])).await.unwrap();
    reported(&first, one.id, TaskState::Shutdown).await;
    first.release().await;
    drop(first);
    let before = fake.done.lock().unwrap().len();
    let second = worker(&fake, &dir);
    second.report_all();
    reported(&second, one.id, TaskState::Shutdown).await;
    assert_eq!(fake.done.lock().unwrap().len(), before);
}

#[tokio::test]
async fn what_a_complete_assignment_does_not_name_goes_also_when_nobody_knows_it() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let worker = worker(&fake, &dir);
    let (kept, gone, stray) = (task(1, TaskState::Running), task(2, TaskState::Running), task(3, TaskState::Running));
    fake.containers.lock().unwrap().insert(stray.id);
    worker.assign(step(false, vec![assigned(&kept), assigned(&gone)])).await.unwrap();
    reported(&worker, gone.id, TaskState::Running).await;
    worker.assign(step(true, vec![assigned(&kept)])).await.unwrap();
    removed(&fake, gone.id).await;
    removed(&fake, stray.id).await;
    assert_eq!(worker.tasks().iter().map(|t| t.id).collect::<Vec<_>>(), [kept.id]);
}

/// A task that wants the secret of this number, and the secret.
fn keeper(number: u8) -> (Task, Assigned) {
    let secret = Secret {
        id: SecretId::new(&mut Count(number)),
        meta: Meta::default(),
        spec: Arc::new(PayloadSpec { data: b"s3cr3t-of-keeper".to_vec().into(), ..PayloadSpec::default() }),
    };
    let reference = SecretReference {
        file: Some(FileTarget { name: "pass".into(), ..FileTarget::default() }),
        secret_id: secret.id.to_string(),
        secret_name: "pass".into(),
    };
    let container = ContainerSpec { secrets: vec![reference], ..ContainerSpec::default() };
    let spec = Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() });
    (Task { spec, ..task(number, TaskState::Running) }, Assigned::Secret(Arc::new(secret)))
}

#[tokio::test]
async fn secrets_are_there_before_their_tasks_and_never_in_the_record() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let (one, secret) = keeper(1);
    let first = worker(&fake, &dir);
    first.assign(step(true, vec![secret.clone(), assigned(&one)])).await.unwrap();
    reported(&first, one.id, TaskState::Running).await;
    first.release().await;
    drop(first);
    let record = std::fs::read(dir.path().join("tasks.redb")).unwrap();
    let holds = |text: &[u8]| record.windows(text.len()).any(|w| w == text);
    assert!(holds(one.id.as_str().as_bytes()) && !holds(b"s3cr3t-of-keeper") && !holds(b"czNjcjN0LW9mLWtlZXBlc"));

    let second = worker(&fake, &dir);
    reported(&second, one.id, TaskState::Starting).await;
    assert_eq!(fake.done.lock().unwrap().iter().filter(|d| d.1 == Action::Start).count(), 1, "it waits");
    second.assign(step(true, vec![secret, assigned(&one)])).await.unwrap();
    reported(&second, one.id, TaskState::Running).await;
}

#[tokio::test]
async fn a_task_whose_secret_is_gone_from_the_cluster_fails() {
    let (fake, dir) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
    let (one, _) = keeper(1);
    let worker = worker(&fake, &dir);
    worker.assign(step(true, vec![assigned(&one)])).await.unwrap();
    let status = loop {
        let all = worker.reporter().take().await;
        if let Some((_, status)) = all.into_iter().find(|(_, s)| s.state > TaskState::Running) {
            break status;
        }
    };
    assert!(
        status.err.starts_with("starting container failed: unable to get secret from secret store"),
        "{}",
        status.err
    );
}
