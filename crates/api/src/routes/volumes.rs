//! Volumes of this machine.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use bollard_stubs::models::VolumeCreateRequest;
use http::StatusCode;

use crate::body::Json;
use crate::error::Answer;
use crate::query::Query;
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    Ok(Answered(api.engine.list_volumes(&query.filters()?).await?).into_response())
}

async fn create(State(api): State<Api>, Json(request): Json<VolumeCreateRequest>) -> Answer {
    let volume = api.engine.create_volume(request).await?;
    Ok((StatusCode::CREATED, Answered(volume)).into_response())
}

async fn inspect(State(api): State<Api>, Path(name): Path<String>) -> Answer {
    Ok(Answered(api.engine.inspect_volume(&name).await?).into_response())
}

async fn remove(State(api): State<Api>, Path(name): Path<String>, query: Query) -> Answer<StatusCode> {
    api.engine.remove_volume(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(api): State<Api>, query: Query) -> Answer<Response> {
    Ok(Answered(api.engine.prune_volumes(&query.filters()?).await?).into_response())
}
