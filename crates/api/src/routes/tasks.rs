//! Tasks.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json as Answered, Router};
use shoal_manager::control::Filters;

use super::service_logs;
use crate::convert::task::body;
use crate::error::Answer;
use crate::query::Query;
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(inspect))
        .route("/tasks/{id}/logs", get(service_logs::of_task))
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    let tasks = api.node.control()?.list_tasks(&Filters::new(query.filters()?))?;
    Ok(Answered(tasks.iter().map(|t| body(t)).collect::<Vec<_>>()).into_response())
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(Answered(body(&*api.node.control()?.get_task(&id)?)).into_response())
}
