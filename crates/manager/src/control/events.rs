//! Events of swarm scope, for `docker events` (swarm-semantics 13.6).

use std::collections::{BTreeMap, VecDeque};

use shoal_raft::{Feed, Update};
use shoal_types::change::Both;
use shoal_types::{Event, Node, Payload, Service, Timestamp};

use super::Control;

/// Something happened to an object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmEvent {
    /// The kind of object.
    pub object: EventObject,
    /// What happened.
    pub action: EventAction,
    /// The object's identifier.
    pub id: String,
    /// `name`, and what changed: `image.old`, `replicas.new` …
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

/// Kinds of objects that have events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventObject {
    /// A node.
    Node,
    /// A service.
    Service,
    /// A secret.
    Secret,
    /// A config.
    Config,
}

/// What can happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventAction {
    /// It is new.
    Create,
    /// It changed.
    Update,
    /// It is gone.
    Remove,
}

/// The events from some moment on.
#[derive(Debug)]
pub struct EventStream {
    feed: Feed,
    ready: VecDeque<SwarmEvent>,
}

impl EventObject {
    /// Docker's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

impl EventAction {
    /// Docker's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }
}

impl Control {
    /// The events from now on.
    pub fn events(&self) -> EventStream {
        EventStream { feed: self.raft.subscribe().1, ready: VecDeque::new() }
    }
}

impl EventStream {
    /// The next event. Safe to drop while waiting. A reader that is too slow misses some.
    pub async fn next(&mut self) -> SwarmEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            match self.feed.next().await {
                Update::Commit(commit) => self.ready.extend(commit.events.iter().filter_map(swarm_event)),
                Update::Resync(_) => tracing::warn!("a reader of events was too slow; some are lost"),
            }
        }
    }
}

fn swarm_event(event: &Event) -> Option<SwarmEvent> {
    match event {
        Event::Node(both) => {
            let node = both.latest();
            let mut attributes = BTreeMap::from([("name".to_owned(), node_name(node))]);
            node_changes(both, &mut attributes);
            let (action, time) = action(both, node.meta.created_at, node.meta.updated_at);
            Some(SwarmEvent { object: EventObject::Node, action, id: node.id.to_string(), attributes, time })
        }
        Event::Service(both) => {
            let service = both.latest();
            let mut attributes = BTreeMap::from([("name".to_owned(), service.spec.name.clone())]);
            service_changes(both, &mut attributes);
            let (action, time) = action(both, service.meta.created_at, service.meta.updated_at);
            Some(SwarmEvent { object: EventObject::Service, action, id: service.id.to_string(), attributes, time })
        }
        Event::Secret(both) => Some(payload_event(EventObject::Secret, both)),
        Event::Config(both) => Some(payload_event(EventObject::Config, both)),
        Event::Cluster(_) | Event::Task(_) => None,
    }
}

fn payload_event<K>(object: EventObject, both: &Both<Payload<K>>) -> SwarmEvent {
    let payload = both.latest();
    let attributes = BTreeMap::from([("name".to_owned(), payload.spec.name.clone())]);
    let (action, time) = action(both, payload.meta.created_at, payload.meta.updated_at);
    SwarmEvent { object, action, id: payload.id.to_string(), attributes, time }
}

fn action<T>(both: &Both<T>, created: Timestamp, updated: Timestamp) -> (EventAction, Timestamp) {
    match (&both.before, &both.after) {
        (None, _) => (EventAction::Create, created),
        (Some(_), Some(_)) => (EventAction::Update, updated),
        (Some(_), None) => (EventAction::Remove, shoal_ambient::now()),
    }
}

fn node_name(node: &Node) -> String {
    let hostname = || node.description.as_ref().map(|d| d.hostname.clone()).unwrap_or_default();
    if node.spec.name.is_empty() { hostname() } else { node.spec.name.clone() }
}

fn node_changes(both: &Both<Node>, attributes: &mut BTreeMap<String, String>) {
    let (Some(before), Some(after)) = (&both.before, &both.after) else { return };
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let pairs = [
        ("availability", lower(&before.spec.availability), lower(&after.spec.availability)),
        ("role", before.role.as_str().to_owned(), after.role.as_str().to_owned()),
        ("state", lower(&before.status.state), lower(&after.status.state)),
    ];
    for (name, old, new) in pairs {
        changed(name, old, new, attributes);
    }
}

fn service_changes(both: &Both<Service>, attributes: &mut BTreeMap<String, String>) {
    let (Some(before), Some(after)) = (&both.before, &both.after) else { return };
    let image = |s: &Service| s.spec.task_template.container_spec.as_ref().map(|c| c.image.clone()).unwrap_or_default();
    changed("image", image(before), image(after), attributes);
    let replicas = |s: &Service| s.spec.mode.replicas().to_string();
    changed("replicas", replicas(before), replicas(after), attributes);
    let state = |s: &Service| s.update_status.as_ref().and_then(|u| serde_json::to_value(u.state).ok());
    let text = |value: Option<serde_json::Value>| value.and_then(|v| v.as_str().map(str::to_owned));
    let (old, new) = (text(state(before)), text(state(after)));
    if old != new {
        attributes.extend(old.map(|old| ("updatestate.old".to_owned(), old)));
        attributes.extend(new.map(|new| ("updatestate.new".to_owned(), new)));
    }
}

fn changed(name: &str, old: String, new: String, attributes: &mut BTreeMap<String, String>) {
    if old != new {
        attributes.insert(format!("{name}.old"), old);
        attributes.insert(format!("{name}.new"), new);
    }
}
