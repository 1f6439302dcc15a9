//! What Docker's API has and Shoal does not have yet: refused by name. All else is unknown.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;

use crate::error::{Answer, ApiError};
use crate::state::Api;

pub(super) fn routes() -> Router<Api> {
    let mut router = Router::new();
    for (paths, what) in [
        (&["/build", "/build/prune", "/build/cancel", "/session", "/grpc"][..], "building images"),
        (&["/commit"], "docker commit"),
        (&["/auth"], "docker login"),
        (&["/images/search"], "docker search"),
        (&["/images/get"], "docker save"),
        (&["/plugins", "/plugins/{*rest}"], "managing plugins"),
    ] {
        for path in paths {
            router = router.route(path, any(move || async move { Response::from(refusal(what)) }));
        }
    }
    for (paths, what) in [
        (["/secrets", "/secrets/create", "/secrets/{*rest}"], "secrets"),
        (["/configs", "/configs/create", "/configs/{*rest}"], "configs"),
    ] {
        for path in paths {
            router = router.route(path, any(move |State(api): State<Api>| swarm_object(api, what)));
        }
    }
    router
}

fn refusal(what: &str) -> Response {
    ApiError::unsupported(what).into_response()
}

/// Outside a swarm, the answer is the same as for every other swarm object.
async fn swarm_object(api: Api, what: &'static str) -> Answer {
    api.node.control()?;
    Err(ApiError::unsupported(what))
}

pub(super) async fn fallback(request: Request) -> Response {
    tracing::debug!("no route for {} {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "page not found").into_response()
}
