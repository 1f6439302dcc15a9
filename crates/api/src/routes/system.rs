//! The engine itself.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json as Answered, Router};
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderName, HeaderValue};
use serde_json::json;
use shoal_engine::EventsOptions;

use crate::error::Answer;
use crate::lines;
use crate::query::Query;
use crate::state::Api;
use crate::stream::json_lines;
use crate::version::{MAX, MIN};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/_ping", get(ping).head(ping))
        .route("/version", get(engine_version))
        .route("/info", get(info))
        .route("/events", get(events))
        .route("/system/df", get(disk_usage))
}

/// What clients ask first: it must answer whatever state the node is in.
async fn ping(State(api): State<Api>) -> Response {
    let mut response = "OK".into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("builder-version"), HeaderValue::from_static("1"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static(api.node.ping()));
    response
}

async fn engine_version(State(api): State<Api>) -> Answer {
    let mut version = api.engine.version();
    let (newest, oldest) = (Some(MAX.to_string()), Some(MIN.to_string()));
    for component in version.components.iter_mut().flatten() {
        let details = component.details.get_or_insert_default();
        details.insert("ApiVersion".to_owned(), MAX.to_string());
        details.insert("MinAPIVersion".to_owned(), MIN.to_string());
    }
    (version.api_version, version.min_api_version) = (newest, oldest);
    Ok(Answered(version).into_response())
}

async fn info(State(api): State<Api>) -> Answer {
    let mut info = serde_json::to_value(api.engine.info()).expect("plain values always serialise");
    let swarm = super::swarm::info(&api).await;
    if let Some(warnings) = swarm["Warnings"].as_array() {
        let mut all = info["Warnings"].as_array().cloned().unwrap_or_default();
        all.extend(warnings.iter().cloned());
        info["Warnings"] = all.into();
    }
    info["Swarm"] = swarm;
    Ok(Answered(info).into_response())
}

async fn events(State(api): State<Api>, query: Query) -> Answer {
    let options = EventsOptions {
        since: lines::time(&query, "since")?,
        until: lines::time(&query, "until")?,
        filters: query.filters()?,
    };
    // `status`, `id` and `from` are what clients before API 1.22 read, and scripts still do.
    Ok(json_lines(api.engine.events(options)?.map(|event| {
        let legacy = (event.typ == Some(bollard_stubs::models::EventMessageTypeEnum::CONTAINER)).then(|| {
            let actor = event.actor.clone().unwrap_or_default();
            let image = actor.attributes.unwrap_or_default().remove("image").unwrap_or_default();
            (event.action.clone(), actor.id, image)
        });
        let mut body = serde_json::to_value(event).expect("plain values always serialise");
        if let Some((status, id, from)) = legacy {
            (body["status"], body["id"], body["from"]) = (json!(status), json!(id), json!(from));
        }
        body
    })))
}

async fn disk_usage(State(api): State<Api>) -> Answer {
    Ok(Answered(api.engine.disk_usage().await?).into_response())
}
