//! Writes to the store as values, and what they did as events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::object::{Cluster, Node, Service, Task, TaskStatus};
use crate::payload::{Config, Secret};
use crate::{
    ClusterId, ConfigId, GenericResource, NodeId, RequestId, SecretId, ServiceId, TaskId, TaskState, Timestamp,
};

/// An object of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
}

/// Names an object of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectKind {
    /// The cluster.
    Cluster(ClusterId),
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

/// One write. A list of them is applied whole or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Creates or replaces the object; its `meta` is stamped when applied.
    Put(Object),
    /// Changes parts of a task; nothing where the task is gone.
    Patch(TaskPatch),
    /// Removes the object; nothing where it is gone.
    Remove(ObjectKind),
    /// Says what came of a client's request; nothing where that was said already. No event tells of it.
    Settle(Settled),
}

/// What came of a client's request. Whoever asks the same again, not having heard the answer, gets this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The request.
    pub request: RequestId,
    /// The answer or refusal, in the form of whoever wrote it.
    pub outcome: Arc<str>,
}

/// The parts of a task that change in its life. Most writes are this, so it is small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskPatch {
    /// The task.
    pub id: TaskId,
    /// The node it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// What it is given of the node's generic resources; comes with the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assigned_generic: Vec<GenericResource>,
    /// The new desired state; ignored if lower than the stored one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<TaskState>,
    /// The new status; ignored if its state is lower than the stored one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
}

/// What a write did to one object: no `before` for a creation, no `after` for a removal.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To the cluster.
    Cluster(Both<Cluster>),
    /// To a node.
    Node(Both<Node>),
    /// To a service.
    Service(Both<Service>),
    /// To a task.
    Task(Both<Task>),
    /// To a secret.
    Secret(Both<Secret>),
    /// To a config.
    Config(Both<Config>),
}

/// An object before and after a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Both<T> {
    /// As it was.
    pub before: Option<Arc<T>>,
    /// As it is.
    pub after: Option<Arc<T>>,
}

/// What a pure core wants done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// One transaction.
    pub changes: Vec<Change>,
    /// When to ask again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

// === impl TaskPatch ===

impl TaskPatch {
    /// A patch that changes nothing yet.
    pub fn of(id: TaskId) -> Self {
        Self { id, node_id: None, assigned_generic: Vec::new(), desired_state: None, status: None }
    }

    /// Wants the task in `state`.
    pub fn desire(id: TaskId, state: TaskState) -> Change {
        Change::Patch(Self { desired_state: Some(state), ..Self::of(id) })
    }

    /// Whether anything of `task` would be another with the patch applied.
    pub fn changes(&self, task: &Task) -> bool {
        self.node_id.is_some_and(|node| task.node_id != Some(node))
            || (!self.assigned_generic.is_empty() && self.assigned_generic != task.assigned_generic)
            || self.desired_state.is_some_and(|state| state > task.desired_state)
            || self.status.as_ref().is_some_and(|s| s.state >= task.status.state && *s != task.status)
    }

    /// `task` with the patch applied: desired and observed states only ever grow.
    pub fn apply(&self, task: &Task) -> Task {
        let mut task = task.clone();
        if let Some(node) = self.node_id {
            task.node_id = Some(node);
        }
        if !self.assigned_generic.is_empty() {
            task.assigned_generic.clone_from(&self.assigned_generic);
        }
        task.desired_state = task.desired_state.max(self.desired_state.unwrap_or_default());
        if let Some(status) = &self.status
            && status.state >= task.status.state
        {
            task.status = status.clone();
        }
        task
    }
}

// === impl Both ===

impl<T> Both<T> {
    /// The object as it is, or as it was when it is gone.
    pub fn latest(&self) -> &Arc<T> {
        self.after.as_ref().or(self.before.as_ref()).expect("an event has at least one side")
    }
}
