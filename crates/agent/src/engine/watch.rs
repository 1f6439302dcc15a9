//! A container as the agent watches it: what the engine tells of it, as observations.

use std::pin::Pin;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, EventMessage, HealthStatusEnum,
};
use futures::{Stream, StreamExt};
use shoal_engine::{Engine, Error, EventsOptions};
use shoal_lifecycle::{Exit, Failure, Observation, Verdict, Watch};
use shoal_types::spec::{PortConfig, PublishMode};

/// A container whose events are being listened to.
pub(super) struct Container {
    engine: Arc<Engine>,
    name: String,
    events: Pin<Box<dyn Stream<Item = EventMessage> + Send>>,
}

impl Container {
    /// Listens from now on: what happens after this is not missed.
    pub(super) fn open(engine: &Arc<Engine>, name: String) -> Result<Self, Failure> {
        let filters = [("container".to_owned(), vec![name.clone()])].into();
        let events = engine.events(EventsOptions { filters, ..EventsOptions::default() });
        let events = events.map_err(|e| Failure::Final(e.to_string()))?;
        Ok(Self { engine: engine.clone(), name, events: Box::pin(events) })
    }

    /// Watches until `watch` comes to a verdict. Looks at the container itself, first and after every event: an event only
    /// says that there is something to see, except for health, where each one counts.
    pub(super) async fn run<F>(&mut self, watch: &mut Watch, stop: impl Fn() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let mut seen = look(&self.engine, &self.name).await?;
        loop {
            for observation in seen {
                match watch.observe(observation) {
                    Verdict::Wait => {}
                    Verdict::Stop => stop().await?,
                    Verdict::Done(outcome) => return outcome,
                }
            }
            let Some(event) = self.events.next().await else { return std::future::pending().await };
            seen = match event.action.as_deref().unwrap_or_default() {
                "health_status: healthy" => vec![Observation::Healthy],
                "health_status: unhealthy" => vec![Observation::Unhealthy],
                "die" => match look(&self.engine, &self.name).await? {
                    // Removed as soon as it was killed: the event is all there is to read its end from.
                    gone if gone.contains(&Observation::Destroyed) => vec![Observation::Exited(exit(&event))],
                    seen => seen,
                },
                "start" | "destroy" => look(&self.engine, &self.name).await?,
                _ => Vec::new(),
            };
        }
    }
}

async fn look(engine: &Arc<Engine>, name: &str) -> Result<Vec<Observation>, Failure> {
    match engine.inspect(name, false).await {
        Ok(container) => Ok(container.state.as_ref().map(observations).unwrap_or_default()),
        Err(Error::NoSuchContainer(_)) => Ok(vec![Observation::Destroyed]),
        Err(error) => Err(Failure::Temporary(error.to_string())),
    }
}

fn exit(event: &EventMessage) -> Exit {
    let attributes = event.actor.as_ref().and_then(|a| a.attributes.as_ref());
    let code = attributes.and_then(|a| a.get("exitCode")).and_then(|c| c.parse().ok()).unwrap_or_default();
    Exit { code, ..Exit::default() }
}

fn observations(state: &ContainerState) -> Vec<Observation> {
    use ContainerStateStatusEnum as Status;
    let health = state.health.as_ref().and_then(|h| h.status);
    match state.status {
        Some(Status::RUNNING | Status::PAUSED) => match health {
            Some(HealthStatusEnum::HEALTHY) => vec![Observation::Started, Observation::Healthy],
            Some(HealthStatusEnum::UNHEALTHY) => vec![Observation::Started, Observation::Unhealthy],
            _ => vec![Observation::Started],
        },
        Some(Status::EXITED | Status::DEAD) => vec![Observation::Exited(Exit {
            code: state.exit_code.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            error: state.error.clone().unwrap_or_default(),
        })],
        _ => Vec::new(),
    }
}

/// Whether it was made and has not run yet.
pub(super) fn never_started(container: &ContainerInspectResponse) -> bool {
    let status = container.state.as_ref().and_then(|s| s.status);
    matches!(status, None | Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY))
}

/// Whether being started is not enough to be running.
pub(super) fn has_health_check(container: &ContainerInspectResponse) -> bool {
    let test = container.config.as_ref().and_then(|c| c.healthcheck.as_ref()).and_then(|h| h.test.as_ref());
    test.and_then(|t| t.first()).is_some_and(|first| first != "NONE")
}

/// The host-mode ports as the engine bound them.
pub(super) fn host_ports(container: &ContainerInspectResponse) -> Vec<PortConfig> {
    let ports = container.network_settings.as_ref().and_then(|n| n.ports.as_ref());
    let mut bound: Vec<PortConfig> = Vec::new();
    for (target, bindings) in ports.into_iter().flatten() {
        let Some((port, protocol)) = target.split_once('/') else { continue };
        for binding in bindings.iter().flatten() {
            let port = PortConfig {
                name: String::new(),
                protocol: protocol.to_owned(),
                target_port: port.parse().unwrap_or_default(),
                published_port: binding.host_port.as_deref().and_then(|p| p.parse().ok()).unwrap_or_default(),
                publish_mode: PublishMode::Host,
            };
            // One entry for the IPv4 and the IPv6 address of the same binding.
            if !bound.contains(&port) {
                bound.push(port);
            }
        }
    }
    bound.sort_by_key(|p| (p.target_port, p.published_port));
    bound
}
