//! Running health checks: probes at their times, their results into [`crate::health`].

use std::sync::Arc;

use bollard_stubs::models::ExecConfig;
use jiff::Timestamp;
use shoal_runtime::{AttachOptions, AttachReader, Frame, Supervisor, Target};
use tokio::sync::oneshot;

use crate::container::Container;
use crate::container::spec::ContainerSpec;
use crate::container::status::Phase;
use crate::engine::{Engine, blocking};
use crate::health::{self, HealthPlan, MAX_OUTPUT, Probe};
use crate::{names, signal};

impl Engine {
    /// What a container's health checks are; `None`: it has none.
    pub(crate) fn health_plan(&self, spec: &ContainerSpec) -> Option<HealthPlan> {
        HealthPlan::new(spec.config.healthcheck.as_ref(), spec.config.shell.as_deref().unwrap_or_default())
    }

    /// Checks a container's health until its run ends.
    pub(crate) fn check_health(self: &Arc<Self>, container: &Arc<Container>, plan: HealthPlan) {
        let (stop, stopped) = oneshot::channel();
        container.data().health = Some(stop);
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = stopped => {}
                () = engine.run_health(&container, &plan) => {}
            }
        });
    }

    async fn run_health(self: &Arc<Self>, container: &Arc<Container>, plan: &HealthPlan) {
        loop {
            let Some((pause, started)) = next(container, plan) else { return };
            tokio::time::sleep(pause).await;
            if container.phase() == Phase::Paused {
                continue;
            }
            let Ok(supervisor) = container.supervisor() else { return };
            let probe = self.probe(container, &supervisor, plan).await;
            let mut changed = None;
            container.set_status(|data| {
                // the run may have ended while the probe did
                if data.status.phase.is_alive()
                    && let Some(state) = &mut data.status.health
                {
                    changed = plan.take(state, probe, started);
                }
            });
            if let Some(status) = changed {
                self.container_event(container, &health::event(status), &[]);
            }
        }
    }

    async fn probe(self: &Arc<Self>, container: &Arc<Container>, supervisor: &Supervisor, plan: &HealthPlan) -> Probe {
        let start = Timestamp::now();
        let (exit_code, output) = match self.run_probe(container, supervisor, plan).await {
            Ok(result) => result,
            Err(error) => (-1, error.to_string()),
        };
        Probe { start, end: Timestamp::now(), exit_code, output }
    }

    async fn run_probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        supervisor: &Supervisor,
        plan: &HealthPlan,
    ) -> crate::Result<(i32, String)> {
        let id = format!("probe-{}", &names::new_id(&mut rand::rng())[..16]);
        let config = ExecConfig { cmd: Some(plan.command.clone()), ..ExecConfig::default() };
        let (engine, spec, name) = (self.clone(), container.spec(), id.clone());
        let exec = blocking(move || engine.exec_spec(&spec, &name, &config)).await?;
        let attach = AttachOptions { stdin: false, stdout: true, stderr: true };
        let (stream, _) = supervisor.exec_attached(exec, attach).await?;
        // the input half stays: without it, the stream would end
        let (mut reader, _writer) = stream.split();
        let mut output = Vec::new();
        match tokio::time::timeout(plan.timeout, collect(&mut reader, &mut output)).await {
            Ok(Some(code)) => Ok((code, text(&output))),
            Ok(None) => Ok((-1, text(&output))),
            Err(_) => {
                // it may have ended just now
                supervisor.signal(Target::Exec(id), signal::KILL).await.ok();
                let span = jiff::SignedDuration::try_from(plan.timeout).unwrap_or_default();
                Ok((-1, format!("Health check exceeded timeout ({span:#}): {}", text(&output))))
            }
        }
    }
}

/// The pause before the next probe, and when the run began; `None`: it has ended.
fn next(container: &Container, plan: &HealthPlan) -> Option<(std::time::Duration, Timestamp)> {
    let data = container.data();
    let started = data.status.started_at?;
    let state = data.status.health.as_ref().filter(|_| data.status.phase.is_alive())?;
    Some((plan.pause(state, started, Timestamp::now()), started))
}

/// Output up to the end; returns the exit code.
async fn collect(reader: &mut AttachReader, output: &mut Vec<u8>) -> Option<i32> {
    loop {
        match reader.next().await {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) => {
                let room = MAX_OUTPUT.saturating_sub(output.len());
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Frame::Exited(status) => return Some(status.code),
            Frame::Lost => return None,
        }
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}
