//! The plan of one service: its slots, which of them need attention, and the order in which things are decided.
//!
//! Only slots that something happened to are looked at, so the cost is that of the changes, not of the service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use shoal_types::{Service, ServiceId, Task, TaskId, TaskState, Timestamp};

use crate::draft::Draft;
use crate::goal::Goal;
use crate::job::Run;
use crate::restart::{is_over, may_restart};
use crate::slots::{Slot, SlotKey};
use crate::update::{Need, Update};

/// The plan of one service.
#[derive(Debug)]
pub(crate) struct ServicePlan {
    /// Which service.
    pub(crate) id: ServiceId,
    /// The slots with the tasks in them, history included.
    pub(crate) slots: BTreeMap<SlotKey, Vec<TaskId>>,
    /// The slots to look at.
    pub(crate) touched: BTreeSet<SlotKey>,
    /// The slots that count as replicas.
    pub(crate) live: BTreeSet<SlotKey>,
    /// The slots that an update has work in.
    pub(crate) stale: BTreeMap<SlotKey, Need>,
    /// When replacements may start, for those that this leader made.
    pub(crate) starts: HashMap<TaskId, Timestamp>,
    /// The rolling update.
    pub(crate) update: Option<Update>,
    /// The slot whose failure began a rollback: the rollback deals with it, not the restart policy.
    pub(crate) first: Option<SlotKey>,
    /// Every node is to be looked at: the service is global and new, or changed.
    pub(crate) spans_nodes: bool,
    /// Slots go by number alone, also where their tasks are on nodes: the service is a replicated job.
    pub(crate) is_numbered: bool,
    /// The present run, of a job.
    pub(crate) run: Run,
    /// It was there when this leader came, and was not planned since: an update may be under way.
    pub(crate) is_taken_over: bool,
    goal: Option<Arc<Goal>>,
}

/// What a slot is.
enum Class {
    /// A replica, with what an update has to do in it.
    Live(Option<Need>),
    /// Not a replica, though not told to go away.
    Dead,
    /// Not a replica.
    Gone,
}

impl ServicePlan {
    pub(crate) fn new(id: ServiceId) -> Self {
        let (slots, touched, live, stale, starts) = Default::default();
        Self {
            id,
            slots,
            touched,
            live,
            stale,
            starts,
            update: None,
            first: None,
            spans_nodes: false,
            is_numbered: false,
            run: Run::default(),
            is_taken_over: false,
            goal: None,
        }
    }

    /// Notes that `task` exists.
    pub(crate) fn track(&mut self, task: &Task) {
        let key = self.key_of(task);
        let ids = self.slots.entry(key).or_default();
        if !ids.contains(&task.id) {
            ids.push(task.id);
        }
        self.touched.insert(key);
    }

    /// The slot that `task` is in.
    pub(crate) fn key_of(&self, task: &Task) -> SlotKey {
        SlotKey::of(task, self.is_numbered)
    }

    /// Notes that `task` is no more.
    pub(crate) fn forget(&mut self, task: &Task) {
        let key = self.key_of(task);
        if let Some(ids) = self.slots.get_mut(&key) {
            ids.retain(|id| *id != task.id);
            if ids.is_empty() {
                self.slots.remove(&key);
            }
        }
        self.starts.remove(&task.id);
        self.touched.insert(key);
    }

    /// Looks at every slot.
    pub(crate) fn touch_all(&mut self) {
        self.touched.extend(self.slots.keys());
    }

    /// Plans what there is to plan. Returns false where it stopped because the transaction is full.
    pub(crate) fn plan(&mut self, draft: &mut Draft<'_>) -> bool {
        let Some(service) = draft.service(self.id) else { return self.clear(draft) };
        if std::mem::take(&mut self.spans_nodes) {
            self.touched.extend(draft.view.nodes().map(|n| SlotKey::Node(n.id)));
        }
        let mut goal = self.goal(service, draft);
        if goal.service.spec.mode.is_job() {
            return self.plan_job(&goal, draft);
        }
        // failures come first: a rollback or a pause changes what everything below works towards
        if self.watch(&goal, draft)
            && let Some(service) = draft.service(self.id)
        {
            goal = self.goal(service, draft);
        }
        while let Some(key) = self.touched.pop_first() {
            self.settle(key, &goal, draft);
            if draft.is_full() {
                return false;
            }
        }
        let scaled = goal.service.spec.mode.is_global() || self.scale(&goal, draft);
        let driven = scaled && self.drive(&goal, draft);
        self.is_taken_over &= !driven;
        driven
    }

    /// The slot as it will be.
    pub(crate) fn slot(&self, key: SlotKey, draft: &Draft<'_>) -> Slot {
        let ids = self.slots.get(&key).map_or(&[][..], Vec::as_slice);
        Slot::new(key, ids.iter().filter_map(|id| draft.task(*id)).collect())
    }

    /// Creates a task.
    pub(crate) fn create(&mut self, key: SlotKey, desired: TaskState, goal: &Goal, draft: &mut Draft<'_>) -> TaskId {
        let task = goal.task(key, desired, draft);
        let id = task.id;
        self.slots.entry(key).or_default().push(id);
        self.live.insert(key);
        draft.create(task);
        id
    }

