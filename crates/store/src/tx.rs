//! A transaction: a copy of a snapshot that is written to, and the list of what was written.

use std::sync::Arc;

use shoal_types::view::List;
use shoal_types::{
    Change, Cluster, Config, ConfigId, Node, NodeId, Object, ObjectKind, Payload, PayloadKind, Refusal, RefusalKind,
    RequestId, Secret, SecretId, Service, ServiceId, Task, TaskId, View,
};

use crate::Snapshot;
use crate::stamp::unborn;

/// The version of what a transaction has written, until it is applied. No client has ever seen it, so of two updates that
/// were decided on the same version, and meet in one transaction, the second finds that its version is not the newest.
const UNBORN: u64 = u64::MAX;

/// A transaction in progress. It reads its own writes. `meta` of what it wrote is that of before the write, but for the
/// version of everything except tasks: no client names the version of a task.
#[derive(Debug, Clone)]
pub struct Tx {
    state: Snapshot,
    changes: Vec<Change>,
}

/// A point that a transaction can go back to.
#[derive(Debug)]
pub struct Savepoint {
    state: Snapshot,
    changes: usize,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another service has that name, in some case.
    #[error("name conflicts with an existing object: service {0} already exists")]
    ServiceName(String),
    /// Another secret or config has that name, in some case.
    #[error("{0} {1} already exists")]
    PayloadName(&'static str, String),
}

// === impl Tx ===

impl Tx {
    /// A transaction on top of `base`.
    pub fn new(base: &Snapshot) -> Self {
        Self { state: base.clone(), changes: Vec::new() }
    }

    /// Makes one change. What has no effect is not recorded.
    ///
    /// # Errors
    /// A name that another service, secret or config has.
    pub fn change(&mut self, change: Change) -> Result<(), Conflict> {
        match &change {
            Change::Put(Object::Service(new)) => {
                if self.state.service_named(&new.spec.name).is_some_and(|other| other.id != new.id) {
                    return Err(Conflict::ServiceName(new.spec.name.clone()));
                }
                self.state.put_service(unborn(new, self.state.service(new.id), UNBORN));
            }
            Change::Put(Object::Cluster(new)) => {
                self.state.put_cluster(unborn(new, self.state.cluster(), UNBORN));
            }
            Change::Put(Object::Node(new)) => {
                self.state.put_node(unborn(new, self.state.node(new.id), UNBORN));
            }
            Change::Put(Object::Task(new)) => drop(self.state.put_task(new.clone())),
            Change::Put(Object::Secret(new)) => {
                self.check_name(new)?;
                self.state.secrets.put(unborn(new, self.state.secret(new.id), UNBORN));
            }
            Change::Put(Object::Config(new)) => {
                self.check_name(new)?;
                self.state.configs.put(unborn(new, self.state.config(new.id), UNBORN));
            }
            Change::Patch(patch) => {
                let Some(before) = self.state.task(patch.id) else { return Ok(()) };
                if !patch.changes(before) {
                    return Ok(());
                }
                let after = Arc::new(patch.apply(before));
                self.state.put_task(after);
            }
            Change::Remove(id) => {
                if !self.remove(*id) {
                    return Ok(());
                }
            }
            Change::Settle(settled) => {
                if !self.state.settled.put(settled) {
                    return Ok(());
                }
            }
        }
        self.changes.push(change);
        Ok(())
    }

    fn remove(&mut self, id: ObjectKind) -> bool {
        match id {
            ObjectKind::Cluster(id) => self.state.remove_cluster(id).is_some(),
            ObjectKind::Node(id) => self.state.remove_node(id).is_some(),
            ObjectKind::Service(id) => self.state.remove_service(id).is_some(),
            ObjectKind::Task(id) => self.state.remove_task(id).is_some(),
            ObjectKind::Secret(id) => self.state.secrets.remove(id).is_some(),
            ObjectKind::Config(id) => self.state.configs.remove(id).is_some(),
        }
    }

    fn check_name<K: PayloadKind>(&self, new: &Payload<K>) -> Result<(), Conflict> {
        match K::named(&self.state, &new.spec.name) {
            Some(other) if other.id != new.id => Err(Conflict::PayloadName(K::NAME, new.spec.name.clone())),
            _ => Ok(()),
        }
    }

    /// What came of a client's request, where it is one of the last.
    pub fn outcome_of(&self, request: RequestId) -> Option<&Arc<str>> {
        self.state.outcome_of(request)
    }

    /// Makes all of `changes`, or none.
    ///
    /// # Errors
    /// The first that cannot be made.
    pub fn extend(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), Conflict> {
        self.attempt(|tx| changes.into_iter().try_for_each(|change| tx.change(change)))
    }

    /// Runs one part of the transaction; where it fails, nothing of that part remains.
    ///
    /// # Errors
    /// That of `part`.
    pub fn attempt<T, E>(&mut self, part: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let before = self.savepoint();
        part(self).inspect_err(|_| self.rollback(before))
    }

    /// Remembers where the transaction stands. Constant time.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { state: self.state.clone(), changes: self.changes.len() }
    }

    /// Undoes everything since `savepoint`.
    pub fn rollback(&mut self, savepoint: Savepoint) {
        self.state = savepoint.state;
        self.changes.truncate(savepoint.changes);
    }

    /// What was changed so far, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What was changed, in order; for the log.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

// === impl Conflict ===

impl From<Conflict> for Refusal {
    fn from(conflict: Conflict) -> Self {
        Self::new(RefusalKind::AlreadyExists, conflict.to_string())
    }
}

impl View for Tx {
    fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.state.cluster()
    }
    fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.state.node(id)
    }
    fn nodes(&self) -> List<'_, Node> {
        self.state.nodes()
    }
    fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.state.service(id)
    }
    fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.state.service_named(name)
    }
    fn services(&self) -> List<'_, Service> {
        self.state.services()
    }
    fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.state.task(id)
    }
    fn tasks(&self) -> List<'_, Task> {
        self.state.tasks()
    }
    fn tasks_of(&self, service: ServiceId) -> List<'_, Task> {
        self.state.tasks_of(service)
    }
    fn tasks_on(&self, node: NodeId) -> List<'_, Task> {
        self.state.tasks_on(node)
    }
    fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.state.secret(id)
    }
    fn secret_named(&self, name: &str) -> Option<&Arc<Secret>> {
        self.state.secret_named(name)
    }
    fn secrets(&self) -> List<'_, Secret> {
        self.state.secrets()
    }
    fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        self.state.config(id)
    }
    fn config_named(&self, name: &str) -> Option<&Arc<Config>> {
        self.state.config_named(name)
    }
    fn configs(&self) -> List<'_, Config> {
        self.state.configs()
    }
}
