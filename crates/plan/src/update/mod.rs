//! Rolling updates and rollbacks: which slots are replaced when, and how the update ends (swarm-semantics 5.2).

mod failure;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use shoal_types::object::UpdateStatus;
use shoal_types::spec::{FailureAction, ServiceSpec, UpdateConfig, UpdateState};
use shoal_types::{Nanos, ServiceId, TaskId, TaskState, Timestamp, after};

use crate::draft::Draft;
use crate::goal::Goal;
use crate::service::ServicePlan;
use crate::slots::SlotKey;
use crate::timers::Target;
use worker::current;

const SECOND: Nanos = 1_000_000_000;

/// What an update has to do in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Replace its task.
    Replace {
        /// An update that was overtaken has left it with more than one.
        crowded: bool,
    },
    /// Keep the task that is up to date and stop the others.
    Trim {
        /// The task to keep runs already.
        runs: bool,
    },
}

/// A rolling update towards one spec. It outlives its end, to know which slots it has tried.
#[derive(Debug)]
pub(crate) struct Update {
    spec: Arc<ServiceSpec>,
    rolls_back: bool,
    config: UpdateConfig,
    started_at: Timestamp,
    phase: Phase,
    /// Nobody asked for it: slots went stale after the last update ended. Not watched, not reported.
    is_silent: bool,
    /// The number of slots that were stale at the start.
    total: usize,
    tried: BTreeSet<SlotKey>,
    pending: BTreeSet<SlotKey>,
    /// Those of them with tasks to stop whatever replaces them, or with nothing else to do: no worker is needed for that.
    trims: BTreeSet<SlotKey>,
    /// The slots being replaced, with the new tasks.
    busy: BTreeMap<SlotKey, TaskId>,
    /// The slots that were replaced and keep their worker until then.
    resting: BTreeSet<(Timestamp, SlotKey)>,
    /// The tasks whose failure counts, and since when they run.
    watched: HashMap<TaskId, Option<Timestamp>>,
    failures: usize,
}

/// How far an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Slots are being replaced.
    Rolling,
    /// All are, and watched until then.
    Monitoring(Timestamp),
    /// A failure stopped it; slots in work are finished.
    Stopped,
    /// It is over.
    Done,
}

impl Need {
    /// Whether there are tasks that nobody needs, whatever becomes of the slot.
    fn is_surplus(self) -> bool {
        matches!(self, Self::Replace { crowded: true } | Self::Trim { runs: true })
    }
}

impl Update {
    fn new(goal: &Goal, now: Timestamp, stale: &BTreeMap<SlotKey, Need>) -> Self {
        let spec = &goal.service.spec;
        let rolls_back = goal.is_backward();
        let config = if rolls_back { &spec.rollback_config } else { &spec.update_config };
        let status = goal.service.update_status.as_ref();
        let (tried, busy, resting, watched) = Default::default();
        Self {
            spec: spec.clone(),
            rolls_back,
            config: config.clone().unwrap_or_default(),
            started_at: status.and_then(|s| s.started_at).unwrap_or(now),
            phase: Phase::Rolling,
            is_silent: matches!(goal.phase(), Some(UpdateState::Completed | UpdateState::RollbackCompleted)),
            total: stale.len(),
            tried,
            pending: stale.keys().copied().collect(),
            trims: stale.iter().filter(|(_, need)| need.is_surplus()).map(|(key, _)| *key).collect(),
            busy,
            resting,
            watched,
            failures: 0,
        }
    }

    /// Notes what there is to do in a slot.
    pub(crate) fn note(&mut self, key: SlotKey, need: Option<Need>) {
        let wanted = match need {
            None => false,
            Some(Need::Trim { runs: true }) => true,
            Some(_) => !self.tried.contains(&key),
        };
        if wanted && !self.busy.contains_key(&key) {
            self.pending.insert(key);
        } else {
            self.pending.remove(&key);
        }
        if need.is_some_and(Need::is_surplus) {
            self.trims.insert(key);
        } else {
            self.trims.remove(&key);
        }
    }

