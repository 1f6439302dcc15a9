//! Replacing one slot: stop-first or start-first, until the new task runs or has failed.

use std::sync::Arc;

use shoal_types::spec::UpdateOrder;
use shoal_types::{Task, TaskId, TaskState, after};

use super::{Phase, Update};
use crate::draft::Draft;
use crate::goal::Goal;
use crate::service::ServicePlan;
use crate::slots::{Slot, SlotKey};

impl ServicePlan {
    /// Begins to replace the task of a slot.
    pub(super) fn replace(&mut self, key: SlotKey, update: &mut Update, goal: &Goal, draft: &mut Draft<'_>) {
        update.pending.remove(&key);
        update.tried.insert(key);
        update.total = update.total.max(update.tried.len());
        let slot = self.slot(key, draft);
        let starts_first = update.config.order == UpdateOrder::StartFirst;
        let kept = current(&slot, goal, draft).cloned();
        let kept_runs = kept.as_ref().is_some_and(|t| t.status.state == TaskState::Running);
        let old: Vec<_> = slot.live().filter(|t| kept.as_ref().is_none_or(|k| k.id != t.id)).collect();
        // start-first spares the one that serves best until the new task runs
        let spared = best(&old);
        for task in old.iter().filter(|t| !starts_first || kept_runs || Some(t.id) != spared) {
            draft.desire(task, TaskState::Shutdown);
        }
        let new = match kept {
            Some(kept) => kept.id,
            None => {
                let id = self.create_new(key, starts_first, goal, draft);
                if update.is_watching() {
                    update.watched.insert(id, None);
                }
                id
            }
        };
        update.busy.insert(key, new);
        self.touched.insert(key);
    }

    /// Stops what no worker is needed for in a slot that waits for one.
    pub(super) fn thin(&mut self, key: SlotKey, update: &mut Update, goal: &Goal, draft: &mut Draft<'_>) {
        if !update.pending.contains(&key) {
            return;
        }
        let slot = self.slot(key, draft);
        if current(&slot, goal, draft).is_some() {
            return self.replace(key, update, goal, draft);
        }
        let old: Vec<_> = slot.live().collect();
        let spared = best(&old);
        for task in old.iter().filter(|t| spared.is_some_and(|spared| spared != t.id)) {
            draft.desire(task, TaskState::Shutdown);
            self.touched.insert(key);
        }
    }

    fn create_new(&mut self, key: SlotKey, starts_first: bool, goal: &Goal, draft: &mut Draft<'_>) -> TaskId {
        let slot = self.slot(key, draft);
        let others = slot.stopping(draft.view).count() + slot.live().count();
        // one other container beside the new one is what start-first means; more would be a pile
        let waits = others > usize::from(starts_first) && slot.stopping(draft.view).next().is_some();
        let desired = if waits { TaskState::Ready } else { TaskState::Running };
        let id = self.create(key, desired, goal, draft);
        if waits {
            self.starts.insert(id, draft.now);
        }
        id
    }

    /// Follows the new task of a slot that is being replaced.
    pub(crate) fn advance(&mut self, slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        let Some(update) = &mut self.update else { return };
        let Some(id) = update.busy.get(&slot.key).copied() else { return };
        if let Some(task) = slot.tasks.iter().find(|t| t.id == id) {
            if task.status.state < TaskState::Running && task.desired_state <= TaskState::Running {
                return;
            }
            if task.status.state == TaskState::Running && task.desired_state <= TaskState::Running {
                slot.live().filter(|t| t.id != id).for_each(|t| draft.desire(t, TaskState::Shutdown));
            } else if !task.status.state.is_terminal()
                && let Some(next) = current(slot, goal, draft)
            {
                // it lost its node; the slot is done when what replaced it runs
                if update.watched.remove(&id).is_some() {
                    update.watched.insert(next.id, None);
                }
                update.busy.insert(slot.key, next.id);
                self.touched.insert(slot.key);
                return;
            }
        }
        update.busy.remove(&slot.key);
        if update.config.delay > 0 && update.phase != Phase::Stopped {
            update.resting.insert((after(draft.now, update.config.delay), slot.key));
        }
    }
}

/// The task that serves best: none that has ended or was never started.
fn best(tasks: &[&Arc<Task>]) -> Option<TaskId> {
    let serves = |t: &&&Arc<Task>| t.desired_state == TaskState::Running && !t.status.state.is_terminal();
    tasks.iter().filter(serves).max_by_key(|t| (t.status.state, t.meta.created_at)).map(|t| t.id)
}

/// The task of the slot that is up to date and can go on; where there are several, the furthest.
pub(super) fn current<'s>(slot: &'s Slot, goal: &Goal, draft: &Draft<'_>) -> Option<&'s Arc<Task>> {
    let is_met = |t: &&Arc<Task>| {
        let node = t.node_id.and_then(|id| draft.view.node(id));
        !t.status.state.is_terminal() && goal.is_met_by(t, node.map(|n| &**n))
    };
    slot.live().filter(is_met).max_by_key(|t| (t.status.state, t.meta.created_at))
}
