//! Nodes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use http::StatusCode;
use serde_json::Value;
use shoal_manager::control::{Control, Filters};
use shoal_types::Node;
use shoal_types::spec::NodeSpec;

use super::version_of;
use crate::body::Json;
use crate::convert::node::body;
use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{id}", get(inspect).delete(remove))
        .route("/nodes/{id}/update", post(update))
}

fn shown(control: &Control, node: &Arc<Node>) -> Value {
    let node = &*control.seen(node);
    let managing = control.manager_status(node.id);
    serde_json::to_value(body(node, managing.as_ref())).expect("plain values always serialise")
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    let control = api.node.control()?;
    let nodes = control.list_nodes(&Filters::new(query.filters()?))?;
    Ok(Answered(nodes.iter().map(|n| shown(&control, n)).collect::<Vec<_>>()).into_response())
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let control = api.node.control()?;
    Ok(Answered(shown(&control, &control.get_node(&id)?)).into_response())
}

async fn remove(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    api.node.control()?.remove_node(&id, query.flag("force")).await?;
    Ok(StatusCode::OK)
}

/// Role and availability must be said: leaving one out must not demote or activate a node.
async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
    Json(given): Json<Value>,
) -> Answer<StatusCode> {
    let control = api.node.control()?;
    let version = version_of(&query, "node")?;
    for (field, known) in [("Role", &["worker", "manager"][..]), ("Availability", &["active", "pause", "drain"])] {
        let said = given.get(field).and_then(Value::as_str).unwrap_or_default();
        if !known.contains(&said) {
            return Err(ApiError::bad_request(format!("invalid {field}: {said:?}")));
        }
    }
    let spec: NodeSpec =
        serde_json::from_value(given).map_err(|e| ApiError::bad_request(format!("invalid JSON: {e}")))?;
    control.update_node(&id, version, spec).await?;
    Ok(StatusCode::OK)
}