    fn is_towards(&self, goal: &Goal) -> bool {
        let spec = &goal.service.spec;
        self.rolls_back == goal.is_backward() && (Arc::ptr_eq(&self.spec, spec) || self.spec == *spec)
    }

    fn is_in_work(&self) -> bool {
        !(self.pending.is_empty() && self.busy.is_empty() && self.resting.is_empty())
    }

    /// Whether a task of the slot is being replaced.
    pub(crate) fn is_busy_with(&self, key: SlotKey) -> bool {
        self.busy.contains_key(&key)
    }

    fn has_free_worker(&self) -> bool {
        let parallelism = usize::try_from(self.config.parallelism).unwrap_or(usize::MAX);
        parallelism == 0 || self.busy.len() + self.resting.len() < parallelism
    }

    /// Whether failures lead to anything.
    fn is_watching(&self) -> bool {
        let running = matches!(self.phase, Phase::Rolling | Phase::Monitoring(_));
        running && !self.is_silent && self.config.failure_action != FailureAction::Continue
    }

    /// How long to watch after the last slot.
    fn last_watch(&self) -> Nanos {
        let (delay, monitor) = (self.config.delay, self.config.monitor());
        if delay >= monitor { delay.saturating_add(SECOND) } else { monitor }
    }
}

impl ServicePlan {
    /// Brings the update forward. Returns false where the transaction is full.
    pub(crate) fn drive(&mut self, goal: &Goal, draft: &mut Draft<'_>) -> bool {
        let first = self.first.take();
        self.ensure_update(goal, draft);
        let Some(mut update) = self.update.take() else { return true };
        if update.phase == Phase::Done && !update.pending.is_empty() {
            update.phase = Phase::Rolling;
            update.is_silent = true;
        }
        while update.resting.first().is_some_and(|(until, _)| *until <= draft.now) {
            update.resting.pop_first();
        }
        let hands_out = matches!(update.phase, Phase::Rolling | Phase::Monitoring(_));
        while hands_out
            && !draft.is_full()
            && let Some(key) = update.trims.pop_first()
        {
            self.thin(key, &mut update, goal, draft);
        }
        let mut next = first.filter(|key| update.pending.contains(key));
        while hands_out && !draft.is_full() && update.has_free_worker() {
            let Some(key) = next.take().or_else(|| update.pending.first().copied()) else { break };
            self.replace(key, &mut update, goal, draft);
        }
        if let Some((until, _)) = update.resting.first() {
            draft.timers.wake(*until, Target::Service(self.id));
        }
        self.conclude(&mut update, draft);
        self.update = Some(update);
        if let Some(key) = first {
            self.touched.insert(key); // what the rollback could not take yet is healed as usual
        }
        !draft.is_full() && self.touched.is_empty()
    }

    /// Starts an update where one is due, and drops one that another has overtaken.
    fn ensure_update(&mut self, goal: &Goal, draft: &mut Draft<'_>) {
        let phase = goal.phase();
        let over = |u: &Update| matches!(u.phase, Phase::Stopped | Phase::Done);
        // a service update clears the status: what had stopped is tried anew even if the spec is the same
        let before = self.update.take_if(|u| !u.is_towards(goal) || (phase.is_none() && over(u)));
        match &mut self.update {
            _ if goal.is_paused() => {}
            Some(update) if phase.is_none() => {
                update.is_silent = false;
                update.started_at = draft.now;
                report_start(goal, draft);
            }
            Some(_) => {}
            None => self.begin(before, goal, draft),
        }
    }

