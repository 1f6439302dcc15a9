//! Restarts: replaces tasks that ended or lost their node, and starts replacements when their time has come
//! (swarm-semantics 2.7).

use std::sync::Arc;

use shoal_types::spec::{RestartCondition, RestartPolicy, TaskSpec};
use shoal_types::{Nanos, Task, TaskState, Timestamp, View, after};

use crate::draft::Draft;
use crate::goal::Goal;
use crate::job::is_done;
use crate::service::ServicePlan;
use crate::slots::{Slot, is_drained, is_out_of_reach};
use crate::timers::Target;

const SECOND: Nanos = 1_000_000_000;
/// The delay of a policy that names none.
const DEFAULT_DELAY: Nanos = 5 * SECOND;
/// How long a replacement waits for its predecessor to stop …
const STOP_WAIT: Nanos = 60 * SECOND;
/// … and longer where the predecessor may take longer to stop: its grace period and this.
const STOP_MARGIN: Nanos = 10 * SECOND;

impl ServicePlan {
    /// Replaces the tasks of `slot` that ended or lost their node.
    pub(crate) fn heal(&mut self, slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        let (lost, usable): (Vec<_>, Vec<_>) = slot.live().partition(|t| is_over(t, draft.view));
        let mut held = false;
        let mut delay = None;
        for task in lost {
            // what fails while it waits for its time is replaced when that has come: a delay is a delay
            let start = self.start_of(task, slot, draft.view);
            if task.desired_state == TaskState::Ready && task.status.state.is_terminal() && draft.now < start {
                draft.timers.wake(start, Target::Slot(self.id, slot.key));
                held = true;
                continue;
            }
            draft.desire(task, TaskState::Shutdown);
            if may_restart(task, slot) && !is_covered(task, &usable, goal, draft.view) {
                let moves = is_drained(task, draft.view) || is_lost(task);
                delay = delay.max(Some(if moves { 0 } else { restart_delay(&goal.spec) }));
            }
        }
        if let Some(delay) = delay
            && !held
        {
            self.create_after(slot, delay, goal, draft);
        }
    }

    /// Creates a task in `slot` that starts after `delay`, and not before the others of the slot have stopped.
    pub(crate) fn create_after(&mut self, slot: &Slot, delay: Nanos, goal: &Goal, draft: &mut Draft<'_>) {
        let slot = self.slot(slot.key, draft);
        let waits = delay > 0 || slot.stopping(draft.view).next().is_some();
        let desired = if waits { TaskState::Ready } else { goal.wanted() };
        let id = self.create(slot.key, desired, goal, draft);
        if waits {
            self.starts.insert(id, after(draft.now, delay));
        }
    }

    /// Starts the replacements in `slot` whose time has come.
    pub(crate) fn promote(&mut self, slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        let ready = |t: &&Arc<Task>| t.desired_state == TaskState::Ready && !t.status.state.is_terminal();
        for task in slot.live().filter(ready) {
            let start = self.start_of(task, slot, draft.view);
            let stopped = slot.stopping(draft.view).map(|old| stop_deadline(task, old)).max();
            let at = if draft.now < start { Some(start) } else { stopped.filter(|deadline| draft.now < *deadline) };
            if let Some(at) = at {
                draft.timers.wake(at, Target::Slot(self.id, slot.key));
            } else {
                draft.desire(task, goal.wanted());
                self.starts.remove(&task.id);
            }
        }
    }

    /// When the delay of a task that is wanted ready ends. What another leader decided is told from the stored tasks.
    fn start_of(&self, task: &Task, slot: &Slot, view: &dyn View) -> Timestamp {
        if let Some(start) = self.starts.get(&task.id) {
            return *start;
        }
        let before = slot.tasks.iter().rev().find(|t| (t.meta.created_at, t.id) < (task.meta.created_at, task.id));
        let restarted = before.is_some_and(|old| {
            let failed = old.status.state.is_terminal() && old.status.state != TaskState::Shutdown;
            let lost = !old.status.state.is_terminal() && !is_lost(old) && is_out_of_reach(old, view);
            old.desired_state != TaskState::Remove && !is_drained(old, view) && (failed || lost)
        });
        after(task.meta.created_at, if restarted { restart_delay(&task.spec) } else { 0 })
    }
}

/// Whether a task that is over only lost its node. The restart delay is there for what fails; this did not
/// (docs/decisions/0008). A job may come to its end on a node that nobody hears of: it is given the time.
fn is_lost(task: &Task) -> bool {
    !task.status.state.is_terminal() && task.job_iteration.is_none()
}

/// Whether a task that is wanted has ended, or cannot go on where it is.
pub(crate) fn is_over(task: &Task, view: &dyn View) -> bool {
    !is_done(task) && (task.status.state.is_terminal() || is_out_of_reach(task, view) || is_drained(task, view))
}

/// Whether the slot of a lost task needs no replacement because another task serves it: one that is up to date, or
/// the old one that an update has not stopped yet. In the latter case the new task is tried again, unless it was the
/// reason to pause.
fn is_covered(lost: &Task, usable: &[&Arc<Task>], goal: &Goal, view: &dyn View) -> bool {
    let is_new = |t: &Task| goal.is_met_by(t, t.node_id.and_then(|id| view.node(id)).map(|n| &**n));
    !usable.is_empty() && (goal.is_paused() || !is_new(lost) || usable.iter().any(|t| is_new(t)))
}

/// Whether the restart policy lets `task` be replaced.
pub(crate) fn may_restart(task: &Task, slot: &Slot) -> bool {
    let policy = task.spec.restart_policy.clone().unwrap_or_default();
    let wanted = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::Any => !is_done(task),
    };
    wanted && (policy.max_attempts == 0 || attempts(task, slot, &policy) < policy.max_attempts)
}

/// How often the slot was restarted since its first task of the spec version of `task`, within the policy's window.
///
/// The history keeps one task more than `max_attempts`, so the stored tasks are enough to tell.
fn attempts(task: &Task, slot: &Slot, policy: &RestartPolicy) -> u64 {
    let since = policy.window.filter(|w| *w > 0).map(|window| {
        let ended = task.status.applied_at.unwrap_or(task.status.timestamp);
        after(ended, window.saturating_neg())
    });
    let up_to = slot.tasks.iter().rev().skip_while(|t| t.id != task.id);
    // a job that is rolled back runs an old version anew
    let version = |t: &Task| (t.spec_version, t.job_iteration);
    let same: Vec<_> = up_to.take_while(|t| version(t) == version(task)).collect();
    let restarts = same.iter().take(same.len().saturating_sub(1));
    restarts.filter(|t| since.is_none_or(|s| t.meta.created_at > s)).count() as u64
}

fn restart_delay(spec: &TaskSpec) -> Nanos {
    spec.restart_policy.as_ref().and_then(|p| p.delay).unwrap_or(DEFAULT_DELAY)
}

/// Until when `task` waits for `old` to stop.
fn stop_deadline(task: &Task, old: &Task) -> Timestamp {
    after(task.meta.created_at, stop_patience(old))
}

/// How long `task` may take to stop.
pub(crate) fn stop_patience(task: &Task) -> Nanos {
    let grace = task.spec.container_spec.as_ref().and_then(|c| c.stop_grace_period).unwrap_or(0);
    STOP_WAIT.max(grace.saturating_add(STOP_MARGIN))
}
