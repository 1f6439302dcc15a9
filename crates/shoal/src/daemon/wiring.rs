//! The parts in their order: engine, node, API; and how they end.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use bollard_stubs::models::{
    EventActor, EventMessage, EventMessageScopeEnum, EventMessageTypeEnum, GenericResourcesInner,
    GenericResourcesInnerDiscreteResourceSpec, GenericResourcesInnerNamedResourceSpec,
};
use shoal_agent::{Agent, EngineExecutor};
use shoal_api::Api;
use shoal_engine::{Engine, EngineConfig};
use shoal_manager::control::{EventObject, SwarmEvent};
use shoal_node::Node;
use shoal_node::launch::{Launch, LaunchError, Launcher, LocalAgent};
use shoal_types::GenericResource;
use tokio::task::JoinHandle;

use super::flags::Settings;

/// Everything that runs.
pub struct Parts {
    engine: Arc<Engine>,
    node: Arc<Node>,
    events: JoinHandle<()>,
}

/// Starts the agent of this node on its engine.
struct AgentLauncher {
    engine: Arc<Engine>,
}

/// The agent, as the node knows it.
struct RunningAgent(Agent);

/// Why a part does not come up. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    #[error("cannot find this program's own file: {0}")]
    Exe(std::io::Error),
    #[error("cannot use {0}: {1}")]
    Root(PathBuf, std::io::Error),
    #[error(transparent)]
    Engine(#[from] shoal_engine::OpenError),
}

#[async_trait]
impl Launcher for AgentLauncher {
    async fn launch(&self, launch: Launch<'_>) -> Result<Box<dyn LocalAgent>, LaunchError> {
        let executor = EngineExecutor::new(self.engine.clone(), launch.node, launch.tls);
        Ok(Box::new(RunningAgent(Agent::start(launch.state_dir, launch.uplink, Arc::new(executor))?)))
    }
}

#[async_trait]
impl LocalAgent for RunningAgent {
    async fn stop(self: Box<Self>) {
        self.0.stop().await;
    }

    async fn leave(self: Box<Self>) {
        self.0.leave().await;
    }
}

impl Parts {
    /// Opens engine and node. What an earlier daemon left running goes on under this one.
    pub async fn open(settings: &Settings) -> Result<Self, WiringError> {
        let engine = Engine::open(config(settings)?).await?;
        let launcher = Arc::new(AgentLauncher { engine: engine.clone() });
        let node = Node::start(absolute(&settings.data_root)?.join("swarm"), launcher).await;
        let events = tokio::spawn(forward_events(engine.clone(), node.clone()));
        Ok(Self { engine, node, events })
    }

    /// What clients speak with.
    pub fn router(&self) -> Router {
        shoal_api::router(Api { engine: self.engine.clone(), node: self.node.clone() })
    }

    /// Lets go of everything that goes on without the daemon.
    pub async fn close(self) {
        self.events.abort();
        self.node.stop().await;
    }
}

fn config(settings: &Settings) -> Result<EngineConfig, WiringError> {
    let exe = std::env::current_exe().map_err(WiringError::Exe)?;
    let mut config = EngineConfig::new(absolute(&settings.data_root)?, absolute(&settings.exec_root)?, exe);
    config.labels.clone_from(&settings.labels);
    config.generic_resources = settings.generic_resources.iter().map(generic_resource).collect();
    config.registry_mirrors.clone_from(&settings.registry_mirrors);
    config.insecure_registries.clone_from(&settings.insecure_registries);
    config.cgroup_parent = shoal_runtime::cgroup::parent_of(&config.exec_root);
    Ok(config)
}

fn generic_resource(resource: &GenericResource) -> GenericResourcesInner {
    let (mut named_resource_spec, mut discrete_resource_spec) = (None, None);
    match resource.clone() {
        GenericResource::Named { kind, value } => {
            let spec = GenericResourcesInnerNamedResourceSpec { kind: Some(kind), value: Some(value) };
            named_resource_spec = Some(spec);
        }
        GenericResource::Discrete { kind, value } => {
            let spec = GenericResourcesInnerDiscreteResourceSpec { kind: Some(kind), value: Some(value) };
            discrete_resource_spec = Some(spec);
        }
    }
    GenericResourcesInner { named_resource_spec, discrete_resource_spec }
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, WiringError> {
    std::path::absolute(path).map_err(|e| WiringError::Root(path.to_owned(), e))
}

/// Events of the swarm, into the stream that clients read.
async fn forward_events(engine: Arc<Engine>, node: Arc<Node>) {
    let mut changes = node.changes();
    loop {
        let changed = changes.next();
        match node.control() {
            Ok(control) => {
                let mut events = control.events();
                let forward = async {
                    loop {
                        engine.publish_event(event(events.next().await));
                    }
                };
                tokio::select! {
                    () = forward => {}
                    more = changed => if !more { return },
                }
            }
            Err(_) => {
                if !changed.await {
                    return;
                }
            }
        }
    }
}

fn event(event: SwarmEvent) -> EventMessage {
    let typ = match event.object {
        EventObject::Node => EventMessageTypeEnum::NODE,
        EventObject::Service => EventMessageTypeEnum::SERVICE,
        EventObject::Secret => EventMessageTypeEnum::SECRET,
        EventObject::Config => EventMessageTypeEnum::CONFIG,
    };
    EventMessage {
        typ: Some(typ),
        action: Some(event.action.as_str().to_owned()),
        actor: Some(EventActor { id: Some(event.id), attributes: Some(event.attributes.into_iter().collect()) }),
        scope: Some(EventMessageScopeEnum::SWARM),
        time: Some(event.time.as_second()),
        time_nano: i64::try_from(event.time.as_nanosecond()).ok(),
    }
}
