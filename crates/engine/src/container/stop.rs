//! Stopping and restarting by a person's will.

use std::sync::Arc;
use std::time::Duration;

use super::start::Starter;
use super::status::Phase;
use super::{Container, Stopping};
use crate::engine::{Engine, detached};
use crate::error::{Error, Result};
use crate::options::StopOptions;
use crate::signal;

const DEFAULT_TIMEOUT: i64 = 10;
/// After SIGKILL, for the kernel and for taking down what the run had.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    /// Stops a container: its stop signal, and SIGKILL when the time is up. It has ended when this returns.
    pub async fn stop(self: &Arc<Self>, name: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            if !container.data().status.is_running() {
                return Err(Error::NotModified("container is already stopped"));
            }
            engine.apply_stop(&container, &options, Stopping::Stop).await
        })
        .await
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(self: &Arc<Self>, name: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            if container.data().status.is_running() {
                engine.apply_stop(&container, &options, Stopping::Restart).await?;
            }
            engine.apply_start(&container, Starter::Person).await?;
            engine.container_event(&container, "restart", &[]);
            Ok(())
        })
        .await
    }

    pub(super) async fn apply_stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: &StopOptions,
        why: Stopping,
    ) -> Result<()> {
        let signal = match options.signal.as_deref().filter(|s| !s.is_empty()) {
            Some(text) => signal::parse(text)?,
            None => super::kill::stop_signal(container),
        };
        let timeout = options.timeout.or(container.spec().config.stop_timeout).unwrap_or(DEFAULT_TIMEOUT);
        if !self.end_pause(container, why) {
            self.end_run(container, signal, timeout).await?;
        }
        self.container_event(container, "stop", &[]);
        Ok(())
    }

    /// A container between two runs stays ended. Says whether it was one.
    fn end_pause(&self, container: &Arc<Container>, why: Stopping) -> bool {
        let mut between = false;
        container.set_status(|data| {
            data.stopping = why;
            data.status.manually_stopped = true;
            if let Some(cancel) = data.restart.take()
                && data.status.phase == Phase::Restarting
                && cancel.send(()).is_ok()
            {
                data.status.phase = Phase::Exited;
                between = true;
            }
        });
        between
    }

    async fn end_run(self: &Arc<Self>, container: &Arc<Container>, signal: i32, timeout: i64) -> Result<()> {
        let mut seen = container.watch();
        let before = seen.borrow_and_update().exits;
        self.send_signal(container, signal).await?;
        let mut ended = async |patience: Option<Duration>| {
            let wait = seen.wait_for(|seen| seen.exits > before || !seen.running);
            match patience {
                // the sender is the container that we hold
                None => wait.await.is_ok(),
                Some(patience) => tokio::time::timeout(patience, wait).await.is_ok_and(|seen| seen.is_ok()),
            }
        };
        let patience = u64::try_from(timeout).ok().map(Duration::from_secs);
        if ended(patience).await {
            return Ok(());
        }
        self.send_signal(container, signal::KILL).await?;
        if ended(Some(KILL_PATIENCE)).await {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "cannot stop container: {}: tried to kill container, but did not receive an exit event",
            container.id
        )))
    }

    /// Kills a container and waits until it has ended.
    pub(super) async fn end_at_once(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if self.end_pause(container, Stopping::Stop) || !container.data().status.is_running() {
            return Ok(());
        }
        self.end_run(container, signal::KILL, 0).await
    }
}
