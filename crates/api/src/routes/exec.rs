//! Processes run in containers.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use bollard_stubs::models::{ExecConfig, ExecStartConfig};
use http::StatusCode;
use serde_json::{Value, json};
use shoal_engine::ExecStartOptions;

use super::io;
use crate::body::{Json, OptionalJson};
use crate::error::Answer;
use crate::loose;
use crate::query::Query;
use crate::state::Api;
use crate::stream::wants_upgrade;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(State(api): State<Api>, Path(id): Path<String>, Json(config): Json<Value>) -> Answer {
    let config: ExecConfig = loose::read(config)?;
    let exec = api.engine.exec_create(&id, config).await?;
    Ok((StatusCode::CREATED, Answered(json!({ "Id": exec }))).into_response())
}

/// The body says how to start; the connection that is taken over carries on after it.
async fn start(State(api): State<Api>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let upgrade = wants_upgrade(&parts.headers);
    let head = Request::from_parts(parts, Body::empty());
    let mut described = Request::new(body);
    *described.headers_mut() = head.headers().clone();
    let OptionalJson(config) =
        <OptionalJson<ExecStartConfig> as axum::extract::FromRequest<()>>::from_request(described, &()).await?;
    let config = config.unwrap_or_default();
    let options = ExecStartOptions { console_size: io::console_size(config.console_size.as_deref()) };
    if config.detach == Some(true) {
        api.engine.exec_start_detached(&id, options).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let attached = api.engine.exec_start(&id, options).await?;
    Ok(io::carry(head, upgrade, attached))
}

async fn resize(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    let (height, width) = io::size(&query)?;
    api.engine.exec_resize(&id, height, width).await?;
    Ok(StatusCode::OK)
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(Answered(api.engine.exec_inspect(&id).await?).into_response())
}
