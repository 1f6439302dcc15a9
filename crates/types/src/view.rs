//! Reading the store, for cores that must not know how it is kept.

use std::sync::Arc;

use crate::object::{Cluster, Node, Service, Task};
use crate::payload::{Config, Secret};
use crate::{ConfigId, NodeId, SecretId, ServiceId, TaskId};

/// A borrowed list of objects, in the order of their identifiers.
pub type List<'a, T> = Box<dyn Iterator<Item = &'a Arc<T>> + 'a>;

/// One consistent state of the cluster: a snapshot, or a transaction in progress.
pub trait View {
    /// The cluster, once it is initialised.
    fn cluster(&self) -> Option<&Arc<Cluster>>;
    /// One node.
    fn node(&self, id: NodeId) -> Option<&Arc<Node>>;
    /// All nodes.
    fn nodes(&self) -> List<'_, Node>;
    /// One service.
    fn service(&self, id: ServiceId) -> Option<&Arc<Service>>;
    /// The service of that name, in any case.
    fn service_named(&self, name: &str) -> Option<&Arc<Service>>;
    /// All services.
    fn services(&self) -> List<'_, Service>;
    /// One task.
    fn task(&self, id: TaskId) -> Option<&Arc<Task>>;
    /// All tasks.
    fn tasks(&self) -> List<'_, Task>;
    /// The tasks of a service.
    fn tasks_of(&self, service: ServiceId) -> List<'_, Task>;
    /// The tasks on a node.
    fn tasks_on(&self, node: NodeId) -> List<'_, Task>;
    /// One secret.
    fn secret(&self, id: SecretId) -> Option<&Arc<Secret>>;
    /// The secret of that name, in any case.
    fn secret_named(&self, name: &str) -> Option<&Arc<Secret>>;
    /// All secrets.
    fn secrets(&self) -> List<'_, Secret>;
    /// One config.
    fn config(&self, id: ConfigId) -> Option<&Arc<Config>>;
    /// The config of that name, in any case.
    fn config_named(&self, name: &str) -> Option<&Arc<Config>>;
    /// All configs.
    fn configs(&self) -> List<'_, Config>;
}
