//! One state of the store: persistent maps, so that a copy shares everything with its original.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::view::List;
use shoal_types::{
    Cluster, ClusterId, Config, ConfigId, Node, NodeId, RequestId, Secret, SecretId, Service, ServiceId, Task, TaskId,
    View,
};

use crate::payloads::Payloads;
use crate::settled::Outcomes;

/// One consistent state of the cluster. Cloning it takes constant time and memory.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    index: u64,
    cluster: Option<Arc<Cluster>>,
    nodes: OrdMap<NodeId, Arc<Node>>,
    services: OrdMap<ServiceId, Arc<Service>>,
    /// Lower-cased name to service.
    names: OrdMap<String, ServiceId>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    by_service: OrdMap<ServiceId, OrdSet<TaskId>>,
    by_node: OrdMap<NodeId, OrdSet<TaskId>>,
    pub(crate) secrets: Payloads<SecretKind>,
    pub(crate) configs: Payloads<ConfigKind>,
    pub(crate) settled: Outcomes,
}

/// What [`Snapshot::check`] found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// An index lacks an object, or names one that is not there.
    #[error("the index of {0} does not agree with its table")]
    Index(&'static str),
    /// An object is newer than the store.
    #[error("{0} carries a version above that of the store")]
    Version(String),
}

// === impl Snapshot ===

impl Snapshot {
    /// The index of the last write in it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many tasks there are.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// How many tasks a service has, whatever their state.
    pub fn task_count_of(&self, service: ServiceId) -> usize {
        self.by_service.get(&service).map_or(0, OrdSet::len)
    }

    /// What came of a client's request, where it is one of the last.
    pub fn outcome_of(&self, request: RequestId) -> Option<&Arc<str>> {
        self.settled.get(request)
    }

    pub(crate) fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    pub(crate) fn put_cluster(&mut self, cluster: Arc<Cluster>) -> Option<Arc<Cluster>> {
        self.cluster.replace(cluster)
    }

    pub(crate) fn remove_cluster(&mut self, id: ClusterId) -> Option<Arc<Cluster>> {
        self.cluster.take_if(|c| c.id == id)
    }

    pub(crate) fn put_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        self.nodes.insert(node.id, node)
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.remove(&id)
    }

    pub(crate) fn put_service(&mut self, service: Arc<Service>) -> Option<Arc<Service>> {
        let name = service.spec.name.to_lowercase();
        let before = self.services.insert(service.id, service.clone());
        if let Some(before) = &before
            && before.spec.name.to_lowercase() != name
        {
            self.forget_name(before);
        }
        self.names.insert(name, service.id);
        before
    }

    pub(crate) fn remove_service(&mut self, id: ServiceId) -> Option<Arc<Service>> {
        let service = self.services.remove(&id)?;
        self.forget_name(&service);
        Some(service)
    }

    fn forget_name(&mut self, service: &Service) {
        let name = service.spec.name.to_lowercase();
        if self.names.get(&name) == Some(&service.id) {
            self.names.remove(&name);
        }
    }

    pub(crate) fn put_task(&mut self, task: Arc<Task>) -> Option<Arc<Task>> {
        let (id, service, node) = (task.id, task.service_id, task.node_id);
        let before = self.tasks.insert(id, task);
        let was = before.as_ref().map(|t| (t.service_id, t.node_id));
        // most writes change neither, so they touch one table
        if was.is_none_or(|(old, _)| old != service) {
            if let Some((old, _)) = was {
                drop_from(&mut self.by_service, old, id);
            }
            self.by_service.entry(service).or_default().insert(id);
        }
        let was = was.and_then(|(_, node)| node);
        if was != node {
            if let Some(old) = was {
                drop_from(&mut self.by_node, old, id);
            }
            if let Some(node) = node {
                self.by_node.entry(node).or_default().insert(id);
            }
        }
        before
    }

    pub(crate) fn remove_task(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let task = self.tasks.remove(&id)?;
        drop_from(&mut self.by_service, task.service_id, id);
        if let Some(node) = task.node_id {
            drop_from(&mut self.by_node, node, id);
        }
        Some(task)
    }

    /// Walks everything and compares the indexes with the tables. For tests and the simulator.
    ///
    /// # Errors
    /// The first disagreement.
    pub fn check(&self) -> Result<(), Corruption> {
        let tasks = || self.tasks.values();
        if !tasks().all(|t| holds(&self.by_service, t.service_id, t)) || total(&self.by_service) != self.tasks.len() {
            return Err(Corruption::Index("tasks by service"));
        }
        let placed = tasks().filter(|t| t.node_id.is_some()).count();
        if !tasks().all(|t| t.node_id.is_none_or(|node| holds(&self.by_node, node, t)))
            || total(&self.by_node) != placed
        {
            return Err(Corruption::Index("tasks by node"));
        }
        let named = |s: &Service| self.names.get(&s.spec.name.to_lowercase()) == Some(&s.id);
        if self.names.len() != self.services.len() || !self.services.values().all(|s| named(s)) {
            return Err(Corruption::Index("services by name"));
        }
        if !self.secrets.is_sound() || !self.configs.is_sound() {
            return Err(Corruption::Index("secrets or configs by name"));
        }
        if !self.settled.is_sound() {
            return Err(Corruption::Index("requests by age"));
        }
        match tasks().find(|t| t.meta.version > self.index) {
            Some(task) => Err(Corruption::Version(format!("task {}", task.id))),
            None => Ok(()),
        }
    }
}

fn drop_from<K: Ord + Copy>(index: &mut OrdMap<K, OrdSet<TaskId>>, key: K, id: TaskId) {
    if let Some(tasks) = index.get_mut(&key) {
        tasks.remove(&id);
        if tasks.is_empty() {
            index.remove(&key);
        }
    }
}

fn holds<K: Ord>(index: &OrdMap<K, OrdSet<TaskId>>, key: K, task: &Task) -> bool {
    index.get(&key).is_some_and(|tasks| tasks.contains(&task.id))
}

fn total<K: Ord>(index: &OrdMap<K, OrdSet<TaskId>>) -> usize {
    index.values().map(OrdSet::len).sum()
}

impl View for Snapshot {
    fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }
    fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }
    fn nodes(&self) -> List<'_, Node> {
        Box::new(self.nodes.values())
    }
    fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }
    fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(self.names.get(&name.to_lowercase())?)
    }
    fn services(&self) -> List<'_, Service> {
        Box::new(self.services.values())
    }
    fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }
    fn tasks(&self) -> List<'_, Task> {
        Box::new(self.tasks.values())
    }
    fn tasks_of(&self, service: ServiceId) -> List<'_, Task> {
        Box::new(self.by_service.get(&service).into_iter().flatten().filter_map(|id| self.tasks.get(id)))
    }
    fn tasks_on(&self, node: NodeId) -> List<'_, Task> {
        Box::new(self.by_node.get(&node).into_iter().flatten().filter_map(|id| self.tasks.get(id)))
    }
    fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(id)
    }
    fn secret_named(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.named(name)
    }
    fn secrets(&self) -> List<'_, Secret> {
        self.secrets.all()
    }
    fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(id)
    }
    fn config_named(&self, name: &str) -> Option<&Arc<Config>> {
        self.configs.named(name)
    }
    fn configs(&self) -> List<'_, Config> {
        self.configs.all()
    }
}
