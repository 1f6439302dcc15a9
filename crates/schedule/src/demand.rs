//! What a task asks of a node.

use shoal_types::constraint::{self, Constraint};
use shoal_types::object::Platform;
use shoal_types::spec::{MountType, Placement, PublishMode};
use shoal_types::{GenericResource, ServiceId, Task, generic};

use crate::index::NodeInfo;
use crate::queue::Group;

/// What a task takes away from its node.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub service: ServiceId,
    pub nano_cpus: i64,
    pub memory: i64,
    pub ports: Vec<Port>,
    /// What it was given, not what it asked for.
    pub generic: Vec<GenericResource>,
}

/// A port of the node itself.
pub(crate) type Port = (Protocol, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// What the tasks of a group ask of a node; they are all alike.
#[derive(Debug)]
pub(crate) struct Demand {
    pub group: Group,
    pub load: Load,
    pub generic: Vec<GenericResource>,
    /// Type and name of drivers that the node must have.
    pub drivers: Vec<(&'static str, String)>,
    pub log_driver: Option<String>,
    /// `None`: malformed, so that no node satisfies them.
    pub constraints: Option<Vec<Constraint>>,
    pub platforms: Vec<Platform>,
    pub max_replicas: u64,
    pub preferences: Vec<LabelKey>,
}

/// A label that tasks are spread over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelKey {
    Node(String),
    Engine(String),
}

// === impl Load ===

impl Load {
    pub(crate) fn of(task: &Task) -> Self {
        let reserved = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
        let ports = task.endpoint.iter().flat_map(|e| &e.ports);
        let ports = ports.filter(|p| p.publish_mode == PublishMode::Host && p.published_port != 0);
        Self {
            service: task.service_id,
            nano_cpus: reserved.map_or(0, |r| r.nano_cpus),
            memory: reserved.map_or(0, |r| r.memory_bytes),
            ports: ports.map(|p| (Protocol::of(&p.protocol), p.published_port)).collect(),
            generic: task.assigned_generic.clone(),
        }
    }
}

impl Protocol {
    fn of(name: &str) -> Self {
        match name {
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

// === impl Demand ===

impl Demand {
    pub(crate) fn of(task: &Task) -> Self {
        let none = Placement::default();
        let placement = task.spec.placement.as_ref().unwrap_or(&none);
        let reserved = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
        let mounts = task.spec.container_spec.iter().flat_map(|c| &c.mounts);
        let volumes = mounts.filter(|m| m.r#type == MountType::Volume).filter_map(|m| m.volume_options.as_ref());
        let drivers = volumes.filter_map(|v| v.driver_config.as_ref()).map(|d| &d.name);
        let log = task.spec.log_driver.as_ref().map(|l| l.name.clone());
        Self {
            group: (task.service_id, task.spec_version),
            load: Load::of(task),
            generic: reserved.map_or_else(Vec::new, |r| r.generic_resources.clone()),
            drivers: drivers.filter(|n| !["", "local"].contains(&&***n)).map(|n| ("Volume", n.clone())).collect(),
            log_driver: log.filter(|name| !["", "none"].contains(&&**name)),
            constraints: constraint::parse(&placement.constraints).ok(),
            platforms: placement.platforms.iter().map(normal).collect(),
            max_replicas: placement.max_replicas,
            preferences: placement.preferences.iter().filter_map(|p| LabelKey::of(p.spread.as_ref()?)).collect(),
        }
    }
}

impl Demand {
    /// What a task takes of a node; `None` where the node has not enough of some generic resource.
    pub(crate) fn of_node(&self, info: &NodeInfo) -> Option<Load> {
        Some(Load { generic: self.claim(info)?, ..self.load.clone() })
    }

    /// What a task is given of a node's generic resources.
    pub(crate) fn claim(&self, info: &NodeInfo) -> Option<Vec<GenericResource>> {
        if self.generic.is_empty() {
            return Some(Vec::new());
        }
        let description = info.node.as_ref().and_then(|n| n.description.as_ref());
        let has = description.map_or(&[][..], |d| &d.resources.generic_resources);
        generic::claim(has, &info.generic, &self.generic)
    }
}

impl LabelKey {
    fn of(spread: &shoal_types::spec::Spread) -> Option<Self> {
        let text = &spread.spread_descriptor;
        let after = |prefix: &str| {
            let head = text.get(..prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then(|| text[prefix.len()..].to_owned()).filter(|key| !key.is_empty())
        };
        after("node.labels.").map(Self::Node).or_else(|| after("engine.labels.").map(Self::Engine))
    }
}

/// The platform with one name for each architecture.
pub(crate) fn normal(platform: &Platform) -> Platform {
    let architecture = match platform.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { architecture: architecture.into(), os: platform.os.clone() }
}
