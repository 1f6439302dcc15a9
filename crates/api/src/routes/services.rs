//! Services.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use shoal_manager::control::{AuthFrom, Filters, ServiceUpdate};
use shoal_types::spec::ServiceSpec;

use super::{service_logs, version_of};
use crate::body::Json;
use crate::convert::service::{ServiceStatusBody, body};
use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{id}", get(inspect).delete(remove))
        .route("/services/{id}/update", post(update))
        .route("/services/{id}/logs", get(service_logs::of_service))
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    let control = api.node.control()?;
    let with_status = match query.get("status") {
        None => false,
        Some(text) => super::go_bool(text).ok_or_else(|| {
            let reason = format!("strconv.ParseBool: parsing \"{text}\": invalid syntax");
            ApiError::bad_request(format!("invalid value for status: {text}: {reason}"))
        })?,
    };
    let services = control.list_services(&Filters::new(query.filters()?))?;
    let status = |service| {
        let status = control.service_status(service);
        ServiceStatusBody {
            running_tasks: status.running_tasks,
            desired_tasks: status.desired_tasks,
            completed_tasks: status.completed_tasks,
        }
    };
    let bodies: Vec<_> = services.iter().map(|s| body(s, false, with_status.then(|| status(s)))).collect();
    Ok(Answered(bodies).into_response())
}

async fn create(State(api): State<Api>, headers: HeaderMap, Json(mut spec): Json<ServiceSpec>) -> Answer {
    let control = api.node.control()?;
    name_networks(&api, &mut spec)?;
    if spec.name.is_empty() {
        spec.name = shoal_engine::random_name();
    }
    let id = control.create_service(spec, auth(&headers)?).await?;
    Ok((StatusCode::CREATED, Answered(json!({ "ID": id }))).into_response())
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    let service = api.node.control()?.get_service(&id)?;
    Ok(Answered(body(&service, query.flag("insertDefaults"), None)).into_response())
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Answer<StatusCode> {
    api.node.control()?.remove_service(&id).await?;
    Ok(StatusCode::OK)
}

async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    Json(mut spec): Json<ServiceSpec>,
) -> Answer {
    let control = api.node.control()?;
    name_networks(&api, &mut spec)?;
    let update = ServiceUpdate {
        version: version_of(&query, "service")?,
        registry_auth: auth(&headers)?,
        registry_auth_from: match query.get("registryAuthFrom") {
            None | Some("spec") => AuthFrom::Spec,
            Some("previous-spec") => AuthFrom::PreviousSpec,
            Some(other) => return Err(ApiError::bad_request(format!("invalid registryAuthFrom '{other}'"))),
        },
        is_rollback: match query.get("rollback") {
            None | Some("none") => false,
            Some("previous") => true,
            Some(other) => return Err(ApiError::internal(format!("unrecognized rollback option {other}"))),
        },
    };
    control.update_service(&id, spec, update).await?;
    Ok(Answered(json!({ "Warnings": null })).into_response())
}

/// Clients look a network up first and then name it by its identifier. The networks that every node has go by name: their
/// identifiers differ from node to node.
///
/// # Errors
/// 500 where there is no such network: Docker gives this error no class, and clients rely on it (swarm-semantics 13.7).
fn name_networks(api: &Api, spec: &mut ServiceSpec) -> Answer<()> {
    for network in spec.task_template.networks.iter_mut().chain(&mut spec.networks) {
        match api.engine.inspect_network(&network.target) {
            Ok(found) => network.target = found.name.unwrap_or_default(),
            Err(_) => return Err(ApiError::internal(format!("network {} not found", network.target))),
        }
    }
    Ok(())
}

/// Credentials as they came: they are for the nodes' pulls, and only checked here.
fn auth(headers: &HeaderMap) -> Answer<Option<Arc<str>>> {
    super::images::registry_auth(headers)?;
    let text = headers.get("x-registry-auth").and_then(|v| v.to_str().ok()).filter(|t| !t.is_empty());
    Ok(text.map(Arc::from))
}
