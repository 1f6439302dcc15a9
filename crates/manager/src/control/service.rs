//! Services: create, read, update, roll back, remove.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_raft::Tx;
use shoal_store::resolve;
use shoal_types::object::{JobStatus, UpdateStatus};
use shoal_types::spec::{ServiceSpec, UpdateState};
use shoal_types::{Change, Meta, Object, ObjectKind, Refusal, Service, ServiceId, TaskState, View, validate};

use super::{Control, Filters, Halt, Here, Request};
use crate::ids::RandomIds;

/// What a client wants of an update besides the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUpdate {
    /// The version that the client has seen.
    pub version: u64,
    /// `X-Registry-Auth`, where it came with the request.
    pub registry_auth: Option<Arc<str>>,
    /// Where the credentials come from if it did not.
    pub registry_auth_from: AuthFrom,
    /// Goes back to the previous spec; that of the request is only checked.
    pub is_rollback: bool,
}

/// Where the credentials of a service come from when a request has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthFrom {
    /// Those of the present spec.
    #[default]
    Spec,
    /// Those of the previous spec.
    PreviousSpec,
}

/// How many tasks of a service run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Tasks that are observed running.
    pub running_tasks: u64,
    /// Replicas; of global services, the tasks that are desired running; of jobs, how many run at a time, or the tasks of
    /// the present run that have not ended well.
    pub desired_tasks: u64,
    /// Of jobs only.
    pub completed_tasks: u64,
}

impl Control {
    /// Makes a service. The name must be given.
    ///
    /// # Errors
    /// What `validate::service` refuses; `name conflicts with an existing object: …`.
    pub async fn create_service(&self, spec: ServiceSpec, auth: Option<Arc<str>>) -> Result<ServiceId, Refusal> {
        self.ask(Request::CreateService { spec: Box::new(spec), auth }).await
    }

    /// The service that `input` means.
    ///
    /// # Errors
    /// `service … not found`, `service … is ambiguous (… matches found)`.
    pub fn get_service(&self, input: &str) -> Result<Arc<Service>, Refusal> {
        resolve::service(&self.snapshot(), input).cloned()
    }

    /// The services that `filters` let through, in the order of identifiers.
    ///
    /// # Errors
    /// `invalid filter '…'`.
    pub fn list_services(&self, filters: &Filters) -> Result<Vec<Arc<Service>>, Refusal> {
        filters.accept(&["id", "name", "label", "mode", "runtime"])?;
        let view = self.snapshot();
        let fits = |s: &&Arc<Service>| {
            filters.prefix("id", s.id.as_str())
                && filters.prefix("name", &s.spec.name)
                && filters.labels("label", &s.spec.labels)
                && filters.exact("mode", s.spec.mode.name())
                && is_runtime(filters, &s.spec.task_template.runtime)
        };
        Ok(view.services().filter(fits).cloned().collect())
    }

    /// How many tasks of the service run.
    pub fn service_status(&self, service: &Service) -> ServiceStatus {
        let view = self.snapshot();
        let count = |fits: &dyn Fn(&shoal_types::Task) -> bool| {
            u64::try_from(view.tasks_of(service.id).filter(|t| fits(t)).count()).unwrap_or(u64::MAX)
        };
        let run = service.job_status.map(|job| job.job_iteration);
        let of_run = |t: &shoal_types::Task| run.is_some() && t.job_iteration == run;
        let is_done = |t: &shoal_types::Task| t.status.state == TaskState::Complete;
        let mode = &service.spec.mode;
        ServiceStatus {
            running_tasks: count(&|t| t.status.state == TaskState::Running),
            desired_tasks: if mode.is_global() {
                count(&|t| t.desired_state == TaskState::Running)
            } else if mode.global_job.is_some() {
                count(&|t| of_run(t) && t.desired_state == TaskState::Complete && !is_done(t))
            } else {
                mode.replicas() + mode.job_counts().0
            },
            completed_tasks: count(&|t| of_run(t) && is_done(t)),
        }
    }

    /// Changes the service that `input` means.
    ///
    /// # Errors
    /// What `validate::service_update` refuses; `service … not found`; `update out of sequence`; `service … does not have a
    /// previous spec`.
    pub async fn update_service(&self, input: &str, spec: ServiceSpec, update: ServiceUpdate) -> Result<(), Refusal> {
        let (input, spec) = (input.to_owned(), Box::new(spec));
        self.ask(Request::UpdateService { input, spec, update }).await
    }

    /// Removes the service that `input` means. Its tasks follow.
    ///
    /// # Errors
    /// `service … not found`, `service … is ambiguous (… matches found)`.
    pub async fn remove_service(&self, input: &str) -> Result<(), Refusal> {
        self.ask(Request::RemoveService { input: input.to_owned() }).await
    }
}

