//! Connections: HTTP/1.1 over anything that reads and writes, with the headers that every answer of Docker's has.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{HeaderName, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::version;

/// How long a client may take to send the head of a request: a broken one must not hold its connection for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one connection until it ends. An error concerns this client only and is worth a debug line at most.
pub async fn connection<S>(io: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| respond(router.clone(), request));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("connection ended: {error}");
    }
}

/// The same, behind TLS.
pub async fn tls_connection<S>(io: S, config: Arc<rustls::ServerConfig>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match tokio::time::timeout(HEAD_TIMEOUT, TlsAcceptor::from(config).accept(io)).await {
        Ok(Ok(io)) => connection(io, router).await,
        Ok(Err(error)) => tracing::debug!("TLS handshake failed: {error}"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn respond(router: Router, mut request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
    let mut response = match version::split(request.uri()) {
        Ok((version, uri)) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(version);
            match router.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("api-version"), header_value(&version::MAX.to_string()));
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
    headers.insert(header::SERVER, header_value(concat!("Shoal/", env!("CARGO_PKG_VERSION"), " (linux)")));
    Ok(response)
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("version numbers are printable ASCII")
}
