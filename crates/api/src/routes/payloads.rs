//! Secrets and configs: the same routes for both.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json as Answered, Router};
use http::StatusCode;
use serde_json::json;
use shoal_manager::control::Filters;
use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::payload::PayloadKind;
use shoal_types::spec::PayloadSpec;

use super::version_of;
use crate::body::Json;
use crate::convert::payload::body;
use crate::error::Answer;
use crate::query::Query;
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    of_kind::<SecretKind>().merge(of_kind::<ConfigKind>())
}

fn of_kind<K: PayloadKind>() -> Router<Api> {
    let path = |end: &str| format!("/{}s{end}", K::NAME);
    Router::new()
        .route(&path(""), get(list::<K>))
        .route(&path("/create"), post(create::<K>))
        .route(&path("/{id}"), get(inspect::<K>).delete(remove::<K>))
        .route(&path("/{id}/update"), post(update::<K>))
}

async fn list<K: PayloadKind>(State(api): State<Api>, query: Query) -> Answer {
    let payloads = api.node.control()?.list_payloads::<K>(&Filters::new(query.filters()?))?;
    Ok(Answered(payloads.iter().map(|p| body(p)).collect::<Vec<_>>()).into_response())
}

async fn create<K: PayloadKind>(State(api): State<Api>, Json(spec): Json<PayloadSpec>) -> Answer {
    let id = api.node.control()?.create_payload::<K>(spec).await?;
    Ok((StatusCode::CREATED, Answered(json!({ "ID": id.as_str() }))).into_response())
}

async fn inspect<K: PayloadKind>(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(Answered(body(&*api.node.control()?.get_payload::<K>(&id)?)).into_response())
}

async fn remove<K: PayloadKind>(State(api): State<Api>, Path(id): Path<String>) -> Answer<StatusCode> {
    api.node.control()?.remove_payload::<K>(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update<K: PayloadKind>(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
    Json(spec): Json<PayloadSpec>,
) -> Answer<StatusCode> {
    let control = api.node.control()?;
    control.update_payload::<K>(&id, version_of(&query, K::NAME)?, spec).await?;
    Ok(StatusCode::OK)
}
