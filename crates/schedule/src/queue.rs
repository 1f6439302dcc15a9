//! The tasks that wait, and which of them are worth another look.

use std::collections::{BTreeMap, BTreeSet};

use shoal_types::{ServiceId, TaskId};

/// Tasks of one service and spec version are alike and are placed together.
pub(crate) type Group = (ServiceId, u64);

/// The tasks that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    groups: BTreeMap<Group, BTreeSet<(u64, TaskId)>>,
    due: BTreeSet<Group>,
    preset: BTreeSet<TaskId>,
    due_preset: BTreeSet<TaskId>,
    unwanted: BTreeSet<TaskId>,
    /// A node changed or became emptier: everything is due.
    room: bool,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn push(&mut self, group: Group, slot: u64, task: TaskId) {
        self.groups.entry(group).or_default().insert((slot, task));
        self.due.insert(group);
    }

    pub(crate) fn remove(&mut self, group: Group, slot: u64, task: TaskId) {
        if let Some(tasks) = self.groups.get_mut(&group) {
            tasks.remove(&(slot, task));
            if tasks.is_empty() {
                self.groups.remove(&group);
                self.due.remove(&group);
            }
        }
    }

    pub(crate) fn push_preset(&mut self, task: TaskId) {
        self.preset.insert(task);
        self.due_preset.insert(task);
    }

    pub(crate) fn remove_preset(&mut self, task: TaskId) {
        self.preset.remove(&task);
        self.due_preset.remove(&task);
    }

    pub(crate) fn push_unwanted(&mut self, task: TaskId) {
        self.unwanted.insert(task);
    }

    pub(crate) fn remove_unwanted(&mut self, task: TaskId) {
        self.unwanted.remove(&task);
    }

    pub(crate) fn room_may_be_there(&mut self) {
        self.room = true;
    }

    /// Looks at a group again at the next step: what was decided for it may not have been committed.
    pub(crate) fn look_again(&mut self, group: Group) {
        self.due.insert(group);
    }

    /// The same for a task that waits for its own node.
    pub(crate) fn look_again_at(&mut self, task: TaskId) {
        self.due_preset.insert(task);
    }

    pub(crate) fn unwanted(&self) -> Vec<TaskId> {
        self.unwanted.iter().copied().collect()
    }

    /// The tasks to look at that wait for their own node. To be called before [`Self::take_groups`].
    pub(crate) fn take_preset(&mut self) -> BTreeSet<TaskId> {
        let due = std::mem::take(&mut self.due_preset);
        if self.room { self.preset.clone() } else { due }
    }

    /// The groups to look at.
    pub(crate) fn take_groups(&mut self) -> BTreeSet<Group> {
        let due = std::mem::take(&mut self.due);
        if std::mem::take(&mut self.room) { self.groups.keys().copied().collect() } else { due }
    }

    /// The tasks of a group, in the order of their slots.
    pub(crate) fn tasks(&self, group: Group) -> impl Iterator<Item = TaskId> + '_ {
        self.groups.get(&group).into_iter().flatten().map(|(_, task)| *task)
    }
}
