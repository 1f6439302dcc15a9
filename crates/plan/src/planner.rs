//! The planner: takes events in, decides which services and nodes to look at, and gives transactions out.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use shoal_types::change::Both;
use shoal_types::spec::{ServiceMode, UpdateState};
use shoal_types::{Event, IdSource, Service, ServiceId, Step, Task, Timestamp, View};

use crate::draft::Draft;
use crate::nodes::Nodes;
use crate::service::ServicePlan;
use crate::slots::SlotKey;
use crate::timers::{Target, Timers};

/// Decides which tasks should exist. One for each term of a leader: dropped with the leadership.
///
/// The contract: every event of the store is given to [`Planner::handle`] in order; [`Planner::step`] is called with a
/// view that has exactly these events in it; its changes are applied as one transaction before it is called again.
#[derive(Debug, Default)]
pub struct Planner {
    has_started: bool,
    services: HashMap<ServiceId, ServicePlan>,
    globals: BTreeSet<ServiceId>,
    nodes: Nodes,
    queue: Queue,
    timers: Timers,
}

/// The services to look at, first come first served.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<ServiceId>,
    queued: HashSet<ServiceId>,
}

impl Planner {
    /// The planner of a leader that has just been elected. Its first step looks at everything there is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what changed. Nothing is decided yet.
    pub fn handle(&mut self, event: &Event) {
        if !self.has_started {
            return; // the first step reads it all from its view
        }
        match event {
            Event::Task(task) => self.handle_task(task),
            Event::Service(service) => self.handle_service(service),
            Event::Node(node) => self.nodes.handle(node),
            Event::Cluster(_) | Event::Secret(_) | Event::Config(_) => {}
        }
    }

    /// Decides what is to be done now, and when to ask again if nothing happens until then.
    pub fn step(&mut self, view: &dyn View, now: Timestamp, ids: &mut dyn IdSource) -> Step {
        if !self.has_started {
            self.has_started = true;
            self.adopt(view);
        }
        self.fire(now);
        let mut draft = Draft::new(view, now, &mut self.timers, ids);
        while !draft.is_full()
            && let Some(id) = self.nodes.pop()
        {
            for task in self.nodes.plan(id, &mut draft) {
                if let Some(plan) = self.services.get_mut(&task.service_id) {
                    plan.touched.insert(plan.key_of(&task));
                    self.queue.push(task.service_id);
                }
            }
            for service in &self.globals {
                touch(&mut self.services, &mut self.queue, *service, SlotKey::Node(id));
            }
        }
        while !draft.is_full()
            && let Some(id) = self.queue.pop()
        {
            let Some(plan) = self.services.get_mut(&id) else { continue };
            if !plan.plan(&mut draft) {
                self.queue.push(id);
            } else if plan.slots.is_empty() && draft.service(id).is_none() {
                self.services.remove(&id);
            }
        }
        let changes = draft.finish();
        let more = !self.queue.order.is_empty() || !self.nodes.is_empty();
        Step { changes, wake_at: if more { Some(now) } else { self.timers.next() } }
    }

    /// Takes over everything that there is.
    fn adopt(&mut self, view: &dyn View) {
        view.nodes().for_each(|n| self.nodes.touch(n.id));
        for service in view.services() {
            self.handle_service(&Both { before: None, after: Some(service.clone()) });
            self.services.entry(service.id).and_modify(|plan| plan.is_taken_over = true);
        }
        for task in view.tasks() {
            self.handle_task(&Both { before: None, after: Some(task.clone()) });
            if let Some(node) = task.node_id.filter(|id| view.node(*id).is_none()) {
                self.nodes.touch(node);
            }
        }
    }

    fn fire(&mut self, now: Timestamp) {
        while let Some(target) = self.timers.pop(now) {
            match target {
                Target::Slot(service, slot) => touch(&mut self.services, &mut self.queue, service, slot),
                Target::Service(service) => self.queue.push(service),
                Target::Node(node) => self.nodes.touch(node),
            }
        }
    }

    fn handle_task(&mut self, task: &Both<Task>) {
        let id = task.latest().service_id;
        let plan = self.services.entry(id).or_insert_with(|| ServicePlan::new(id));
        match &task.after {
            Some(task) => plan.track(task),
            None => plan.forget(task.latest()),
        }
        self.queue.push(id);
    }

    fn handle_service(&mut self, service: &Both<Service>) {
        let id = service.latest().id;
        let plan = self.services.entry(id).or_insert_with(|| ServicePlan::new(id));
        self.queue.push(id);
        let same = service.before.as_ref().zip(service.after.as_ref()).is_some_and(|(b, a)| wants_the_same(b, a));
        if same {
            return;
        }
        plan.touch_all();
        let mode = service.after.as_ref().map(|s| &s.spec.mode);
        // a service is known before its tasks and keeps its mode, so tasks keep their slots
        plan.is_numbered |= mode.is_some_and(|m| m.replicated_job.is_some());
        if mode.is_some_and(ServiceMode::spans_nodes) {
            self.globals.insert(id);
            plan.spans_nodes = true;
        } else {
            self.globals.remove(&id);
        }
    }
}

impl Queue {
    fn push(&mut self, id: ServiceId) {
        if self.queued.insert(id) {
            self.order.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<ServiceId> {
        let id = self.order.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }
}

fn touch(services: &mut HashMap<ServiceId, ServicePlan>, queue: &mut Queue, service: ServiceId, slot: SlotKey) {
    if let Some(plan) = services.get_mut(&service) {
        plan.touched.insert(slot);
        queue.push(service);
    }
}

/// Whether a write to a service leaves the meaning of all of its slots as it was.
fn wants_the_same(before: &Service, after: &Service) -> bool {
    let rolls_back = |s: &Service| s.update_status.as_ref().map(|u| u.state) == Some(UpdateState::RollbackStarted);
    before.spec_version == after.spec_version
        && before.registry_auth == after.registry_auth
        && before.job_status == after.job_status
        && before.spec == after.spec
        && rolls_back(before) == rolls_back(after)
}