    fn begin(&mut self, before: Option<Update>, goal: &Goal, draft: &mut Draft<'_>) {
        let mut update = Update::new(goal, draft.now, &self.stale);
        let resumes = matches!(goal.phase(), Some(UpdateState::Updating | UpdateState::RollbackStarted));
        if let Some(before) = before {
            self.inherit(&mut update, &before, goal, draft);
        } else if resumes && self.is_taken_over {
            self.resume(&mut update, goal, draft);
        }
        if !update.is_in_work() && update.watched.is_empty() {
            if !resumes {
                return;
            }
            report_end(&mut update, self.id, draft);
        } else if goal.phase().is_none() {
            report_start(goal, draft);
        }
        self.update = Some(update);
    }

    /// Keeps the workers of an update that another one has overtaken where their new tasks are right for both, so that
    /// there are never more at work than there should be.
    fn inherit(&self, update: &mut Update, before: &Update, goal: &Goal, draft: &Draft<'_>) {
        for (key, id) in &before.busy {
            let slot = self.slot(*key, draft);
            let Some(task) = current(&slot, goal, draft).filter(|t| t.id == *id) else { continue };
            if update.is_watching() {
                update.watched.insert(task.id, None);
            }
            update.total += usize::from(!self.stale.contains_key(key));
            update.tried.insert(*key);
            update.pending.remove(key);
            update.busy.insert(*key, *id);
        }
    }

    /// Takes over what another leader's update has begun: new tasks that do not run yet, or are still to be watched.
    fn resume(&self, update: &mut Update, goal: &Goal, draft: &Draft<'_>) {
        for key in self.live.iter().copied() {
            let slot = self.slot(key, draft);
            let mut newer = slot.tasks.iter().filter(|t| t.spec_version == goal.service.spec_version);
            let Some(task) = newer.next() else { continue };
            let ours = task.meta.created_at >= update.started_at && task.desired_state <= TaskState::Running;
            if !ours || task.status.state.is_terminal() {
                continue;
            }
            let runs = task.status.state == TaskState::Running;
            let since = runs.then(|| task.status.applied_at.unwrap_or(task.status.timestamp));
            if since.is_some_and(|s| after(s, update.config.monitor()) < draft.now) {
                continue;
            }
            if update.is_watching() {
                update.watched.insert(task.id, since);
            }
            update.tried.insert(key);
            update.total += usize::from(!self.stale.contains_key(&key));
            if !runs {
                update.pending.remove(&key);
                update.busy.insert(key, task.id);
            }
        }
    }

    /// Ends the update when there is nothing left to do and to watch.
    fn conclude(&self, update: &mut Update, draft: &mut Draft<'_>) {
        let rolling = update.phase == Phase::Rolling;
        let monitoring = matches!(update.phase, Phase::Monitoring(_));
        if update.is_in_work() {
            if monitoring {
                update.phase = Phase::Rolling;
            }
            return;
        }
        if rolling {
            update.phase = Phase::Monitoring(after(draft.now, update.last_watch()));
        }
        match update.phase {
            Phase::Monitoring(until) if draft.now >= until || update.is_silent => {
                report_end(update, self.id, draft);
                update.tried.retain(|key| self.stale.contains_key(key));
            }
            Phase::Monitoring(until) => draft.timers.wake(until, Target::Service(self.id)),
            _ => {}
        }
    }
}

fn report_start(goal: &Goal, draft: &mut Draft<'_>) {
    let status = UpdateStatus {
        state: UpdateState::Updating,
        started_at: Some(draft.now),
        completed_at: None,
        message: "update in progress".into(),
    };
    draft.set_update_status(&goal.service, status);
}

/// Ends the update, and says so if somebody asked for it.
fn report_end(update: &mut Update, service: ServiceId, draft: &mut Draft<'_>) {
    update.phase = Phase::Done;
    update.watched.clear();
    if update.is_silent {
        return;
    }
    let Some(service) = draft.service(service) else { return };
    let (state, message) = if update.rolls_back {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    let status = UpdateStatus {
        state,
        started_at: Some(update.started_at),
        completed_at: Some(draft.now),
        message: message.into(),
    };
    draft.set_update_status(&service, status);
}
