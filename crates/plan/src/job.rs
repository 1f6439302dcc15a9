//! Jobs: tasks that run to their end. A replicated job has so many slots, some at a time; a global job has one on each node
//! that fits (swarm-semantics 3.3, 3.4). Any change of the service begins another run, from the beginning.
//!
//! Where it is deliberately not Swarm: a slot that failed and may not be tried again stays so, rather than to be tried anew at
//! some later event; attempts are counted for global jobs, too; nodes that come later are seen at once; tasks of the former run
//! that still stop count as running; and the history of a slot has its limit, so that a job that fails for ever does not fill
//! the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_types::object::NodeState;
use shoal_types::spec::Availability;
use shoal_types::{NodeId, Task, TaskState, Timestamp, after};

use crate::draft::Draft;
use crate::goal::Goal;
use crate::restart::{may_restart, stop_patience};
use crate::service::ServicePlan;
use crate::slots::{Slot, SlotKey};
use crate::timers::Target;

/// How far one run of a job is. All of it can be told from the stored tasks.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Which run this is about.
    iteration: Option<u64>,
    /// The slots that have tasks of this run.
    tried: BTreeSet<SlotKey>,
    /// The slots in which a task of this run goes on, or is about to.
    active: BTreeSet<SlotKey>,
    /// These, and those in which a task of a former run has still to stop.
    busy: BTreeSet<SlotKey>,
    /// All numbers below are tried.
    next: u64,
}

impl ServicePlan {
    /// Plans a job. Returns false where the transaction is full.
    pub(crate) fn plan_job(&mut self, goal: &Goal, draft: &mut Draft<'_>) -> bool {
        if self.run.iteration != goal.run() {
            self.run = Run { iteration: goal.run(), ..Run::default() };
            self.touch_all();
        }
        while let Some(key) = self.touched.pop_first() {
            self.settle_run(key, goal, draft);
            if draft.is_full() {
                return false;
            }
        }
        goal.service.spec.mode.global_job.is_some() || self.start_more(goal, draft)
    }

    /// Decides everything that concerns one slot alone.
    fn settle_run(&mut self, key: SlotKey, goal: &Goal, draft: &mut Draft<'_>) {
        let slot = self.slot(key, draft);
        retire(&slot, goal, draft);
        match key {
            SlotKey::Number(_) => self.go_on(&slot.of_run(goal.run()), goal, draft),
            SlotKey::Node(node) => self.run_on(node, &slot, goal, draft),
        }
        let slot = self.slot(key, draft);
        self.promote(&slot, goal, draft);
        let slot = self.slot(key, draft);
        self.note_run(&slot, goal, draft);
        Self::reap(&slot, draft);
        Self::trim(&slot, &goal.spec, draft);
    }

    /// Tries again what failed, until it has ended well once. `mine` has the tasks of this run.
    fn go_on(&mut self, mine: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        if mine.is_done() {
            // what had been given up for lost has ended well after all
            mine.live().filter(|t| !is_done(t)).for_each(|t| draft.desire(t, TaskState::Shutdown));
        } else {
            self.heal(mine, goal, draft);
        }
    }

    /// Makes the slot of a global job on `node` what it should be.
    fn run_on(&mut self, node: NodeId, slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        let Some(node) = draft.view.node(node) else {
            return slot.tasks.iter().for_each(|t| draft.remove(t.id));
        };
        let mine = slot.of_run(goal.run());
        let open = mine.live().filter(|t| !is_done(t));
        let away = node.status.state == NodeState::Down || node.spec.availability == Availability::Drain;
        if away || !goal.admits(node) {
            return open.for_each(|t| draft.desire(t, TaskState::Shutdown));
        }
        if node.spec.availability == Availability::Pause {
            let ended = open.filter(|t| t.status.state.is_terminal());
            return ended.for_each(|t| draft.desire(t, TaskState::Shutdown));
        }
        self.go_on(&mine, goal, draft);
        let mine = self.slot(slot.key, draft).of_run(goal.run());
        if !mine.is_done() && mine.live().next().is_none() && !is_spent(&mine) {
            self.create_after(&mine, 0, goal, draft);
        }
    }

