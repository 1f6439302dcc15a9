//! Services.

use serde::Serialize;
use shoal_types::object::{JobStatus, UpdateStatus};
use shoal_types::spec::{EndpointSpec, PortConfig, ServiceSpec, UpdateState};
use shoal_types::{Service, ServiceId, Timestamp};

use super::defaults::insert_defaults;
use super::{MetaBody, Version};

/// A service as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceBody {
    #[serde(rename = "ID")]
    id: ServiceId,
    #[serde(flatten)]
    meta: MetaBody,
    spec: ServiceSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_spec: Option<ServiceSpec>,
    endpoint: EndpointBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_status: Option<UpdateStatusBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_status: Option<ServiceStatusBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_status: Option<JobStatusBody>,
}

/// Which run of a job this is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobStatusBody {
    job_iteration: Version,
    last_execution: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointBody {
    spec: EndpointSpecBody,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortConfig>,
}

/// `{}` where the service has no endpoint spec.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum EndpointSpecBody {
    Given(EndpointSpec),
    Absent {},
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateStatusBody {
    state: UpdateState,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Timestamp>,
    message: String,
}

/// Counts of a service's tasks (`GET /services?status=true`).
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceStatusBody {
    /// Observed running.
    pub running_tasks: u64,
    /// Wanted.
    pub desired_tasks: u64,
    /// Completed, of the current run of a job.
    pub completed_tasks: u64,
}

/// `service` for a client; with `defaults`, what is not set is filled in for reading.
pub fn body(service: &Service, defaults: bool, status: Option<ServiceStatusBody>) -> ServiceBody {
    let mut spec = (*service.spec).clone();
    if defaults {
        insert_defaults(&mut spec);
    }
    ServiceBody {
        id: service.id,
        meta: service.meta.into(),
        spec,
        previous_spec: service.previous_spec.as_deref().cloned(),
        endpoint: endpoint(&service.spec),
        update_status: service.update_status.as_ref().map(update_status),
        service_status: status,
        job_status: service.job_status.as_ref().map(job_status),
    }
}

fn job_status(status: &JobStatus) -> JobStatusBody {
    JobStatusBody { job_iteration: Version { index: status.job_iteration }, last_execution: status.last_execution }
}

fn endpoint(spec: &ServiceSpec) -> EndpointBody {
    match &spec.endpoint_spec {
        None => EndpointBody { spec: EndpointSpecBody::Absent {}, ports: Vec::new() },
        Some(given) => EndpointBody { ports: given.ports.clone(), spec: EndpointSpecBody::Given(given.clone()) },
    }
}

fn update_status(status: &UpdateStatus) -> UpdateStatusBody {
    UpdateStatusBody {
        state: status.state,
        started_at: status.started_at,
        completed_at: status.completed_at,
        message: status.message.clone(),
    }
}
