//! Forgets tasks: those that were to go away, and the oldest beyond the history limit (swarm-semantics 2.6).

use shoal_types::spec::TaskSpec;
use shoal_types::{TaskState, View};

use crate::draft::Draft;
use crate::job::is_done;
use crate::service::ServicePlan;
use crate::slots::Slot;

/// Tasks kept in a slot when the cluster does not say.
const DEFAULT_LIMIT: i64 = 5;

impl ServicePlan {
    /// Forgets tasks that were to go away and have no container that still runs.
    pub(crate) fn reap(slot: &Slot, draft: &mut Draft<'_>) {
        for task in &slot.tasks {
            let state = task.status.state;
            if task.desired_state == TaskState::Remove && (state < TaskState::Assigned || state.is_terminal()) {
                draft.remove(task.id);
            }
        }
    }

    /// Forgets the oldest tasks of a slot that are beyond the limit. Never the latest attempt, nor what it replaces:
    /// they tell whether and when the slot is started again.
    pub(crate) fn trim(slot: &Slot, spec: &TaskSpec, draft: &mut Draft<'_>) {
        let kept: Vec<_> = slot.tasks.iter().filter(|t| t.desired_state != TaskState::Remove).collect();
        let Some(limit) = limit(slot, spec, draft.view) else { return };
        let pending = slot.newest().is_some_and(|t| t.desired_state == TaskState::Ready);
        let old = &kept[..kept.len().saturating_sub(if pending { 2 } else { 1 })];
        let removable = old.iter().filter(|t| {
            let never_ran = t.status.state < TaskState::Assigned && t.desired_state > TaskState::Running;
            let counts = is_done(t) && slot.newest().is_some_and(|n| n.job_iteration == t.job_iteration);
            t.desired_state > TaskState::Running && (never_ran || t.status.state.is_terminal()) && !counts
        });
        for task in removable.take(kept.len().saturating_sub(limit)) {
            draft.remove(task.id);
        }
    }
}

/// How many tasks of the slot are kept, live ones included.
fn limit(slot: &Slot, spec: &TaskSpec, view: &dyn View) -> Option<usize> {
    let attempts = spec.restart_policy.as_ref().map_or(0, |p| p.max_attempts);
    if attempts > 0 {
        let live = slot.tasks.iter().filter(|t| t.is_active()).count().max(1);
        return Some(usize::try_from(attempts).unwrap_or(usize::MAX).saturating_add(live));
    }
    let configured = view.cluster().and_then(|c| c.spec.orchestration.task_history_retention_limit);
    usize::try_from(configured.unwrap_or(DEFAULT_LIMIT)).ok()
}
