//! The routes, one module per kind of object. A handler parses, calls and answers; it decides nothing.

mod containers;
mod exec;
mod images;
mod io;
mod missing;
mod networks;
mod nodes;
mod payloads;
mod service_logs;
mod services;
mod swarm;
mod system;
mod tasks;
mod volumes;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::state::Api;

/// All routes, without their version prefix.
pub fn router(api: Api) -> Router {
    Router::new()
        .merge(system::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(volumes::routes())
        .merge(networks::routes())
        .merge(cluster(&api))
        .merge(missing::routes())
        .fallback(missing::fallback)
        .method_not_allowed_fallback(missing::fallback)
        .with_state(api)
}

/// What every manager answers alike.
fn cluster(api: &Api) -> Router<Api> {
    Router::new()
        .merge(swarm::routes())
        .merge(nodes::routes())
        .merge(services::routes())
        .merge(tasks::routes())
        .merge(payloads::routes())
        .route_layer(middleware::from_fn_with_state(api.clone(), catch_up))
}

/// A client reads what any manager has answered before, also where it has turned to another one.
async fn catch_up(State(api): State<Api>, request: Request, next: Next) -> Response {
    if request.method().is_safe()
        && let Ok(control) = api.node.control()
    {
        control.catch_up().await;
    }
    next.run(request).await
}

/// The `version` that an update of a swarm object must present.
///
/// # Errors
/// 400 with Docker's text, which is Go's, where it is missing or no number.
fn version_of(query: &Query, kind: &str) -> Answer<u64> {
    let text = query.get("version").unwrap_or_default();
    text.parse().map_err(|_| {
        let reason = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        ApiError::bad_request(format!("invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: {reason}"))
    })
}

/// What Go takes for a boolean.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
