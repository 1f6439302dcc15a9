//! The replicated object store: tables, indexes, transactions, events, and snapshots that cost nothing to take.
//!
//! Owns how objects are kept and found, what a list of changes does to them, and their form in a raft snapshot.
//! Leaves to others: how changes are agreed on (`raft`), who decides them (`plan`, `schedule`, `manager`).
//! Pure: applying the same changes with the same index and time gives the same store everywhere.

pub mod packed;
mod payloads;
mod pool;
pub mod resolve;
mod rows;
mod settled;
mod snapshot;
mod stamp;
mod tx;

use std::sync::Arc;

use shoal_types::change::Both;
use shoal_types::{Change, Event, Object, ObjectKind, Task, TaskPatch, Timestamp, View};

pub use rows::{DecodeError, Decoder};
pub use snapshot::{Corruption, Snapshot};
pub use tx::{Conflict, Savepoint, Tx};

use pool::Pool;
use stamp::{applied, of_task};

/// Up to this many tasks a debug build checks the whole store after each write.
const CHECKED: usize = 200;

/// The store of one member of the cluster.
#[derive(Debug, Default)]
pub struct Store {
    state: Snapshot,
    pool: Pool,
}

// === impl Store ===

impl Store {
    /// A store with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state as it is now: constant time, and unmoved by later writes.
    pub fn snapshot(&self) -> Snapshot {
        self.state.clone()
    }

    /// The index of the last write applied; 0 when there was none.
    pub fn index(&self) -> u64 {
        self.state.index()
    }

    /// Applies one write: all of `changes`, stamped with its position in the log and the leader's `time`.
    ///
    /// A change that has no effect (a patch of a task that is gone or already there, a removal of what is gone)
    /// leaves version and times alone and makes no event.
    pub fn apply(&mut self, index: u64, time: Timestamp, changes: &[Change]) -> Vec<Event> {
        debug_assert!(index >= self.state.index(), "writes are applied in the order of the log");
        self.state.set_index(index);
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put(object) => events.push(self.put(object, index, time)),
                Change::Patch(patch) => events.extend(self.patch(patch, index, time)),
                Change::Remove(id) => events.extend(self.remove(*id)),
                Change::Settle(settled) => {
                    self.state.settled.put(settled);
                }
            }
        }
        debug_assert!(self.state.task_count() > CHECKED || self.state.check() == Ok(()), "the store is corrupt");
        events
    }

    fn put(&mut self, object: &Object, index: u64, time: Timestamp) -> Event {
        match object {
            Object::Cluster(new) => {
                let after = applied(new, self.state.cluster(), index, time);
                Event::Cluster(Both { before: self.state.put_cluster(after.clone()), after: Some(after) })
            }
            Object::Node(new) => {
                let after = applied(new, self.state.node(new.id), index, time);
                Event::Node(Both { before: self.state.put_node(after.clone()), after: Some(after) })
            }
            Object::Service(new) => {
                let after = applied(new, self.state.service(new.id), index, time);
                Event::Service(Both { before: self.state.put_service(after.clone()), after: Some(after) })
            }
            Object::Task(new) => {
                let mut new = (**new).clone();
                new.meta = of_task(self.state.task(new.id).map(|t| t.meta), index, time);
                self.pool.share(&mut new);
                Event::Task(self.put_task(new))
            }
            Object::Secret(new) => {
                let after = applied(new, self.state.secret(new.id), index, time);
                Event::Secret(Both { before: self.state.secrets.put(after.clone()), after: Some(after) })
            }
            Object::Config(new) => {
                let after = applied(new, self.state.config(new.id), index, time);
                Event::Config(Both { before: self.state.configs.put(after.clone()), after: Some(after) })
            }
        }
    }

    fn patch(&mut self, patch: &TaskPatch, index: u64, time: Timestamp) -> Option<Event> {
        let before = self.state.task(patch.id)?;
        if !patch.changes(before) {
            return None;
        }
        let mut after = patch.apply(before);
        after.meta = of_task(Some(before.meta), index, time);
        Some(Event::Task(self.put_task(after)))
    }

    fn put_task(&mut self, task: Task) -> Both<Task> {
        let after = Arc::new(task);
        Both { before: self.state.put_task(after.clone()), after: Some(after) }
    }

    fn remove(&mut self, id: ObjectKind) -> Option<Event> {
        fn gone<T>(before: Arc<T>) -> Both<T> {
            Both { before: Some(before), after: None }
        }
        match id {
            ObjectKind::Cluster(id) => self.state.remove_cluster(id).map(|c| Event::Cluster(gone(c))),
            ObjectKind::Node(id) => self.state.remove_node(id).map(|n| Event::Node(gone(n))),
            ObjectKind::Service(id) => self.state.remove_service(id).map(|s| Event::Service(gone(s))),
            ObjectKind::Secret(id) => self.state.secrets.remove(id).map(|s| Event::Secret(gone(s))),
            ObjectKind::Config(id) => self.state.configs.remove(id).map(|c| Event::Config(gone(c))),
            ObjectKind::Task(id) => {
                let task = self.state.remove_task(id)?;
                if self.state.tasks_of(task.service_id).next().is_none() {
                    self.pool.forget(task.service_id);
                }
                Some(Event::Task(gone(task)))
            }
        }
    }
}

impl From<Snapshot> for Store {
    /// A store that goes on from `state`.
    fn from(state: Snapshot) -> Self {
        let mut pool = Pool::default();
        for task in state.tasks() {
            pool.learn(task);
        }
        Self { state, pool }
    }
}

#[cfg(test)]
mod tests;
