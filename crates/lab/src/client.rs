//! A client of an engine's HTTP API, over its socket: one connection a request.

use std::io;
use std::path::Path;
use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::error::LabError;

/// Why an engine did not do what was asked.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody serves the socket.
    #[error("no engine answers: {0}")]
    Connect(#[from] io::Error),
    /// The connection broke.
    #[error("the engine's answer breaks off: {0}")]
    Broken(#[from] hyper::Error),
    /// No answer in time.
    #[error("the engine does not answer within {0:?}")]
    Silent(Duration),
    /// It said no.
    #[error("{message} (status {status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// In its words.
        message: String,
    },
    /// It said something else than JSON.
    #[error("the engine's answer makes no sense: {0}")]
    Garbled(#[from] serde_json::Error),
}

/// A request's body.
pub enum Body {
    /// None.
    Empty,
    /// A value.
    Json(Value),
    /// An archive.
    Archive(Bytes),
}

/// Runs the client's work on this thread.
pub fn run<T>(work: impl Future<Output = Result<T, LabError>>) -> Result<T, LabError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LabError::Start)?.block_on(work)
}

/// One request; the answer's body, null where there is none.
///
/// # Errors
/// Anything but a success, in at most `patience`.
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Body,
    patience: Duration,
) -> Result<Value, CallError> {
    match tokio::time::timeout(patience, exchange(socket, method, path, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Silent(patience)),
    }
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Body) -> Result<Value, CallError> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // its errors come to the sender too
    tokio::spawn(connection);
    let (kind, bytes) = match body {
        Body::Empty => ("text/plain", Bytes::new()),
        Body::Json(value) => ("application/json", Bytes::from(value.to_string())),
        Body::Archive(bytes) => ("application/x-tar", bytes),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "engine")
        .header(header::CONTENT_TYPE, kind)
        .body(Full::new(bytes))
        .expect("a path of ours is a valid URI");
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        let said = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| v["message"].as_str().map(str::to_owned));
        let message = said.unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
        return Err(CallError::Refused { status: status.as_u16(), message });
    }
    // `/_ping` and loading answer with text
    Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// `GET` of a document.
///
/// # Errors
/// As [`call`], and an answer that is not JSON.
pub async fn get(socket: &Path, path: &str, patience: Duration) -> Result<Value, CallError> {
    match call(socket, Method::GET, path, Body::Empty, patience).await? {
        Value::Null => Err(CallError::Garbled(serde::de::Error::custom("no document"))),
        document => Ok(document),
    }
}
