//! Containers.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{any, delete, get, post};
use axum::{Json as Answered, Router};
use bollard_stubs::models::{ContainerCreateBody, ContainerUpdateBody};
use http::StatusCode;
use serde_json::{Value, json};
use shoal_engine::{ListOptions, RemoveOptions, StopOptions, WaitCondition};

use super::io;
use crate::body::Json;
use crate::error::{Answer, ApiError};
use crate::loose;
use crate::query::Query;
use crate::state::Api;
use crate::version::ApiVersion;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/logs", get(io::logs))
        .route("/containers/{id}/attach", post(io::attach))
        .route("/containers/{id}/attach/ws", any(|| missing("attaching over a web socket")))
        .route("/containers/{id}/stats", any(|| missing("docker stats")))
        .route("/containers/{id}/changes", any(|| missing("docker diff")))
        .route("/containers/{id}/export", any(|| missing("docker export")))
        .route("/containers/{id}/archive", any(|| missing("docker cp")))
}

async fn missing(what: &'static str) -> ApiError {
    ApiError::unsupported(what)
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    let options = ListOptions {
        all: query.flag("all"),
        limit: query.number("limit")?,
        size: query.flag("size"),
        filters: query.filters()?,
    };
    Ok(Answered(api.engine.list(options).await?).into_response())
}

async fn create(State(api): State<Api>, query: Query, Json(body): Json<Value>) -> Answer {
    let body: ContainerCreateBody = loose::read(body)?;
    let created = api.engine.create(query.get("name"), query.get("platform"), body).await?;
    let answer = json!({ "Id": created.id, "Warnings": created.warnings });
    Ok((StatusCode::CREATED, Answered(answer)).into_response())
}

async fn inspect(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
    Extension(version): Extension<ApiVersion>,
) -> Answer {
    let container = api.engine.inspect(&id, query.flag("size")).await?;
    let mut body = serde_json::to_value(container).expect("plain values always serialise");
    if version < ApiVersion(1, 52) {
        add_default_network(&mut body["NetworkSettings"]);
    }
    Ok(Answered(body).into_response())
}

/// Before version 1.52 the addresses on the default bridge stood beside the list of networks, too, and scripts read them
/// there.
fn add_default_network(settings: &mut Value) {
    let bridge = settings["Networks"]["bridge"].clone();
    let Some(settings) = settings.as_object_mut() else { return };
    for (field, absent) in [
        ("EndpointID", json!("")),
        ("Gateway", json!("")),
        ("GlobalIPv6Address", json!("")),
        ("GlobalIPv6PrefixLen", json!(0)),
        ("IPAddress", json!("")),
        ("IPPrefixLen", json!(0)),
        ("IPv6Gateway", json!("")),
        ("MacAddress", json!("")),
    ] {
        let value = bridge.get(field).filter(|v| !v.is_null()).cloned().unwrap_or(absent);
        settings.insert(field.to_owned(), value);
    }
    for (field, value) in [
        ("Bridge", json!("")),
        ("HairpinMode", json!(false)),
        ("LinkLocalIPv6Address", json!("")),
        ("LinkLocalIPv6PrefixLen", json!(0)),
        ("SecondaryIPAddresses", Value::Null),
        ("SecondaryIPv6Addresses", Value::Null),
    ] {
        settings.insert(field.to_owned(), value);
    }
}

async fn start(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    if query.get("checkpoint").is_some() {
        return Err(ApiError::unsupported("starting from a checkpoint"));
    }
    api.engine.start(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn stop_options(query: &Query) -> Answer<StopOptions> {
    Ok(StopOptions { signal: query.get("signal").map(str::to_owned), timeout: query.number("t")? })
}

async fn stop(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    api.engine.stop(&id, stop_options(&query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    api.engine.restart(&id, stop_options(&query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    api.engine.kill(&id, query.get("signal")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(State(api): State<Api>, Path(id): Path<String>) -> Answer<StatusCode> {
    api.engine.pause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause(State(api): State<Api>, Path(id): Path<String>) -> Answer<StatusCode> {
    api.engine.unpause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rename(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    api.engine.rename(&id, query.get("name").unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update(State(api): State<Api>, Path(id): Path<String>, Json(body): Json<ContainerUpdateBody>) -> Answer {
    Ok(Answered(api.engine.update(&id, body).await?).into_response())
}

async fn resize(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    let (height, width) = io::size(&query)?;
    api.engine.resize(&id, height, width).await?;
    Ok(StatusCode::OK)
}

async fn top(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    Ok(Answered(api.engine.top(&id, query.get("ps_args")).await?).into_response())
}

async fn remove(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    if query.flag("link") {
        return Err(ApiError::unsupported("removing links"));
    }
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v") };
    api.engine.remove(&id, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(api): State<Api>, query: Query) -> Answer {
    Ok(Answered(api.engine.prune_containers(&query.filters()?).await?).into_response())
}

/// The head of the answer goes out as soon as the wait has begun: the client relies on it to start the container only
/// then. The body follows at the end.
async fn wait(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    let condition = WaitCondition::parse(query.get("condition").unwrap_or_default())?;
    let wait = api.engine.wait(&id, condition)?;
    Ok(io::later(wait.done()))
}
