//! Clients of the cluster: they ask any manager for anything at any time, and write down what they are told.

use std::sync::Arc;
use std::time::Duration;

use shoal_manager::control::{Filters, ServiceUpdate};
use shoal_raft::Snapshot;
use shoal_types::spec::{
    Availability, ContainerSpec, Empty, FailureAction, NodeRole, NodeSpec, Replicated, ResourceRequirements, Resources,
    RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};
use shoal_types::{Node, NodeId, Refusal, RefusalKind, Service, View};
use tokio::sync::watch;

use crate::containers::{FLAKY, MISSING, NANO_CPUS};
use crate::ledger::{Ledger, Outcome, Value};
use crate::process::{Directory, Door};
use crate::world::World;

/// The registers.
pub const REGISTERS: &[&str] = &["reg-a", "reg-b", "reg-c"];
/// The label that holds the value of a register.
const VALUE: &str = "value";

/// A client.
#[derive(Clone)]
pub struct Client {
    pub world: World,
    pub directory: Directory,
    pub ledger: Ledger,
    /// Milliseconds between its calls, at most.
    pub pace: u64,
}

/// What a register holds in `state`.
pub fn register_value(state: &Snapshot, name: &str) -> Option<Value> {
    state.service_named(name).and_then(|service| value(service))
}

fn value(service: &Service) -> Option<Value> {
    service.spec.labels.get(VALUE)?.parse().ok()
}

/// A register as it begins.
pub fn register(name: &str) -> ServiceSpec {
    let mut spec = service(name, replicated(0));
    spec.labels.insert(VALUE.to_owned(), "0".to_owned());
    spec
}

/// A service with nothing special about it.
pub fn service(name: &str, mode: ServiceMode) -> ServiceSpec {
    let container = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    ServiceSpec {
        name: name.into(),
        task_template: TaskSpec { container_spec: Some(container), ..TaskSpec::default() },
        mode,
        ..ServiceSpec::default()
    }
}

/// `count` equal tasks.
pub fn replicated(count: i64) -> ServiceMode {
    ServiceMode { replicated: Some(Replicated { replicas: Some(count) }), ..ServiceMode::default() }
}

/// Whether a service never comes to rest.
pub fn is_restless(service: &Service) -> bool {
    let container = service.spec.task_template.container_spec.as_ref();
    container.is_some_and(|c| c.image == MISSING || c.env.iter().any(|e| e == FLAKY))
}

