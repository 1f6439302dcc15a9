//! Signals.

use std::sync::Arc;

use shoal_runtime::{CallError, Refusal, Target};

use super::Container;
use super::status::Phase;
use crate::engine::{Engine, detached};
use crate::error::{Error, Result};
use crate::signal;

impl Engine {
    /// Sends a signal to a container's first process; `None`: SIGKILL.
    pub async fn kill(self: &Arc<Self>, name: &str, signal: Option<&str>) -> Result<()> {
        let container = self.containers.find(name)?;
        let signal = signal.filter(|s| !s.is_empty()).map_or(Ok(signal::KILL), signal::parse)?;
        let (engine, name) = (self.clone(), name.to_owned());
        detached(async move {
            let alive = { container.data().status.phase.is_alive() };
            if !alive {
                let id = &container.id;
                return Err(Error::Conflict(format!("cannot kill container: {name}: container {id} is not running")));
            }
            container.set_status(|data| data.status.manually_stopped = true);
            engine.send_signal(&container, signal).await
        })
        .await
    }

    /// Sends a signal and says so. A container that has ended meanwhile is no error.
    pub(super) async fn send_signal(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        let supervisor = match container.supervisor() {
            Ok(supervisor) => supervisor,
            Err(Error::NotRunning(_)) => return Ok(()),
            Err(other) => return Err(other),
        };
        // a frozen process does not see a signal that is to end it
        let ends = signal == signal::KILL || signal == stop_signal(container);
        if ends && container.phase() == Phase::Paused {
            self.thaw(container, &supervisor).await?;
        }
        match supervisor.signal(Target::Main, signal).await {
            Ok(()) => {
                self.container_event(container, "kill", &[("signal", signal::text(signal))]);
                Ok(())
            }
            Err(CallError::Gone(_) | CallError::Refused(Refusal::NotRunning(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What stops a container politely.
pub(super) fn stop_signal(container: &Container) -> i32 {
    let spec = container.spec();
    spec.config
        .stop_signal
        .as_deref()
        .filter(|s| !s.is_empty())
        .and_then(|s| signal::parse(s).ok())
        .unwrap_or(signal::TERM)
}
