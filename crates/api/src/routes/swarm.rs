//! The swarm and this machine's place in it.

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_manager::control::{ClusterUpdate, Rotate};
use shoal_node::{InitRequest, JoinRequest};
use shoal_types::spec::ClusterSpec;

use super::version_of;
use crate::body::Json;
use crate::convert::cluster::{Shown, body};
use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
        .route("/swarm/unlockkey", get(unlock_key))
        .route("/swarm/unlock", post(unlock))
}

async fn inspect(State(api): State<Api>) -> Answer {
    let control = api.node.control()?;
    let (cluster, tls) = (control.get_cluster()?, control.tls_info()?);
    Ok(Answered(body(Shown { cluster: &cluster, tls: &tls }, true)).into_response())
}

async fn init(State(api): State<Api>, Json(request): Json<InitRequest>) -> Answer {
    Ok(Answered(api.node.init(request).await?).into_response())
}

/// Docker answers with nothing. What we have to say on top of that is for those who look.
async fn join(State(api): State<Api>, Json(request): Json<JoinRequest>) -> Answer {
    let joined = api.node.join(request).await?;
    if joined.warnings.is_empty() {
        return Ok(StatusCode::OK.into_response());
    }
    Ok(Answered(json!({ "Warnings": joined.warnings })).into_response())
}

async fn leave(State(api): State<Api>, query: Query) -> Answer<StatusCode> {
    api.node.leave(query.flag("force")).await?;
    Ok(StatusCode::OK)
}

async fn update(State(api): State<Api>, query: Query, Json(spec): Json<ClusterSpec>) -> Answer<StatusCode> {
    let control = api.node.control()?;
    let version = version_of(&query, "swarm")?;
    if spec.name != "default" {
        return Err(ApiError::bad_request("swarm spec must be named \"default\""));
    }
    let rotate = Rotate {
        worker_token: switch(&query, "rotateWorkerToken")?,
        manager_token: switch(&query, "rotateManagerToken")?,
        unlock_key: switch(&query, "rotateManagerUnlockKey")?,
    };
    control.update_cluster(ClusterUpdate { version, spec, rotate }).await?;
    Ok(StatusCode::OK)
}

fn switch(query: &Query, name: &str) -> Answer<bool> {
    match query.get(name) {
        None => Ok(false),
        Some(text) => super::go_bool(text).ok_or_else(|| {
            let reason = format!("strconv.ParseBool: parsing \"{text}\": invalid syntax");
            ApiError::bad_request(format!("invalid value for {name}: {reason}"))
        }),
    }
}

async fn unlock_key(State(api): State<Api>) -> Answer {
    Ok(Answered(json!({ "UnlockKey": api.node.control()?.unlock_key()? })).into_response())
}

/// The body of `POST /swarm/unlock`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UnlockRequest {
    unlock_key: String,
}

async fn unlock(State(api): State<Api>, Json(request): Json<UnlockRequest>) -> Answer<StatusCode> {
    api.node.unlock(&request.unlock_key).await?;
    Ok(StatusCode::OK)
}

/// The `Swarm` member of `GET /info` (swarm-semantics 13.5).
pub(super) async fn info(api: &Api) -> Value {
    let info = api.node.info().await;
    let managers = info.remote_managers.iter().map(|m| json!({ "NodeID": m.node_id, "Addr": m.addr }));
    let mut shown = json!({
        "NodeID": info.node_id.map(|id| id.to_string()).unwrap_or_default(),
        "NodeAddr": info.node_addr,
        "LocalNodeState": info.state.as_str(),
        "ControlAvailable": info.control_available,
        "Error": info.error,
        "RemoteManagers": if info.remote_managers.is_empty() { Value::Null } else { managers.collect() },
    });
    if let Some(known) = info.cluster {
        shown["Nodes"] = known.nodes.into();
        shown["Managers"] = known.managers.into();
        shown["Cluster"] = body(Shown { cluster: &known.cluster, tls: &known.tls }, false);
        if !known.warnings.is_empty() {
            shown["Warnings"] = known.warnings.into();
        }
    }
    shown
}
