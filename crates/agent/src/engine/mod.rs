//! Tasks on the engine of this node (swarm-semantics 2.5, 6): each is a container that carries the task in its labels.

mod describe;
mod image;
mod logs;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bollard_stubs::models::ContainerInspectResponse;
use futures::stream::BoxStream;
use shoal_engine::{Engine, Error, ErrorKind, ListOptions, PrivateFile, RemoveOptions, StopOptions};
use shoal_lifecycle::{Action, Facts, Failure, Watch};
use shoal_types::object::{ContainerStatus, NodeDescription, TlsInfo};
use shoal_types::spec::{ContainerSpec, MountType};
use shoal_types::template::{Context, expand};
use shoal_types::{NodeId, Task, TaskId, name};
use shoal_wire::logs::{LogLine, LogOptions};
use tokio::sync::watch::Receiver;

use crate::container::plan_container;
use crate::executor::{Executor, Outcome};
use crate::payloads::{Payloads, PlannedFile, plan_files};

const NODE_LABEL: &str = "com.docker.swarm.node.id";
const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// Runs tasks on an engine.
pub struct EngineExecutor {
    engine: Arc<Engine>,
    node: NodeId,
    description: NodeDescription,
    tls: Receiver<TlsInfo>,
    images: image::Images,
    /// One task is prepared, started, stopped or removed at a time: what was broken off ends before the next begins.
    turns: Mutex<HashMap<TaskId, Arc<tokio::sync::Mutex<()>>>>,
}

impl EngineExecutor {
    /// Runs the tasks of `node`, whose authority is `tls` by then, on `engine`.
    pub fn new(engine: Arc<Engine>, node: NodeId, tls: Receiver<TlsInfo>) -> Self {
        let description = describe::describe(&engine, tls.borrow().clone());
        let images = image::Images::new(engine.clone());
        Self { engine, node, description, tls, images, turns: Mutex::default() }
    }

    async fn turn(&self, task: TaskId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = self.turns.lock().expect("nothing panics while it is held").entry(task).or_default().clone();
        turn.lock_owned().await
    }

    fn expanded(&self, task: &Task) -> Result<ContainerSpec, Failure> {
        let spec = task.spec.container_spec.as_ref().ok_or_else(|| failure("container spec required"))?;
        let context = Context::of(task, self.node, &self.description);
        expand(spec, &context).map_err(failure)
    }

    fn accept(&self, task: &Task) -> Result<(), Failure> {
        let spec = self.expanded(task)?;
        plan_container(task, &spec, self.node).map(drop).map_err(failure)
    }

    async fn prepare(&self, task: &Task) -> Result<(), Failure> {
        let spec = self.expanded(task)?;
        check_binds(&spec)?;
        if self.find(task).await?.is_some() {
            return Ok(());
        }
        self.images.ensure(&spec.image, task.registry_auth.as_deref()).await?;
        let body = plan_container(task, &spec, self.node).map_err(failure)?;
        let (engine, name, turn) = (self.engine.clone(), name::task_name(task), self.turn(task.id).await);
        // Goes on to its end when the task is called off meanwhile, so that whoever has the next turn finds it.
        let created = tokio::spawn(async move {
            let _turn = turn;
            engine.create(Some(&name), None, body).await
        });
        match created.await {
            Ok(Err(error)) if error.kind() == ErrorKind::Conflict && self.find(task).await?.is_some() => Ok(()),
            Ok(created) => created.map(drop).map_err(failure),
            Err(_) => Err(Failure::Cancelled),
        }
    }

    /// The files in memory that the container is to have. Waits for a manager where this node knows none yet.
    async fn files(&self, task: &Task, payloads: &Payloads) -> Result<Vec<PrivateFile>, Failure> {
        let spec = self.expanded(task)?;
        let wanted = payloads.of(&spec).await.map_err(Failure::to_start)?;
        let context = Context::of(task, self.node, &self.description);
        let files = plan_files(&wanted, &spec.env, &context).map_err(Failure::to_start)?.into_iter();
        Ok(files
            .map(|PlannedFile { path, uid, gid, mode, data }| PrivateFile { target: path, uid, gid, mode, data })
            .collect())
    }