    fn goal(&mut self, service: Arc<Service>, draft: &Draft<'_>) -> Arc<Goal> {
        let goal = match self.goal.take() {
            Some(goal) if Arc::ptr_eq(&goal.service, &service) => goal,
            before => Arc::new(Goal::new(service, draft.view.cluster().map(|c| &**c), before.as_deref())),
        };
        self.goal.insert(goal).clone()
    }

    /// Decides everything that concerns one slot alone.
    fn settle(&mut self, key: SlotKey, goal: &Goal, draft: &mut Draft<'_>) {
        if self.is_at_ease(key, goal, draft) {
            return self.note(key, Class::Live(None));
        }
        let mut slot = self.slot(key, draft);
        let mut seen = draft.len();
        if self.first != Some(key) {
            match key {
                SlotKey::Number(_) => self.heal(&slot, goal, draft),
                SlotKey::Node(node) => self.settle_on(node, &slot, goal, draft),
            }
        }
        self.refresh(&mut slot, &mut seen, draft);
        self.promote(&slot, goal, draft);
        self.advance(&slot, goal, draft);
        self.refresh(&mut slot, &mut seen, draft);
        let class = self.classify(&slot, goal, draft);
        if matches!((&class, key), (Class::Dead, SlotKey::Number(_))) {
            slot.tasks.iter().for_each(|t| draft.desire(t, TaskState::Remove));
            self.refresh(&mut slot, &mut seen, draft);
        }
        self.note(key, class);
        Self::reap(&slot, draft);
        Self::trim(&slot, &goal.spec, draft);
    }

    /// Whether the slot has one task, which is as it should be. So are most, most of the time.
    fn is_at_ease(&self, key: SlotKey, goal: &Goal, draft: &Draft<'_>) -> bool {
        let Some([id]) = self.slots.get(&key).map(Vec::as_slice) else { return false };
        let Some(task) = draft.task(*id) else { return false };
        let node = task.node_id.and_then(|id| draft.view.node(id)).map(|n| &**n);
        task.desired_state == TaskState::Running
            && !is_over(&task, draft.view)
            && goal.is_met_by(&task, node)
            && (matches!(key, SlotKey::Number(_)) || node.is_some_and(|n| goal.admits(n)))
            && !self.update.as_ref().is_some_and(|update| update.is_busy_with(key))
    }

    fn refresh(&self, slot: &mut Slot, seen: &mut usize, draft: &Draft<'_>) {
        if *seen != draft.len() {
            *slot = self.slot(slot.key, draft);
            *seen = draft.len();
        }
    }

    fn classify(&self, slot: &Slot, goal: &Goal, draft: &Draft<'_>) -> Class {
        let is_met = |t: &Task| goal.is_met_by(t, t.node_id.and_then(|id| draft.view.node(id)).map(|n| &**n));
        let live: Vec<_> = slot.live().collect();
        if live.is_empty() {
            return match slot.newest() {
                Some(newest) if newest.desired_state != TaskState::Remove => match rests(slot, goal) {
                    true if self.is_open(slot.key, goal, draft) && !is_met(newest) => {
                        Class::Live(Some(Need::Replace { crowded: false }))
                    }
                    true => Class::Live(None),
                    false => Class::Dead,
                },
                _ => Class::Gone,
            };
        }
        if !self.is_open(slot.key, goal, draft) || (live.len() == 1 && is_met(live[0])) {
            return Class::Live(None);
        }
        let usable = live.iter().filter(|t| !t.status.state.is_terminal() && is_met(t));
        let need = match usable.map(|t| t.status.state).max() {
            Some(state) => Need::Trim { runs: state == TaskState::Running },
            None => Need::Replace { crowded: live.len() > 1 },
        };
        Class::Live(Some(need))
    }

    fn note(&mut self, key: SlotKey, class: Class) {
        let (live, need) = match class {
            Class::Live(need) => (true, need),
            Class::Dead | Class::Gone => (false, None),
        };
        if live {
            self.live.insert(key);
        } else {
            self.live.remove(&key);
        }
        match need {
            Some(need) => self.stale.insert(key, need),
            None => self.stale.remove(&key),
        };
        if let Some(update) = &mut self.update {
            update.note(key, need);
        }
    }

    /// Removes a slot: stops its tasks, then forgets them.
    pub(crate) fn drop_slot(&mut self, key: SlotKey, draft: &mut Draft<'_>) {
        for task in self.slot(key, draft).tasks {
            draft.desire(&task, TaskState::Remove);
        }
        Self::reap(&self.slot(key, draft), draft);
        self.note(key, Class::Gone);
    }

    /// The service is gone: so go all of its tasks.
    fn clear(&mut self, draft: &mut Draft<'_>) -> bool {
        self.update = None;
        while let Some(key) = self.touched.pop_first() {
            self.drop_slot(key, draft);
            if draft.is_full() {
                return false;
            }
        }
        true
    }
}

/// Whether a slot without a wanted task is to stay so, and still counts as a replica: its last task ended, and the
/// restart policy lets it rest. Not during a rollback: what the rolled back spec left at rest is to come back.
/// On a node, only what ended by itself rests: what was stopped because the node went away comes back with it.
pub(crate) fn rests(slot: &Slot, goal: &Goal) -> bool {
    let Some(newest) = slot.newest() else { return false };
    let ended = matches!(newest.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
    !goal.is_rolling_back()
        && newest.desired_state != TaskState::Remove
        && (ended || matches!(slot.key, SlotKey::Number(_)))
        && !may_restart(newest, slot)
}