impl Here {
    pub(super) async fn create_service(&self, spec: ServiceSpec, auth: Option<Arc<str>>) -> Result<ServiceId, Halt> {
        validate::service(&spec)?;
        let mut service = Service {
            id: ServiceId::new(&mut RandomIds),
            meta: Meta::default(),
            spec: Arc::new(validate::normal_service(spec)),
            previous_spec: None,
            spec_version: 0,
            previous_spec_version: None,
            registry_auth: auth,
            previous_registry_auth: None,
            update_status: None,
            job_status: None,
        };
        service.job_status = next_run(&service);
        self.write(move |tx| {
            let id = service.id;
            validate::references_exist(tx, &service.spec)?;
            tx.change(Change::Put(Object::Service(Arc::new(service))))?;
            Ok(id)
        })
        .await
    }

    pub(super) async fn update_service(
        &self,
        input: &str,
        spec: ServiceSpec,
        update: ServiceUpdate,
    ) -> Result<(), Halt> {
        let id = resolve::service(&self.raft.snapshot(), input)?.id;
        validate::service(&spec)?;
        self.write(move |tx| {
            let before = tx.service(id).ok_or_else(|| not_found(id))?;
            let after =
                if update.is_rollback { rolled_back(before, &update)? } else { updated(before, spec, &update)? };
            // Docker does not look at what a rollback brings back, and its tasks fail
            validate::references_exist(tx, &after.spec)?;
            if !before.meta.is_current(update.version) {
                return Err(Refusal::out_of_sequence());
            }
            Ok(tx.change(Change::Put(Object::Service(Arc::new(after))))?)
        })
        .await
    }

    pub(super) async fn remove_service(&self, input: &str) -> Result<(), Halt> {
        let id = resolve::service(&self.raft.snapshot(), input)?.id;
        self.write(move |tx: &mut Tx| {
            tx.service(id).ok_or_else(|| not_found(id))?;
            Ok(tx.change(Change::Remove(ObjectKind::Service(id)))?)
        })
        .await
    }
}

fn not_found(id: ServiceId) -> Refusal {
    Refusal::new(shoal_types::RefusalKind::NotFound, format!("service {id} not found"))
}

fn updated(before: &Service, spec: ServiceSpec, update: &ServiceUpdate) -> Result<Service, Refusal> {
    validate::service_update(&before.spec, &spec)?;
    let registry_auth = match (&update.registry_auth, update.registry_auth_from) {
        (Some(auth), _) => Some(auth.clone()),
        (None, AuthFrom::Spec) => before.registry_auth.clone(),
        (None, AuthFrom::PreviousSpec) if before.previous_spec.is_none() => {
            let text = "service does not have a previous spec";
            return Err(Refusal::engine(shoal_types::RefusalKind::Unknown, text));
        }
        (None, AuthFrom::PreviousSpec) => before.previous_registry_auth.clone(),
    };
    Ok(Service {
        job_status: next_run(before),
        spec: Arc::new(validate::normal_service(spec)),
        previous_spec: Some(before.spec.clone()),
        spec_version: update.version,
        previous_spec_version: Some(before.spec_version),
        registry_auth,
        previous_registry_auth: before.registry_auth.clone(),
        update_status: None,
        ..before.clone()
    })
}

/// The present and the previous spec change places, so a second rollback undoes the first.
fn rolled_back(before: &Service, update: &ServiceUpdate) -> Result<Service, Refusal> {
    let none = || Refusal::invalid(format!("service {} does not have a previous spec", before.id));
    let spec = before.previous_spec.clone().ok_or_else(none)?;
    Ok(Service {
        job_status: next_run(before),
        spec,
        previous_spec: Some(before.spec.clone()),
        spec_version: before.previous_spec_version.unwrap_or(0),
        previous_spec_version: Some(before.spec_version),
        registry_auth: update.registry_auth.clone().or_else(|| before.previous_registry_auth.clone()),
        previous_registry_auth: before.registry_auth.clone(),
        // a job runs anew as a whole: nothing rolls
        update_status: (!before.spec.mode.is_job()).then(|| UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: Some(shoal_ambient::now()),
            completed_at: None,
            message: "manually requested rollback".to_owned(),
        }),
        ..before.clone()
    })
}

/// A job that is made or changed in any way runs, from the beginning.
fn next_run(service: &Service) -> Option<JobStatus> {
    let job_iteration = service.job_status.map_or(0, |job| job.job_iteration + 1);
    service.spec.mode.is_job().then(|| JobStatus { job_iteration, last_execution: shoal_ambient::now() })
}

/// Whether the runtime is asked for; containers are where nothing is said.
pub(super) fn is_runtime(filters: &Filters, runtime: &str) -> bool {
    let runtime = if runtime.is_empty() { "container" } else { runtime };
    match filters.values("runtime") {
        [] => runtime == "container",
        values => values.iter().any(|v| v == runtime || (v.is_empty() && runtime == "container")),
    }
}
