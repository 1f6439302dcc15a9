//! Images. A name may have slashes, so what is asked of an image is read off the end of the path.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use shoal_engine::ImageListOptions;
use shoal_image::RegistryAuth;

use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::state::Api;
use crate::stream::json_lines;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(pull))
        .route("/images/load", post(load))
        .route("/images/prune", post(prune))
        .route("/images/{*rest}", get(ask).post(act).delete(remove))
        .route("/distribution/{*rest}", get(distribution))
}

async fn list(State(api): State<Api>, query: Query) -> Answer {
    let options = ImageListOptions { shared_size: query.flag("shared-size"), filters: query.filters()? };
    Ok(axum::Json(api.engine.list_images(options).await?).into_response())
}

async fn pull(State(api): State<Api>, query: Query, headers: HeaderMap) -> Answer {
    if query.get("fromSrc").is_some() {
        return Err(ApiError::unsupported("docker import"));
    }
    let Some(image) = query.get("fromImage") else {
        return Err(ApiError::bad_request("invalid reference format"));
    };
    let auth = registry_auth(&headers)?;
    let progress = api.engine.pull(image, query.get("tag"), query.get("platform"), auth).await?;
    Ok(json_lines(progress))
}

async fn load(State(api): State<Api>, query: Query, body: Body) -> Answer {
    if query.get("platform").is_some() {
        return Err(ApiError::unsupported("loading one platform of an archive"));
    }
    Ok(json_lines(api.engine.load(body.into_data_stream(), query.flag("quiet"))))
}

async fn prune(State(api): State<Api>, query: Query) -> Answer {
    Ok(axum::Json(api.engine.prune_images(&query.filters()?).await?).into_response())
}

async fn ask(State(api): State<Api>, Path(rest): Path<String>) -> Answer {
    match rest.rsplit_once('/') {
        Some((name, "json")) => Ok(axum::Json(api.engine.inspect_image(name).await?).into_response()),
        Some((name, "history")) => Ok(axum::Json(api.engine.image_history(name).await?).into_response()),
        Some((_, "get")) => Err(ApiError::unsupported("docker save")),
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn act(State(api): State<Api>, Path(rest): Path<String>, query: Query, _: Request) -> Answer {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            api.engine.tag(name, query.get("repo").unwrap_or_default(), query.get("tag")).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((_, "push")) => Err(ApiError::unsupported("docker push")),
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn remove(State(api): State<Api>, Path(name): Path<String>, query: Query) -> Answer {
    let removed = api.engine.remove_image(&name, query.flag("force"), !query.flag("noprune")).await?;
    Ok(axum::Json(removed).into_response())
}

async fn distribution(State(api): State<Api>, Path(rest): Path<String>, headers: HeaderMap) -> Answer<Response> {
    let Some((name, "json")) = rest.rsplit_once('/') else { return Err(ApiError::not_found("page not found")) };
    Ok(axum::Json(api.engine.distribution(name, registry_auth(&headers)?).await?).into_response())
}

/// The credentials of `X-Registry-Auth`.
///
/// # Errors
/// 400 where the header is not what it should be.
pub(super) fn registry_auth(headers: &HeaderMap) -> Answer<Option<RegistryAuth>> {
    let Some(header) = headers.get("x-registry-auth") else { return Ok(None) };
    let text = header.to_str().map_err(|_| ApiError::bad_request("invalid X-Registry-Auth header"))?;
    RegistryAuth::from_header(text).map_err(ApiError::bad_request)
}
