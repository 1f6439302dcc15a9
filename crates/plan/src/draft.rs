//! A transaction in the making: the changes so far, and the objects as they will be after them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shoal_types::object::{TaskStatus, UpdateStatus};
use shoal_types::{
    Change, IdSource, Object, ObjectKind, Service, ServiceId, Task, TaskId, TaskPatch, TaskState, Timestamp, View,
};

use crate::timers::Timers;

/// Changes in one transaction: about as many new tasks as an entry of the log holds. Fewer would make large services slow, for
/// each transaction waits for the log.
const FULL: usize = 3_000;

/// A transaction in the making.
pub(crate) struct Draft<'a> {
    /// The objects before the transaction.
    pub(crate) view: &'a dyn View,
    /// The time of the transaction.
    pub(crate) now: Timestamp,
    /// Where later looks are noted.
    pub(crate) timers: &'a mut Timers,
    /// Where identifiers come from.
    pub(crate) ids: &'a mut dyn IdSource,
    changes: Vec<Change>,
    tasks: HashMap<TaskId, Option<Arc<Task>>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(view: &'a dyn View, now: Timestamp, timers: &'a mut Timers, ids: &'a mut dyn IdSource) -> Self {
        let (changes, tasks, services) = Default::default();
        Self { view, now, timers, ids, changes, tasks, services }
    }

    /// The task as it will be.
    pub(crate) fn task(&self, id: TaskId) -> Option<Arc<Task>> {
        match self.tasks.get(&id) {
            Some(task) => task.clone(),
            None => self.view.task(id).cloned(),
        }
    }

    /// The service as it will be.
    pub(crate) fn service(&self, id: ServiceId) -> Option<Arc<Service>> {
        self.services.get(&id).or_else(|| self.view.service(id)).cloned()
    }

    /// Wants `task` in `state`, unless it is wanted further already.
    pub(crate) fn desire(&mut self, task: &Task, state: TaskState) {
        if task.desired_state < state {
            self.patch(task, TaskPatch { desired_state: Some(state), ..TaskPatch::of(task.id) });
        }
    }

    /// Notes what became of `task`, keeping what is known of its container.
    pub(crate) fn observe(&mut self, task: &Task, state: TaskState, message: &str, err: &str) {
        let status = TaskStatus {
            timestamp: self.now,
            state,
            message: message.into(),
            err: err.into(),
            applied_at: Some(self.now),
            ..task.status.clone()
        };
        self.patch(task, TaskPatch { status: Some(status), ..TaskPatch::of(task.id) });
    }

    /// Makes `task`.
    pub(crate) fn create(&mut self, task: Task) {
        let task = Arc::new(task);
        self.tasks.insert(task.id, Some(task.clone()));
        self.changes.push(Change::Put(Object::Task(task)));
    }

    /// Forgets the task.
    pub(crate) fn remove(&mut self, id: TaskId) {
        self.tasks.insert(id, None);
        self.changes.push(Change::Remove(ObjectKind::Task(id)));
    }

    /// Replaces the service.
    pub(crate) fn put_service(&mut self, service: Service) {
        self.services.insert(service.id, Arc::new(service));
    }

    /// Writes how far the update of a service is.
    pub(crate) fn set_update_status(&mut self, service: &Service, status: UpdateStatus) {
        self.put_service(Service { update_status: Some(status), ..service.clone() });
    }

    /// How many changes there are to tasks; grows with each.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether the rest should go into another transaction.
    pub(crate) fn is_full(&self) -> bool {
        self.changes.len() + self.services.len() >= FULL
    }

    /// The changes, in the order to apply them.
    pub(crate) fn finish(self) -> Vec<Change> {
        let services = self.services.into_values().map(|s| Change::Put(Object::Service(s)));
        self.changes.into_iter().chain(services).collect()
    }

    fn patch(&mut self, task: &Task, patch: TaskPatch) {
        let current = self.task(task.id);
        let task = patch.apply(current.as_deref().unwrap_or(task));
        self.tasks.insert(task.id, Some(Arc::new(task)));
        self.changes.push(Change::Patch(patch));
    }
}