impl Client {
    /// Goes on until told to stop.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::time::sleep(self.world.millis(1..self.pace)).await;
            let Some(door) = self.world.pick(&self.directory.doors()) else { continue };
            match self.world.draw(0..100) {
                0..40 => self.write(&door).await,
                40..65 => self.read(&door).await,
                65..75 => self.create(&door).await,
                75..90 => self.change(&door).await,
                90..96 => self.remove(&door).await,
                _ => self.turn_node(&door).await,
            }
        }
    }

    fn draw_register(&self) -> &'static str {
        self.world.pick(REGISTERS).expect("there are some")
    }

    async fn read(&self, door: &Door) {
        let name = self.draw_register();
        let number = self.ledger.begin(name, 0, None);
        let control = door.control.clone();
        let read = door.process.run(async move {
            let is_fresh = control.catch_up().await;
            (is_fresh, control.get_service(name))
        });
        let Some((is_fresh, Ok(service))) = read.await else { return };
        let base = value(&service).unwrap_or(Value::MAX);
        self.world.mark((name, base, is_fresh));
        self.ledger.end(name, number, |o| {
            o.base = base;
            o.outcome = Outcome::Done;
            o.is_stale = !is_fresh;
        });
    }

    async fn write(&self, door: &Door) {
        let name = self.draw_register();
        let control = door.control.clone();
        let read = door.process.run(async move {
            control.catch_up().await;
            control.get_service(name)
        });
        let Some(Ok(service)) = read.await else { return };
        let Some(base) = value(&service) else { return };
        let new = self.world.draw(1..u64::MAX);
        let number = self.ledger.begin(name, base, Some(new));
        let mut spec = service.spec.as_ref().clone();
        spec.labels.insert(VALUE.to_owned(), new.to_string());
        let answer = self.update(door, name, spec, service.meta.version).await;
        let outcome = outcome(answer.as_ref());
        self.world.note(format_args!(
            "client: m{} {name} {base} > {new} (at {}): {outcome:?} {}",
            door.process.place(),
            service.meta.version,
            text(answer.as_ref())
        ));
        self.ledger.end(name, number, |o| o.outcome = outcome);
    }

    async fn update(&self, door: &Door, name: &str, spec: ServiceSpec, version: u64) -> Option<Result<(), Refusal>> {
        let (control, name) = (door.control.clone(), name.to_owned());
        let update = ServiceUpdate { version, ..ServiceUpdate::default() };
        door.process.run(async move { control.update_service(&name, spec, update).await }).await
    }

    async fn create(&self, door: &Door) {
        let name = format!("svc-{}", self.ledger.tick());
        let spec = self.draw_service(&name);
        self.ledger.creating(&name);
        let control = door.control.clone();
        let answer = door.process.run(async move { control.create_service(spec, None).await.map(drop) }).await;
        self.world.note(format_args!("client: m{} create {name}: {}", door.process.place(), text(answer.as_ref())));
        if matches!(answer, Some(Ok(()))) {
            self.ledger.created(&name);
        }
    }

    async fn remove(&self, door: &Door) {
        let Some(service) = self.draw_known(door) else { return };
        self.remove_one(door, &service.spec.name).await;
    }

    /// Removes a service; whether that was answered.
    pub async fn remove_one(&self, door: &Door, name: &str) -> bool {
        self.ledger.removing(name);
        let (control, asked) = (door.control.clone(), name.to_owned());
        let answer = door.process.run(async move { control.remove_service(&asked).await }).await;
        self.world.note(format_args!("client: m{} remove {name}: {}", door.process.place(), text(answer.as_ref())));
        let is_gone = matches!(answer, Some(Ok(())));
        if is_gone {
            self.ledger.removed(name);
        }
        is_gone
    }

    /// Scales a service, or changes what its tasks are.
    async fn change(&self, door: &Door) {
        let Some(service) = self.draw_known(door) else { return };
        let mut spec = service.spec.as_ref().clone();
        match &mut spec.mode.replicated {
            Some(mode) if self.world.chance(0.5) => mode.replicas = Some(self.world.draw(0..7) as i64),
            _ => spec.task_template.force_update += 1,
        }
        let answer = self.update(door, &spec.name.clone(), spec, service.meta.version).await;
        let name = &service.spec.name;
        self.world.note(format_args!("client: m{} change {name}: {}", door.process.place(), text(answer.as_ref())));
    }

    async fn turn_node(&self, door: &Door) {
        let control = door.control.clone();
        let Ok(nodes) = control.list_nodes(&Filters::default()) else { return };
        let Some(node) = self.world.pick(&nodes) else { return };
        let active = [Availability::Active, Availability::Active, Availability::Drain, Availability::Pause];
        let availability = self.world.pick(&active).expect("there are some");
        self.turn(door, &node, availability).await;
    }

    /// Sets a node's availability; whether that was answered.
    pub async fn turn(&self, door: &Door, node: &Node, availability: Availability) -> bool {
        self.update_node(door, node, NodeSpec { availability, ..node.spec.clone() }).await
    }

    /// Makes a worker a manager, or the other way round, but for `anchor`: by that one all find the others again.
    pub async fn shift(self, anchor: NodeId) {
        let Some(door) = self.world.pick(&self.directory.doors()) else { return };
        let Ok(nodes) = door.control.list_nodes(&Filters::default()) else { return };
        let others: Vec<_> = nodes.into_iter().filter(|n| n.id != anchor).collect();
        let Some(node) = self.world.pick(&others) else { return };
        let role = if node.spec.role == NodeRole::Manager { NodeRole::Worker } else { NodeRole::Manager };
        self.update_node(&door, &node, NodeSpec { role, ..node.spec.clone() }).await;
    }

    /// Removes a node that does not come back; whether that was answered.
    pub async fn expel(&self, door: &Door, node: &Node) -> bool {
        if node.spec.role == NodeRole::Manager {
            self.update_node(door, node, NodeSpec { role: NodeRole::Worker, ..node.spec.clone() }).await;
            return false;
        }
        let (control, id) = (door.control.clone(), node.id.to_string());
        let answer = door.process.run(async move { control.remove_node(&id, true).await }).await;
        let place = door.process.place();
        self.world.note(format_args!("client: m{place} remove node {}: {}", node.id, text(answer.as_ref())));
        matches!(answer, Some(Ok(())))
    }

    async fn update_node(&self, door: &Door, node: &Node, spec: NodeSpec) -> bool {
        let what = format!("{} is to be {:?} {:?}", node.id, spec.availability, spec.role);
        let (control, id, version) = (door.control.clone(), node.id.to_string(), node.meta.version);
        let answer = door.process.run(async move { control.update_node(&id, version, spec).await }).await;
        self.world.note(format_args!("client: m{} {what}: {}", door.process.place(), text(answer.as_ref())));
        matches!(answer, Some(Ok(())))
    }

    fn draw_known(&self, door: &Door) -> Option<Arc<Service>> {
        let state = door.control.snapshot();
        let services: Vec<_> = state.services().filter(|s| s.spec.name.starts_with("svc-")).cloned().collect();
        self.world.pick(&services)
    }

    fn draw_service(&self, name: &str) -> ServiceSpec {
        let world = &self.world;
        let global = ServiceMode { global: Some(Empty {}), ..ServiceMode::default() };
        let mode = if world.chance(0.2) { global } else { replicated(world.draw(1..6) as i64) };
        let mut spec = service(name, mode);
        if let Some(container) = &mut spec.task_template.container_spec {
            if world.chance(0.05) {
                container.image = MISSING.into();
            }
            if world.chance(0.15) {
                container.env = vec![FLAKY.into()];
            }
        }
        let delay = Some(world.draw(0..5_000) as i64 * 1_000_000);
        spec.task_template.restart_policy = Some(RestartPolicy { delay, ..RestartPolicy::default() });
        if world.chance(0.2) {
            let nano_cpus = NANO_CPUS / 4 * world.draw(1..4) as i64;
            let reservations = Some(Resources { nano_cpus, ..Resources::default() });
            spec.task_template.resources = Some(ResourceRequirements { reservations, ..Default::default() });
        }
        let order = if world.chance(0.4) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
        let action = [FailureAction::Continue, FailureAction::Pause, FailureAction::Rollback];
        spec.update_config = Some(UpdateConfig {
            parallelism: world.draw(0..3),
            delay: world.draw(0..1_000) as i64 * 1_000_000,
            monitor: Some(world.draw(100..3_000) as i64 * 1_000_000),
            order,
            failure_action: world.pick(&action).unwrap_or_default(),
            ..UpdateConfig::default()
        });
        spec
    }
}

/// Calls again until it works, at most for a while.
pub async fn insist<F: Future<Output = bool>>(mut call: impl FnMut() -> F) -> bool {
    for _ in 0..60 {
        if call().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    false
}

fn outcome(answer: Option<&Result<(), Refusal>>) -> Outcome {
    match answer {
        Some(Ok(())) => Outcome::Done,
        Some(Err(refusal)) if is_definite(refusal) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

/// Whether a refusal says that nothing was written.
fn is_definite(refusal: &Refusal) -> bool {
    matches!(refusal.kind, RefusalKind::NotFound)
        || refusal.message.contains("out of sequence")
        || refusal.message.contains("does not have a leader")
}

fn text(answer: Option<&Result<(), Refusal>>) -> String {
    match answer {
        Some(Ok(())) => "done".to_owned(),
        Some(Err(refusal)) => refusal.message.clone(),
        None => "the manager died".to_owned(),
    }
}
