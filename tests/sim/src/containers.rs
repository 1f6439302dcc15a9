//! A machine's containers: they outlive its daemon, and end with its power.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use shoal_agent::executor::{Executor, Outcome};
use shoal_agent::payloads::Payloads;
use shoal_lifecycle::{Action, Facts, Failure};
use shoal_types::object::{ContainerStatus, NodeDescription, Platform};
use shoal_types::spec::Resources;
use shoal_types::{Task, TaskId};
use shoal_wire::logs::{LogLine, LogOptions};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::place::Place;
use crate::plant::Plant;
use crate::world::World;

/// An image that no registry has.
pub const MISSING: &str = "missing";
/// What a container has in its environment if it ends by itself, after a while.
pub const FLAKY: &str = "FLAKY=1";
/// CPUs of a machine, in thousand-millionths.
pub const NANO_CPUS: i64 = 4_000_000_000;

/// The containers of one machine. Cheap to clone.
#[derive(Clone)]
pub struct Containers {
    world: World,
    place: Place,
    inner: Arc<Mutex<BTreeMap<TaskId, Container>>>,
    changed: watch::Sender<()>,
}

/// A container.
#[derive(Debug, Clone)]
struct Container {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Created,
    /// Until it ends by itself.
    Running(Option<Instant>),
    Exited(i64),
}

impl Containers {
    /// None yet.
    pub fn new(world: &World, place: Place) -> Self {
        Self { world: world.clone(), place, inner: Arc::default(), changed: watch::channel(()).0 }
    }

    /// The power is gone: nothing runs any more.
    pub fn power_fails(&self) {
        let mut inner = self.lock();
        for container in inner.values_mut().filter(|c| matches!(c.state, State::Running(_))) {
            container.state = State::Exited(137);
        }
        drop(inner);
        self.changed.send_replace(());
    }

    /// They are stopped and forgotten.
    pub fn clear(&self) {
        self.lock().clear();
        self.changed.send_replace(());
    }

    /// Those that run now.
    pub fn running(&self) -> BTreeSet<TaskId> {
        let now = Instant::now();
        self.lock().iter().filter(|(_, c)| c.runs(now)).map(|(id, _)| *id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Container>> {
        self.inner.lock().expect("nothing panics while it is held")
    }

    async fn prepare(&self, task: &Task) -> Result<(), Failure> {
        let spec = task.spec.container_spec.as_ref().ok_or_else(|| Failure::Final("no container".into()))?;
        tokio::time::sleep(self.world.millis(5..400)).await;
        if spec.image == MISSING {
            return Err(Failure::Final(format!("No such image: {MISSING}")));
        }
        if self.world.chance(0.02) {
            return Err(Failure::Temporary("the registry does not answer".into()));
        }
        let new = Container { state: State::Created };
        self.lock().entry(task.id).or_insert(new);
        Ok(())
    }

    async fn start(&self, task: &Task) -> Result<(), Failure> {
        tokio::time::sleep(self.world.millis(5..200)).await;
        let is_flaky = task.spec.container_spec.as_ref().is_some_and(|s| s.env.iter().any(|e| e == FLAKY));
        let end = is_flaky.then(|| Instant::now() + self.world.millis(100..20_000));
        let mut inner = self.lock();
        let container = inner.get_mut(&task.id).ok_or_else(|| Failure::Final("No such container".into()))?;
        match container.state {
            State::Created => container.state = State::Running(end),
            State::Running(_) => {}
            State::Exited(code) => return Err(exit(code)),
        }
        self.world.note(format_args!("runs {} slot {}", task.id, task.slot));
        Ok(())
    }

    async fn wait(&self, task: TaskId) -> Result<(), Failure> {
        let mut changed = self.changed.subscribe();
        loop {
            let state = self.lock().get(&task).map(|c| c.state);
            match state {
                None => return Err(Failure::Final("No such container".into())),
                Some(State::Exited(0)) => return Ok(()),
                Some(State::Exited(code)) => return Err(exit(code)),
                Some(State::Running(Some(end))) if end <= Instant::now() => {
                    let code = i64::from(self.world.chance(0.7));
                    self.set(task, State::Exited(code));
                    continue;
                }
                Some(State::Running(Some(end))) => {
                    drop(tokio::time::timeout_at(end, changed.changed()).await);
                    continue;
                }
                Some(_) => {}
            }
            drop(changed.changed().await);
        }
    }

    async fn stop(&self, task: TaskId) {
        tokio::time::sleep(self.world.millis(5..300)).await;
        if self.world.has(Plant::Leftover) && self.world.chance(0.2) {
            return;
        }
        let was = self.lock().get(&task).map(|c| c.state);
        if matches!(was, Some(State::Running(_))) {
            self.set(task, State::Exited(0));
        }
    }

    fn set(&self, task: TaskId, state: State) {
        if let Some(container) = self.lock().get_mut(&task) {
            container.state = state;
        }
        self.changed.send_replace(());
    }

    fn facts(&self, task: TaskId) -> Facts {
        let container = self.lock().get(&task).map(|c| ContainerStatus {
            container_id: task.to_string(),
            pid: i64::from(matches!(c.state, State::Running(_))),
            exit_code: if let State::Exited(code) = c.state { code } else { 0 },
        });
        Facts { container, ports: None }
    }
}

impl Container {
    fn runs(&self, now: Instant) -> bool {
        matches!(self.state, State::Running(end) if end.is_none_or(|end| end > now))
    }
}

#[async_trait]
impl Executor for Containers {
    async fn describe(&self) -> NodeDescription {
        NodeDescription {
            hostname: format!("m{}", self.place),
            platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
            resources: Resources { nano_cpus: NANO_CPUS, memory_bytes: 8 << 30, ..Resources::default() },
            ..NodeDescription::default()
        }
    }

    async fn act(&self, action: Action, task: &Task, _: &Payloads) -> Outcome {
        let outcome = match action {
            Action::Accept => Ok(()),
            Action::Prepare => self.prepare(task).await,
            Action::Start => self.start(task).await,
            Action::Wait => self.wait(task.id).await,
            Action::Shutdown => {
                self.stop(task.id).await;
                Ok(())
            }
            Action::Remove => self.remove(task.id).await,
        };
        (outcome, self.facts(task.id))
    }

    async fn remove(&self, task: TaskId) -> Result<(), Failure> {
        tokio::time::sleep(self.world.millis(1..50)).await;
        self.lock().remove(&task);
        self.changed.send_replace(());
        Ok(())
    }

    async fn present(&self) -> Vec<TaskId> {
        self.lock().keys().copied().collect()
    }

    async fn logs(&self, _: Arc<Task>, _: LogOptions) -> Result<BoxStream<'static, LogLine>, Failure> {
        Ok(futures::stream::empty().boxed())
    }
}

fn exit(code: i64) -> Failure {
    Failure::Final(format!("task: non-zero exit ({code})"))
}