    /// Notes what a slot has come to.
    fn note_run(&mut self, slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        let mine = slot.of_run(goal.run());
        let stops = stops_until(slot, draft);
        if let Some(until) = stops {
            draft.timers.wake(until, Target::Slot(self.id, slot.key));
        }
        let is_active = mine.live().any(|t| !is_done(t));
        set(&mut self.run.active, slot.key, is_active);
        set(&mut self.run.busy, slot.key, is_active || stops.is_some());
        set(&mut self.run.tried, slot.key, !mine.tasks.is_empty());
        if let (SlotKey::Number(number), true) = (slot.key, mine.tasks.is_empty()) {
            self.run.next = self.run.next.min(number);
        }
    }

    /// Starts slots that were not tried yet, as many as may run at a time. Returns false where the transaction is full.
    fn start_more(&mut self, goal: &Goal, draft: &mut Draft<'_>) -> bool {
        let (concurrent, total) = goal.service.spec.mode.job_counts();
        while (self.run.active.len() as u64) < concurrent {
            while self.run.tried.contains(&SlotKey::Number(self.run.next)) {
                self.run.next += 1;
            }
            let key = SlotKey::Number(self.run.next);
            // in a slot where something stops, the new task waits for that and takes its place
            let has_room = (self.run.busy.len() as u64) < concurrent || self.run.busy.contains(&key);
            if self.run.next >= total || !has_room {
                break;
            }
            if draft.is_full() {
                return false;
            }
            self.create_after(&self.slot(key, draft), 0, goal, draft);
            for keys in [&mut self.run.tried, &mut self.run.active, &mut self.run.busy] {
                keys.insert(key);
            }
        }
        true
    }
}

/// Whether a task of a job has done what it is for.
pub(crate) fn is_done(task: &Task) -> bool {
    task.job_iteration.is_some() && task.status.state == TaskState::Complete
}

/// What is left of former runs goes away. A replicated job keeps what has ended as history.
fn retire(slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
    let keeps = |t: &Task| goal.service.spec.mode.replicated_job.is_some() && t.status.state.is_terminal();
    let former = slot.tasks.iter().filter(|t| t.job_iteration != goal.run() && !keeps(t));
    former.for_each(|t| draft.desire(t, TaskState::Remove));
}

/// Whether the last task ended by itself and may not be tried again. What was stopped because its node went away may.
fn is_spent(mine: &Slot) -> bool {
    let Some(newest) = mine.newest() else { return false };
    matches!(newest.status.state, TaskState::Failed | TaskState::Rejected) && !may_restart(newest, mine)
}

/// Until when the slot's tasks that are to stop count as if they ran, if any do: a node that does not stop them must not hold
/// up the job for ever.
fn stops_until(slot: &Slot, draft: &Draft<'_>) -> Option<Timestamp> {
    let until = |task: &Arc<Task>| {
        let told = draft.view.task(task.id).filter(|seen| seen.desired_state > TaskState::Complete);
        after(told.map_or(draft.now, |seen| seen.meta.updated_at), stop_patience(task))
    };
    slot.stopping(draft.view).map(until).max().filter(|until| draft.now < *until)
}

fn set(keys: &mut BTreeSet<SlotKey>, key: SlotKey, is_in: bool) {
    if is_in {
        keys.insert(key);
    } else {
        keys.remove(&key);
    }
}

impl Slot {
    /// The slot with the tasks of one run only.
    fn of_run(&self, run: Option<u64>) -> Self {
        Self { key: self.key, tasks: self.tasks.iter().filter(|t| t.job_iteration == run).cloned().collect() }
    }

    fn is_done(&self) -> bool {
        self.tasks.iter().any(|t| is_done(t))
    }
}
