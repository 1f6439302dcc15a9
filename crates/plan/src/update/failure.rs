//! Failures of updated tasks, and what they lead to (swarm-semantics 5.3).

use std::sync::Arc;

use shoal_types::object::UpdateStatus;
use shoal_types::spec::{FailureAction, ServiceSpec, UpdateState};
use shoal_types::{Service, Task, TaskId, TaskState, Timestamp, after};

use super::{Phase, Update};
use crate::draft::Draft;
use crate::goal::Goal;
use crate::service::ServicePlan;

impl ServicePlan {
    /// Counts the failures in the slots that something happened to. Returns whether they paused the update or rolled
    /// the service back.
    pub(crate) fn watch(&mut self, goal: &Goal, draft: &mut Draft<'_>) -> bool {
        let Some(update) = &mut self.update else { return false };
        if !update.is_watching() || !update.is_towards(goal) {
            return false;
        }
        let mut ids =
            self.touched.iter().flat_map(|key| self.slots.get(key).into_iter().flatten().map(move |id| (*key, *id)));
        let Some((key, failed)) = ids.find(|(_, id)| update.count(*id, draft)) else { return false };
        if react(update, failed, goal, draft) {
            self.first = Some(key);
            self.update = None;
            self.touch_all();
        }
        true
    }
}

impl Update {
    /// Looks at a task if it is watched. Returns whether its failure is one too many.
    fn count(&mut self, id: TaskId, draft: &Draft<'_>) -> bool {
        let Some(since) = self.watched.get_mut(&id) else { return false };
        let Some(task) = draft.task(id) else { return false };
        if !task.status.state.is_terminal() {
            if task.status.state == TaskState::Running {
                since.get_or_insert(draft.now);
            }
            return false;
        }
        let early = since.is_none_or(|s| draft.now <= after(s, self.config.monitor()));
        self.watched.remove(&id);
        if !early || !ended_itself(&task) {
            return false;
        }
        self.failures += 1;
        let ratio = self.failures as f32 / self.total.max(1) as f32;
        ratio > self.config.max_failure_ratio
    }
}

/// Whether the task ended on its own, well or not, and was not stopped or given up.
fn ended_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Pauses the update, or rolls the service back and returns true.
fn react(update: &mut Update, failed: TaskId, goal: &Goal, draft: &mut Draft<'_>) -> bool {
    let service = &goal.service;
    let of = |what: &str| format!("{what} due to failure or early termination of task {failed}");
    let roll = update.config.failure_action == FailureAction::Rollback;
    if roll
        && !update.rolls_back
        && let Some(previous) = &service.previous_spec
    {
        let service = rolled_back(service, previous.clone(), of("update rolled back"), draft.now);
        draft.put_service(service);
        return true;
    }
    update.phase = Phase::Stopped;
    let message = match (roll, update.rolls_back) {
        (true, true) => of("rollback paused"),
        (true, false) => of("update paused") + "; there is no previous spec to roll back to",
        (false, _) => of("update paused"),
    };
    let state = if update.rolls_back { UpdateState::RollbackPaused } else { UpdateState::Paused };
    let status = UpdateStatus { state, started_at: Some(update.started_at), completed_at: None, message };
    draft.set_update_status(service, status);
    false
}

fn rolled_back(service: &Service, spec: Arc<ServiceSpec>, message: String, now: Timestamp) -> Service {
    let status =
        UpdateStatus { state: UpdateState::RollbackStarted, started_at: Some(now), completed_at: None, message };
    Service {
        spec,
        spec_version: service.previous_spec_version.unwrap_or_default(),
        registry_auth: service.previous_registry_auth.clone(),
        previous_spec: None,
        previous_spec_version: None,
        previous_registry_auth: None,
        update_status: Some(status),
        ..service.clone()
    }
}
