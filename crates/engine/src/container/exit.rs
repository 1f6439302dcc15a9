//! What happens when a container ends: cleaning up, telling, restarting, removing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shoal_runtime::{CallError, Connected, ExitRecord, Supervisor};
use tokio::sync::oneshot;

use super::restart::{Ended, plan_restart};
use super::start::Starter;
use super::status::{Phase, Status};
use super::{Container, Data, Stopping};
use crate::engine::Engine;
use crate::options::RemoveOptions;

/// The pause before a supervisor that could not be asked is asked again.
const RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// Watches a live container to its end.
    pub(crate) fn watch(self: &Arc<Self>, container: &Arc<Container>, supervisor: Supervisor) {
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let record = engine.wait_for_end(&container, supervisor).await;
            engine.handle_exit(&container, record).await;
        });
    }

    async fn wait_for_end(&self, container: &Arc<Container>, mut supervisor: Supervisor) -> ExitRecord {
        loop {
            let error = tokio::select! {
                ended = supervisor.wait() => match ended {
                    Ok(record) => return record,
                    Err(error) => error,
                },
                error = self.watch_memory(container, &supervisor) => error,
            };
            tracing::warn!(container = %container.id, %error, "supervisor cannot be asked; trying again");
            tokio::time::sleep(RETRY).await;
            match Supervisor::connect(&self.layout.run(&container.id)).await {
                Ok(Connected::Ended(record)) => return *record,
                Ok(Connected::Alive(again, _)) => {
                    container.data().supervisor = Some(again.clone());
                    supervisor = again;
                }
                Err(error) => tracing::warn!(container = %container.id, %error, "supervisor cannot be found"),
            }
        }
    }

    /// Reports each time the kernel kills for memory; returns only where the supervisor cannot be asked.
    async fn watch_memory(&self, container: &Arc<Container>, supervisor: &Supervisor) -> CallError {
        loop {
            match supervisor.oom().await {
                Ok(()) => {
                    container.set_status(|data| data.status.oom_killed = true);
                    self.container_event(container, "oom", &[]);
                }
                // it has left: `wait` tells how it ended
                Err(CallError::Gone(_)) => std::future::pending().await,
                Err(error) => return error,
            }
        }
    }

    /// A container has ended: nothing of its run is left when waiters hear of it.
    pub(crate) async fn handle_exit(self: &Arc<Self>, container: &Arc<Container>, record: ExitRecord) {
        container.data().health = None;
        self.release(container).await;
        // The kill that ended the container may have come too late for the watch to tell of it.
        if record.oom_killed && !container.status().oom_killed {
            self.container_event(container, "oom", &[]);
        }
        let (ran, restart) = take_in(container, &record);
        let mut attributes =
            vec![("exitCode", record.status.code.to_string()), ("execDuration", ran.as_secs().to_string())];
        if record.oom_killed {
            attributes.push(("oomKilled", "true".to_owned()));
        }
        self.container_event(container, "die", &attributes);
        container.see(|seen| {
            seen.running = container.data().status.is_running();
            seen.exits += 1;
            seen.exit_code = record.status.code;
            seen.error = record.error.clone().unwrap_or_default();
        });
        match restart {
            Some((pause, cancelled)) => self.restart_later(container, pause, cancelled),
            None => self.remove_if_asked(container).await,
        }
    }

    /// Starts the container again after the pause, unless it is stopped before.
    fn restart_later(self: &Arc<Self>, container: &Arc<Container>, pause: Duration, cancelled: oneshot::Receiver<()>) {
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = cancelled => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = engine.apply_start(&container, Starter::Policy).await {
                tracing::warn!(container = %container.id, %error, "container cannot be restarted");
                engine.handle_failed_restart(&container).await;
            }
        });
    }

    /// A restart that failed counts as a run that ended: the policy decides again.
    async fn handle_failed_restart(self: &Arc<Self>, container: &Arc<Container>) {
        let planned = {
            let mut data = container.data();
            let free = data.stopping == Stopping::No && !data.removing && !data.status.phase.is_alive();
            free.then(|| plan(&mut data, Duration::ZERO)).flatten()
        };
        if let Some((pause, cancelled)) = planned {
            container.set_status(|_| {});
            self.restart_later(container, pause, cancelled);
        }
    }

    async fn remove_if_asked(self: &Arc<Self>, container: &Arc<Container>) {
        let restarting = { container.data().stopping == Stopping::Restart };
        if container.spec().auto_remove() && !restarting {
            self.remove_ended(container).await;
        }
    }

    /// Removes a container that was made with `--rm`, with its anonymous volumes.
    pub(crate) async fn remove_ended(self: &Arc<Self>, container: &Arc<Container>) {
        let options = RemoveOptions { force: true, volumes: true };
        if let Err(error) = self.apply_remove(container, options).await {
            // someone else is removing it
            tracing::debug!(container = %container.id, %error, "container is not removed at its end");
        }
    }
}

/// A restart that is to come: the pause before it, and the word that it is not to come.
type Restart = (Duration, oneshot::Receiver<()>);

/// Writes down how a run ended and decides, in one step, whether it starts again. Waiters are not told yet.
fn take_in(container: &Container, record: &ExitRecord) -> (Duration, Option<Restart>) {
    let (ran, restart, status) = {
        let mut data = container.data();
        data.supervisor = None;
        data.attachers.clear();
        let status = &mut data.status;
        let started = record.started_at.or(status.started_at).unwrap_or(record.finished_at);
        status.phase = Phase::Exited;
        status.started_at = Some(started);
        status.pid = None;
        status.exit_code = record.status.code;
        status.oom_killed |= record.oom_killed;
        status.error = record.error.clone().unwrap_or_default();
        status.finished_at = Some(record.finished_at);
        // As in Docker: what is not checked any more is not healthy.
        if let Some(health) = &mut status.health {
            health.status = crate::health::Status::Unhealthy;
        }
        let ran = span(started, record.finished_at);
        let free = data.stopping == Stopping::No && !data.removing;
        let restart = free.then(|| plan(&mut data, ran)).flatten();
        (ran, restart, data.status.clone())
    };
    container.save(&status);
    (ran, restart)
}

/// Asks the restart policy, and where it wants one, makes the container one that waits for its restart.
fn plan(data: &mut Data, ran: Duration) -> Option<Restart> {
    let ended = ended(&data.status, ran);
    let pause = plan_restart(data.spec.host_config.restart_policy.as_ref(), ended)?;
    let (cancel, cancelled) = oneshot::channel();
    data.restart = Some(cancel);
    data.status.phase = Phase::Restarting;
    data.status.restart_count += 1;
    data.status.backoff_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    Some((pause, cancelled))
}

/// What the restart policy is asked about.
pub(crate) fn ended(status: &Status, ran: Duration) -> Ended {
    Ended {
        exit_code: status.exit_code,
        ran,
        manually: status.manually_stopped,
        restarts: status.restart_count,
        backoff: Duration::from_millis(status.backoff_ms),
    }
}

/// The time between two moments; none if the clock went back.
pub(crate) fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
