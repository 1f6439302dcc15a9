//! What Docker's API has and Shoal does not have yet: refused by name. All else is unknown.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;

use crate::error::ApiError;
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
    router
}

fn refusal(what: &str) -> Response {
    ApiError::unsupported(what).into_response()
}

pub(super) async fn fallback(request: Request) -> Response {
    tracing::debug!("no route for {} {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "page not found").into_response()
}
