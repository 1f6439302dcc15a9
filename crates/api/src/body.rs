//! Request bodies: JSON with a size limit, as Docker reads it.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The largest JSON body: far above any real one, far below what would hurt.
const LIMIT: usize = 8 << 20;

/// A JSON body of type `T`.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        match read(request).await? {
            Some(value) => Ok(Self(value)),
            None => Err(ApiError::bad_request("invalid JSON: got EOF while reading request body")),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(request).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<Option<T>, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or_default().to_owned());
    let body = collect(request.into_body()).await?;
    if body.is_empty() {
        return Ok(None);
    }
    check_kind(kind.as_deref())?;
    shoal_types::json::from_slice(&body).map(Some).map_err(|e| ApiError::bad_request(explained(&e)))
}

/// What is wrong with a body. A value that our own types refuse is told in their words, which are Docker's; the parser's
/// own findings say that it is about JSON.
pub(crate) fn explained(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let parsers = ["invalid type:", "invalid value:", "invalid length:"].iter().any(|p| text.starts_with(p));
    let ours = error.is_data() && !parsers && ["invalid ", "unrecognized "].iter().any(|p| text.starts_with(p));
    if ours { text } else { format!("invalid JSON: {text}") }
}

/// The whole body, up to the limit.
///
/// # Errors
/// 413 above the limit, 400 where the client broke off.
async fn collect(body: Body) -> Result<bytes::Bytes, ApiError> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("request body is larger than {} MiB", LIMIT >> 20),
        )),
        Err(e) => Err(ApiError::bad_request(format!("error reading request body: {e}"))),
    }
}

fn check_kind(kind: Option<&str>) -> Result<(), ApiError> {
    let Some(kind) = kind else {
        return Err(ApiError::bad_request("malformed Content-Type header (): mime: no media type"));
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("unsupported Content-Type header ({kind}): must be 'application/json'")))
}
