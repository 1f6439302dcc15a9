//! Networks of this machine.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use http::StatusCode;

use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::state::Api;

/// The three networks that every engine has: they can neither be made nor removed.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(connect))
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    Ok(Answered(api.engine.list_networks(&query.filters()?)?).into_response())
}

/// Clients ask with `scope=swarm` before they give a service a network: the networks that every node has are of both
/// scopes.
async fn inspect(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    let mut network = api.engine.inspect_network(&id)?;
    match query.get("scope") {
        None | Some("local") => {}
        Some("swarm") => network.scope = Some("swarm".to_owned()),
        Some(_) => return Err(ApiError::not_found(format!("network {id} not found"))),
    }
    Ok(Answered(network).into_response())
}

async fn create() -> Answer {
    Err(ApiError::unsupported("creating networks"))
}

async fn connect() -> Answer {
    Err(ApiError::unsupported("connecting a container to another network"))
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let network = api.engine.inspect_network(&id)?;
    let name = network.name.unwrap_or_default();
    if PREDEFINED.contains(&name.as_str()) {
        let message = format!("{name} is a pre-defined network and cannot be removed");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Err(ApiError::unsupported("removing networks"))
}

/// There are only predefined networks, and these stay.
async fn prune() -> Answer {
    Ok(Answered(serde_json::json!({ "NetworksDeleted": null })).into_response())
}
