//! Tasks.

use serde::Serialize;
use shoal_types::object::{ContainerStatus, TaskStatus};
use shoal_types::spec::{Labels, PortConfig, TaskSpec};
use shoal_types::{GenericResource, NodeId, ServiceId, Task, TaskId, TaskState, Timestamp};

use super::{MetaBody, Version};

/// A task as clients see it: without the service's name, as Docker has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskBody {
    #[serde(rename = "ID")]
    id: TaskId,
    #[serde(flatten)]
    meta: MetaBody,
    labels: Labels,
    spec: TaskSpec,
    #[serde(rename = "ServiceID")]
    service_id: ServiceId,
    #[serde(skip_serializing_if = "shoal_types::json::is_zero")]
    slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    node_id: Option<NodeId>,
    status: TaskStatusBody,
    desired_state: TaskState,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    generic_resources: Vec<GenericResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_iteration: Option<Version>,
    volumes: Option<()>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskStatusBody {
    timestamp: Timestamp,
    state: TaskState,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    err: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_status: Option<ContainerStatus>,
    port_status: PortStatusBody,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortStatusBody {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortConfig>,
}

/// `task` for a client.
pub fn body(task: &Task) -> TaskBody {
    let mut spec = (*task.spec).clone();
    spec.runtime.clear(); // absent in tasks of containers, unlike in services (swarm-semantics 19)
    TaskBody {
        id: task.id,
        meta: task.meta.into(),
        labels: Labels::new(),
        spec,
        service_id: task.service_id,
        slot: task.slot,
        node_id: task.node_id,
        status: status(&task.status),
        desired_state: task.desired_state,
        generic_resources: task.assigned_generic.clone(),
        job_iteration: task.job_iteration.map(|index| Version { index }),
        volumes: None,
    }
}

fn status(status: &TaskStatus) -> TaskStatusBody {
    TaskStatusBody {
        timestamp: status.timestamp,
        state: status.state,
        message: status.message.clone(),
        err: status.err.clone(),
        container_status: status.container.clone(),
        port_status: PortStatusBody { ports: status.ports.clone() },
    }
}
