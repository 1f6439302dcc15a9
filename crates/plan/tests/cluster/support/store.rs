//! Objects in maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_types::change::Both;
use shoal_types::object::RootCa;
use shoal_types::spec::ClusterSpec;
use shoal_types::view::List;
use shoal_types::{
    Change, Cluster, Config, ConfigId, Event, Id, IdSource, Meta, Node, NodeId, Object, ObjectKind, Secret, SecretId,
    Service, ServiceId, Task, TaskId, Timestamp, View,
};

/// Objects in maps.
#[derive(Default)]
pub struct Store {
    pub cluster: Option<Arc<Cluster>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    by_service: BTreeMap<ServiceId, BTreeMap<TaskId, Arc<Task>>>,
    by_node: BTreeMap<NodeId, BTreeMap<TaskId, Arc<Task>>>,
    version: u64,
}

impl Store {
    /// Applies `changes` as one transaction.
    pub fn apply(&mut self, changes: &[Change], now: Timestamp) -> Vec<Event> {
        self.version += 1;
        changes.iter().filter_map(|change| self.apply_one(change, now)).collect()
    }

    fn apply_one(&mut self, change: &Change, now: Timestamp) -> Option<Event> {
        let stamp = |before: Option<Meta>| Meta {
            version: self.version,
            wanted: self.version,
            created_at: before.map_or(now, |m| m.created_at),
            updated_at: now,
        };
        match change {
            Change::Put(Object::Task(task)) => {
                let meta = stamp(self.tasks.get(&task.id).map(|t| t.meta));
                Some(self.set_task(task.id, Some(Task { meta, ..(**task).clone() })))
            }
            Change::Patch(patch) => {
                let before = self.tasks.get(&patch.id)?.clone();
                let meta = stamp(Some(before.meta));
                Some(self.set_task(patch.id, Some(Task { meta, ..patch.apply(&before) })))
            }
            Change::Remove(ObjectKind::Task(id)) => self.tasks.contains_key(id).then(|| self.set_task(*id, None)),
            Change::Put(Object::Service(service)) => {
                let before = self.services.get(&service.id).cloned();
                let meta = stamp(before.as_ref().map(|s| s.meta));
                let after = Some(Arc::new(Service { meta, ..(**service).clone() }));
                self.services.extend(after.clone().map(|s| (s.id, s)));
                Some(Event::Service(Both { before, after }))
            }
            Change::Remove(ObjectKind::Service(id)) => {
                Some(Event::Service(Both { before: Some(self.services.remove(id)?), after: None }))
            }
            Change::Put(Object::Node(node)) => {
                let before = self.nodes.insert(node.id, node.clone());
                Some(Event::Node(Both { before, after: Some(node.clone()) }))
            }
            Change::Remove(ObjectKind::Node(id)) => {
                Some(Event::Node(Both { before: Some(self.nodes.remove(id)?), after: None }))
            }
            Change::Put(Object::Cluster(cluster)) => {
                let before = self.cluster.replace(cluster.clone());
                Some(Event::Cluster(Both { before, after: Some(cluster.clone()) }))
            }
            Change::Remove(ObjectKind::Cluster(_)) => None,
            Change::Put(Object::Secret(_) | Object::Config(_))
            | Change::Remove(ObjectKind::Secret(_) | ObjectKind::Config(_))
            | Change::Settle(_) => None,
        }
    }

    fn set_task(&mut self, id: TaskId, after: Option<Task>) -> Event {
        let before = self.tasks.remove(&id);
        if let Some(task) = &before {
            self.by_service.entry(task.service_id).or_default().remove(&id);
            task.node_id.map(|n| self.by_node.entry(n).or_default().remove(&id));
        }
        let after = after.map(Arc::new);
        if let Some(task) = &after {
            self.tasks.insert(id, task.clone());
            self.by_service.entry(task.service_id).or_default().insert(id, task.clone());
            task.node_id.map(|n| self.by_node.entry(n).or_default().insert(id, task.clone()));
        }
        Event::Task(Both { before, after })
    }
}

impl View for Store {
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
        self.services.values().find(|s| s.spec.name.eq_ignore_ascii_case(name))
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
        Box::new(self.by_service.get(&service).into_iter().flat_map(BTreeMap::values))
    }
    fn tasks_on(&self, node: NodeId) -> List<'_, Task> {
        Box::new(self.by_node.get(&node).into_iter().flat_map(BTreeMap::values))
    }
    fn secret(&self, _: SecretId) -> Option<&Arc<Secret>> {
        None
    }
    fn secret_named(&self, _: &str) -> Option<&Arc<Secret>> {
        None
    }
    fn secrets(&self) -> List<'_, Secret> {
        Box::new(std::iter::empty())
    }
    fn config(&self, _: ConfigId) -> Option<&Arc<Config>> {
        None
    }
    fn config_named(&self, _: &str) -> Option<&Arc<Config>> {
        None
    }
    fn configs(&self) -> List<'_, Config> {
        Box::new(std::iter::empty())
    }
}

/// A cluster with the settings of a new one.
pub fn cluster(ids: &mut dyn IdSource) -> Cluster {
    let root_ca = RootCa {
        cert_pem: String::new(),
        key_pem: String::new(),
        worker_token: String::new(),
        manager_token: String::new(),
    };
    Cluster {
        id: Id::new(ids),
        meta: Meta::default(),
        spec: ClusterSpec::initial(),
        root_ca,
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 0,
        blacklist: Default::default(),
        unlock_keys: None,
        root_rotation: None,
    }
}