    /// A container that has had its time needs its files no more, however long it is kept.
    async fn drop_files(&self, action: Action, outcome: &Result<(), Failure>, task: &Task) {
        let is_over = matches!(
            (action, outcome),
            (Action::Wait | Action::Shutdown, Ok(())) | (Action::Wait | Action::Start, Err(Failure::Final(_)))
        );
        if !is_over {
            return;
        }
        match self.engine.drop_files(&name::task_name(task)).await {
            // gone already, or started again by hand
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                tracing::warn!("the secrets of task {} stay in memory until its container goes: {error}", task.id);
            }
            _ => {}
        }
    }

    async fn start(&self, task: &Task, payloads: &Payloads) -> Result<(), Failure> {
        let mut container = watch::Container::open(&self.engine, name::task_name(task))?;
        let state = self.inspect(task).await?;
        let mut watch = Watch::starting(watch::has_health_check(&state));
        if watch::never_started(&state) || self.engine.was_cut_short(&name::task_name(task)) {
            let files = self.files(task, payloads).await?;
            let turn = self.turn(task.id).await;
            let (engine, name) = (self.engine.clone(), name::task_name(task));
            let started = tokio::spawn(async move {
                let _turn = turn;
                if !files.is_empty() {
                    engine.place_files(&name, files).await?;
                }
                engine.start(&name).await
            });
            match started.await {
                Ok(Err(error)) if error.kind() != ErrorKind::NotModified => return Err(Failure::to_start(error)),
                Ok(_) => {}
                Err(_) => return Err(Failure::Cancelled),
            }
        }
        container.run(&mut watch, || self.stop(task)).await
    }

    async fn wait(&self, task: &Task, payloads: &Payloads) -> Result<(), Failure> {
        if self.engine.was_cut_short(&name::task_name(task)) {
            self.start(task, payloads).await?;
        }
        let mut container = watch::Container::open(&self.engine, name::task_name(task))?;
        container.run(&mut Watch::running(), || self.stop(task)).await
    }

    async fn stop(&self, task: &Task) -> Result<(), Failure> {
        let _turn = self.turn(task.id).await;
        match self.engine.stop(&name::task_name(task), StopOptions::default()).await {
            Err(error) if !matches!(error.kind(), ErrorKind::NotModified | ErrorKind::NotFound) => {
                Err(Failure::Temporary(error.to_string()))
            }
            _ => Ok(()),
        }
    }

    async fn inspect(&self, task: &Task) -> Result<ContainerInspectResponse, Failure> {
        self.engine.inspect(&name::task_name(task), false).await.map_err(failure)
    }

    async fn find(&self, task: &Task) -> Result<Option<ContainerInspectResponse>, Failure> {
        match self.engine.inspect(&name::task_name(task), false).await {
            Ok(container) => Ok(Some(container)),
            Err(Error::NoSuchContainer(_)) => Ok(None),
            Err(error) => Err(failure(error)),
        }
    }

    async fn facts(&self, action: Action, task: &Task) -> Facts {
        if matches!(action, Action::Accept | Action::Remove) {
            return Facts::default();
        }
        let Ok(Some(container)) = self.find(task).await else { return Facts::default() };
        let ports = (action == Action::Start).then(|| watch::host_ports(&container));
        Facts { container: Some(status(&container)), ports }
    }

    /// (container, task) of every task container of this node.
    async fn containers(&self) -> Vec<(String, TaskId)> {
        let filters = [("label".to_owned(), vec![format!("{NODE_LABEL}={}", self.node)])].into();
        let listed = self.engine.list(ListOptions { all: true, filters, ..ListOptions::default() }).await;
        let containers = listed.unwrap_or_else(|error| {
            tracing::warn!("cannot list the containers of this node: {error}");
            Vec::new()
        });
        let task = |labels: &HashMap<String, String>| labels.get(TASK_LABEL).and_then(|id| id.parse().ok());
        containers.into_iter().filter_map(|c| Some((c.id?, task(&c.labels?)?))).collect()
    }
}

#[async_trait]
impl Executor for EngineExecutor {
    async fn describe(&self) -> NodeDescription {
        NodeDescription { tls_info: self.tls.borrow().clone(), ..self.description.clone() }
    }

    async fn changed(&self, said: &NodeDescription) {
        // An error means that the node ends.
        if self.tls.clone().wait_for(|tls| *tls != said.tls_info).await.is_err() {
            std::future::pending().await
        }
    }

    async fn act(&self, action: Action, task: &Task, payloads: &Payloads) -> Outcome {
        let outcome = match action {
            Action::Accept => self.accept(task),
            Action::Prepare => self.prepare(task).await,
            Action::Start => self.start(task, payloads).await,
            Action::Wait => self.wait(task, payloads).await,
            Action::Shutdown => self.stop(task).await,
            Action::Remove => self.remove(task.id).await,
        };
        let facts = self.facts(action, task).await;
        self.drop_files(action, &outcome, task).await;
        (outcome, facts)
    }

    async fn was_cut_short(&self, task: &Task) -> bool {
        self.engine.was_cut_short(&name::task_name(task))
    }

    async fn remove(&self, task: TaskId) -> Result<(), Failure> {
        let _turn = self.turn(task).await;
        for (container, _) in self.containers().await.into_iter().filter(|(_, id)| *id == task) {
            match self.engine.remove(&container, RemoveOptions { force: true, volumes: true }).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(Failure::Temporary(error.to_string())),
                _ => {}
            }
        }
        self.turns.lock().expect("nothing panics while it is held").remove(&task);
        Ok(())
    }

    async fn present(&self) -> Vec<TaskId> {
        self.containers().await.into_iter().map(|(_, task)| task).collect()
    }

    async fn logs(&self, task: Arc<Task>, options: LogOptions) -> Result<BoxStream<'static, LogLine>, Failure> {
        logs::read(&self.engine, &task, options).await
    }
}

/// A service makes no directories on its nodes: a bind whose source is not there fails.
fn check_binds(spec: &ContainerSpec) -> Result<(), Failure> {
    let missing =
        |m: &&shoal_types::spec::Mount| m.r#type == MountType::Bind && !std::path::Path::new(&m.source).exists();
    match spec.mounts.iter().find(missing) {
        Some(mount) => Err(failure(format!("invalid bind mount source, source path not found: {}", mount.source))),
        None => Ok(()),
    }
}

fn status(container: &ContainerInspectResponse) -> ContainerStatus {
    let state = container.state.as_ref();
    ContainerStatus {
        container_id: container.id.clone().unwrap_or_default(),
        pid: state.and_then(|s| s.pid).unwrap_or_default(),
        exit_code: state.and_then(|s| s.exit_code).unwrap_or_default(),
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::Final(error.to_string())
}
