//! What a service wants its tasks to be: makes new tasks, and tells which of the old ones are up to date
//! (swarm-semantics 2.8).

use std::sync::Arc;

use shoal_types::constraint::{self, Constraint};
use shoal_types::object::TaskStatus;
use shoal_types::spec::{Annotations, EndpointSpec, TaskSpec, UpdateState};
use shoal_types::{Cluster, Id, Meta, Node, Service, Task, TaskState};

use crate::draft::Draft;
use crate::slots::SlotKey;

/// What a service wants its tasks to be. All new tasks share its parts.
#[derive(Debug)]
pub(crate) struct Goal {
    /// The service.
    pub(crate) service: Arc<Service>,
    /// The template of its tasks, with the cluster's defaults.
    pub(crate) spec: Arc<TaskSpec>,
    annotations: Arc<Annotations>,
    endpoint: Option<Arc<EndpointSpec>>,
    constraints: Arc<Constraints>,
}

/// Placement constraints; those that cannot be read admit no node.
#[derive(Debug)]
pub(crate) struct Constraints(Option<Vec<Constraint>>);

impl Goal {
    /// The goal of `service`, sharing what it can with the goal before.
    pub(crate) fn new(service: Arc<Service>, cluster: Option<&Cluster>, before: Option<&Self>) -> Self {
        if let Some(before) = before
            && Arc::ptr_eq(&before.service.spec, &service.spec)
        {
            return Self {
                service,
                spec: before.spec.clone(),
                annotations: before.annotations.clone(),
                endpoint: before.endpoint.clone(),
                constraints: before.constraints.clone(),
            };
        }
        let mut spec = service.spec.task_template.clone();
        if spec.log_driver.is_none() {
            spec.log_driver = cluster.and_then(|c| c.spec.task_defaults.log_driver.clone());
        }
        let annotations = Annotations { name: service.spec.name.clone(), labels: service.spec.labels.clone() };
        let endpoint = service.spec.endpoint_spec.clone().map(Arc::new);
        let constraints = Arc::new(Constraints::of(&spec));
        Self { service, spec: Arc::new(spec), annotations: Arc::new(annotations), endpoint, constraints }
    }

    /// A new task for `slot`.
    pub(crate) fn task(&self, slot: SlotKey, desired_state: TaskState, draft: &mut Draft<'_>) -> Task {
        let now = draft.now;
        let (slot, node_id) = match slot {
            SlotKey::Number(number) => (number, None),
            SlotKey::Node(node) => (0, Some(node)),
        };
        Task {
            id: Id::new(draft.ids),
            meta: Meta { created_at: now, updated_at: now, ..Meta::default() },
            service_id: self.service.id,
            slot,
            node_id,
            annotations: self.annotations.clone(),
            spec: self.spec.clone(),
            spec_version: self.service.spec_version,
            endpoint: self.endpoint.clone(),
            registry_auth: self.service.registry_auth.clone(),
            status: TaskStatus { timestamp: now, message: "created".into(), ..TaskStatus::default() },
            desired_state,
            job_iteration: self.run(),
            assigned_generic: Vec::new(),
        }
    }

    /// Whether `task`, which is on `node`, is what the service wants, so that an update leaves it alone.
    pub(crate) fn is_met_by(&self, task: &Task, node: Option<&Node>) -> bool {
        if self.run().is_some() {
            return task.job_iteration == self.run();
        }
        if task.spec_version == self.service.spec_version {
            return true;
        }
        if task.endpoint != self.endpoint || !self.has_credentials(task) {
            return false;
        }
        Arc::ptr_eq(&task.spec, &self.spec)
            || task.spec == self.spec
            || (node.is_some_and(|n| self.admits(n))
                && TaskSpec { placement: self.spec.placement.clone(), ..(*task.spec).clone() } == *self.spec)
    }

    /// The present run of a job.
    pub(crate) fn run(&self) -> Option<u64> {
        self.service.spec.mode.is_job().then(|| self.service.job_status.map_or(0, |job| job.job_iteration))
    }

    /// What is wanted of a task that may start.
    pub(crate) fn wanted(&self) -> TaskState {
        if self.service.spec.mode.is_job() { TaskState::Complete } else { TaskState::Running }
    }

    /// Whether the constraints of the service let its tasks run on `node`.
    pub(crate) fn admits(&self, node: &Node) -> bool {
        self.constraints.admit(node)
    }

    /// The phase of the update.
    pub(crate) fn phase(&self) -> Option<UpdateState> {
        self.service.update_status.as_ref().map(|s| s.state)
    }

    pub(crate) fn is_rolling_back(&self) -> bool {
        self.phase() == Some(UpdateState::RollbackStarted)
    }

    /// Whether the last thing that happened to the service is a rollback.
    pub(crate) fn is_backward(&self) -> bool {
        use UpdateState::{RollbackCompleted, RollbackPaused, RollbackStarted};
        matches!(self.phase(), Some(RollbackStarted | RollbackPaused | RollbackCompleted))
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.phase(), Some(UpdateState::Paused | UpdateState::RollbackPaused))
    }

    /// Credentials are for pulling: a task that has its image does not need the new ones.
    fn has_credentials(&self, task: &Task) -> bool {
        task.registry_auth == self.service.registry_auth
            || (task.desired_state <= TaskState::Running
                && (TaskState::Ready..=TaskState::Running).contains(&task.status.state))
    }
}

impl Constraints {
    /// Those of a task template.
    pub(crate) fn of(spec: &TaskSpec) -> Self {
        let texts = spec.placement.as_ref().map_or(&[][..], |p| &p.constraints);
        Self(constraint::parse(texts).ok())
    }

    /// Whether `node` satisfies all of them.
    pub(crate) fn admit(&self, node: &Node) -> bool {
        self.0.as_ref().is_some_and(|c| constraint::matches(c, node))
    }
}
