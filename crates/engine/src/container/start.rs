//! Starting a container.

use std::sync::Arc;

use shoal_runtime::{LaunchError, SpawnError, Supervisor};

use super::status::Phase;
use super::{Container, Stopping};
use crate::engine::{Engine, detached};
use crate::error::{Error, Result};
use crate::health::HealthState;

/// Who starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    /// A person: counts begin anew.
    Person,
    /// Its restart policy.
    Policy,
}

impl Engine {
    /// Starts a container's command. When this returns the command runs, or the error says why not and the container
    /// remembers its exit code.
    pub async fn start(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move { engine.apply_start(&container, Starter::Person).await }).await
    }

    pub(crate) async fn apply_start(self: &Arc<Self>, container: &Arc<Container>, starter: Starter) -> Result<()> {
        let operation = container.operation.lock().await;
        check_startable(container, starter)?;
        {
            let mut data = container.data();
            data.stopping = Stopping::No;
            if starter == Starter::Person {
                let status = &mut data.status;
                (status.restart_count, status.backoff_ms, status.manually_stopped) = (0, 0, false);
            }
        }
        match self.launch(container).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.handle_failed_start(container, &error);
                if container.spec().auto_remove() {
                    drop(operation);
                    self.remove_ended(container).await;
                }
                Err(error)
            }
        }
    }

    async fn launch(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let job = self.prepare(container).await?;
        let (supervisor, pid) = match Supervisor::spawn(&self.exe, &job).await {
            Ok(spawned) => spawned,
            Err(error) => {
                self.release(container).await;
                return Err(spawn_error(error));
            }
        };
        let spec = container.spec();
        if container.data().status.endpoint.is_some() {
            self.network_event(container, "connect");
        }
        for mount in spec.mounts.iter().filter(|mount| mount.kind == super::spec::MountKind::Volume) {
            self.volume_event(
                &mount.volume,
                "mount",
                &[
                    ("container", container.id.clone()),
                    ("destination", mount.destination.clone()),
                    ("driver", "local".to_owned()),
                    ("propagation", mount.propagation.clone()),
                    ("read/write", mount.rw.to_string()),
                ],
            );
        }
        let waiting = std::mem::take(&mut container.data().attachers);
        for attacher in waiting {
            attacher.deliver(&supervisor).await;
        }
        let started = jiff::Timestamp::now();
        if let Err(error) = supervisor.start().await {
            // it cannot be told to start: it must not stay half-made either
            supervisor.signal(shoal_runtime::Target::Main, crate::signal::KILL).await.ok();
            supervisor.wait().await.ok();
            self.release(container).await;
            return Err(error.into());
        }
        self.handle_started(container, supervisor, pid, started);
        Ok(())
    }

    fn handle_started(
        self: &Arc<Self>,
        container: &Arc<Container>,
        supervisor: Supervisor,
        pid: i32,
        started: jiff::Timestamp,
    ) {
        let plan = self.health_plan(&container.spec());
        container.set_status(|data| {
            data.supervisor = Some(supervisor.clone());
            data.execs.clear();
            let status = &mut data.status;
            status.phase = Phase::Running;
            status.pid = Some(pid);
            status.exit_code = 0;
            status.error.clear();
            status.oom_killed = false;
            status.lost = false;
            status.started_at = Some(started);
            status.health = plan.as_ref().map(|_| HealthState::default());
        });
        self.container_event(container, "start", &[]);
        self.watch(container, supervisor);
        if let Some(plan) = plan {
            self.check_health(container, plan);
        }
    }

    /// The container remembers why it could not start; waiters hear of it.
    fn handle_failed_start(&self, container: &Arc<Container>, error: &Error) {
        let exit_code = match error {
            Error::Launch { exit_code, .. } => *exit_code,
            _ => 128,
        };
        container.data().attachers.clear();
        container.set_status(|data| {
            let status = &mut data.status;
            status.phase = if status.started_at.is_some() { Phase::Exited } else { Phase::Created };
            status.pid = None;
            status.exit_code = exit_code;
            status.error = error.to_string();
        });
        container.see(|seen| {
            seen.exits += 1;
            seen.exit_code = exit_code;
            seen.error = error.to_string();
        });
    }
}

fn check_startable(container: &Container, starter: Starter) -> Result<()> {
    let data = container.data();
    if data.removing {
        return Err(Error::Conflict("container is marked for removal and cannot be started".to_owned()));
    }
    match data.status.phase {
        Phase::Paused => Err(Error::Conflict("cannot start a paused container, try unpause instead".to_owned())),
        Phase::Running => Err(Error::NotModified("container is already running")),
        Phase::Restarting if starter == Starter::Person => Err(Error::NotModified("container is already running")),
        Phase::Restarting if data.stopping != Stopping::No => {
            Err(Error::Conflict("container has been stopped".to_owned()))
        }
        _ => Ok(()),
    }
}

/// In the words that Docker's client looks for when it chooses its exit code.
fn spawn_error(error: SpawnError) -> Error {
    match error {
        SpawnError::Launch(cause) => {
            let exit_code = cause.exit_code();
            let start = "failed to create task for container";
            let message = match cause {
                LaunchError::CommandNotFound(_)
                | LaunchError::CommandNotExecutable(_)
                | LaunchError::WorkingDirectory(_) => {
                    format!("{start}: unable to start container process: {cause}: unknown")
                }
                LaunchError::Setup(_) | LaunchError::Config(_) => format!("{start}: {cause}"),
            };
            Error::Launch { message, exit_code }
        }
        other => Error::Spawn(other),
    }
}
