//! What runs where: kept up to date task by task, so that placing one never counts them all.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use shoal_types::id::{NodeKind, ServiceKind};
use shoal_types::{GenericResource, IdMap, Nanos, Node, NodeId, ServiceId, Timestamp, after};

use crate::demand::{Load, Port};
use crate::queue::Group;

/// Nanoseconds that a failure is remembered: 5 minutes.
const MEMORY: Nanos = 300 * 1_000_000_000;

/// Failures within [`MEMORY`] from which on a node is avoided.
const THRESHOLD: usize = 5;

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    all: IdMap<NodeKind, NodeInfo>,
    /// The same nodes, emptiest first.
    by_load: BTreeSet<(u32, NodeId)>,
    /// Where each service has tasks.
    by_service: IdMap<ServiceKind, BTreeSet<NodeId>>,
    failures: BTreeMap<Group, BTreeMap<NodeId, VecDeque<Timestamp>>>,
}

/// A node, and what the tasks on it take.
#[derive(Debug, Default)]
pub(crate) struct NodeInfo {
    /// Absent while there are tasks of a node that is not there.
    pub node: Option<Arc<Node>>,
    pub active: u32,
    services: IdMap<ServiceKind, u32>,
    pub nano_cpus: i64,
    pub memory: i64,
    pub ports: HashMap<Port, u32>,
    /// What tasks were given of its generic resources.
    pub generic: Vec<GenericResource>,
}

// === impl NodeInfo ===

impl NodeInfo {
    /// How many active tasks of `service` it has.
    pub(crate) fn of(&self, service: ServiceId) -> u32 {
        self.services.get(&service).copied().unwrap_or_default()
    }
}

// === impl Nodes ===

impl Nodes {
    pub(crate) fn set(&mut self, id: NodeId, node: Option<Arc<Node>>) {
        let info = self.all.entry(id).or_default();
        info.node = node;
        if info.node.is_none() && info.active == 0 {
            self.all.remove(&id);
            self.by_load.remove(&(0, id));
        } else {
            self.by_load.insert((info.active, id));
        }
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&NodeInfo> {
        self.all.get(&id)
    }

    /// The nodes that are there.
    pub(crate) fn known(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.all.iter().filter(|(_, info)| info.node.is_some()).map(|(id, info)| (*id, info))
    }

    /// The emptiest node after `last` in the order of load.
    pub(crate) fn next_by_load(&self, last: Option<(u32, NodeId)>) -> Option<(u32, NodeId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        match last {
            None => self.by_load.first().copied(),
            Some(last) => self.by_load.range((Excluded(last), Unbounded)).next().copied(),
        }
    }

    /// Where `service` has active tasks.
    pub(crate) fn with_tasks_of(&self, service: ServiceId) -> impl Iterator<Item = NodeId> + '_ {
        self.by_service.get(&service).into_iter().flatten().copied()
    }

    /// Counts a task on a node.
    pub(crate) fn add(&mut self, id: NodeId, load: &Load) {
        let info = self.all.entry(id).or_default();
        self.by_load.remove(&(info.active, id));
        info.active += 1;
        self.by_load.insert((info.active, id));
        info.nano_cpus += load.nano_cpus;
        info.memory += load.memory;
        *info.services.entry(load.service).or_default() += 1;
        for port in &load.ports {
            *info.ports.entry(*port).or_default() += 1;
        }
        info.generic.extend(load.generic.iter().cloned());
        self.by_service.entry(load.service).or_default().insert(id);
    }

    /// Takes back what [`Self::add`] counted.
    pub(crate) fn remove(&mut self, id: NodeId, load: &Load) {
        let Some(info) = self.all.get_mut(&id) else { return };
        self.by_load.remove(&(info.active, id));
        info.active -= 1;
        info.nano_cpus -= load.nano_cpus;
        info.memory -= load.memory;
        for port in &load.ports {
            less(&mut info.ports, *port);
        }
        for resource in &load.generic {
            if let Some(at) = info.generic.iter().position(|r| r == resource) {
                info.generic.swap_remove(at);
            }
        }
        less(&mut info.services, load.service);
        if info.of(load.service) == 0
            && let Some(nodes) = self.by_service.get_mut(&load.service)
        {
            nodes.remove(&id);
            if nodes.is_empty() {
                self.by_service.remove(&load.service);
            }
        }
        if info.node.is_none() && info.active == 0 {
            self.all.remove(&id);
        } else {
            self.by_load.insert((info.active, id));
        }
    }

    pub(crate) fn note_failure(&mut self, group: Group, node: NodeId, at: Timestamp) {
        let (service, version) = group;
        let old: Vec<_> = self.failures.range((service, 0)..(service, version)).map(|(group, _)| *group).collect();
        old.iter().for_each(|group| drop(self.failures.remove(group)));
        let times = self.failures.entry(group).or_default().entry(node).or_default();
        times.retain(|time| after(*time, MEMORY) > at);
        times.push_back(at);
    }

    pub(crate) fn forget_failures(&mut self, service: ServiceId) {
        self.failures.retain(|(id, _), _| *id != service);
    }

    /// The nodes where tasks of `group` fail so often that they are avoided, and how often they do.
    pub(crate) fn avoided(&self, group: Group, now: Timestamp) -> BTreeMap<NodeId, usize> {
        let recent = |times: &VecDeque<Timestamp>| times.iter().filter(|time| after(**time, MEMORY) > now).count();
        let failing = self.failures.get(&group).into_iter().flatten();
        failing.map(|(node, times)| (*node, recent(times))).filter(|(_, n)| *n >= THRESHOLD).collect()
    }
}

fn less<K: Hash + Eq, S: BuildHasher>(counts: &mut HashMap<K, u32, S>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
