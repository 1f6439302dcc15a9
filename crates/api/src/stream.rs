//! Raw streams: connections that are taken over after an upgrade, and output multiplexed in frames of an 8-byte
//! head {stream, 0, 0, 0, big-endian length} and the payload.

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;

/// Bytes as they are: of a terminal.
pub const RAW: &str = "application/vnd.docker.raw-stream";
/// Frames of several streams.
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The stream number of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the engine, in the middle of a stream.
    Error = 3,
}

/// One frame. A payload is a read or a log line, far below the 4 GiB that the head can say.
pub fn frame(channel: Channel, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_slice(&[channel as u8, 0, 0, 0]);
    out.put_u32(u32::try_from(payload.len()).expect("payloads are reads and lines"));
    out.put_slice(payload);
    out.freeze()
}

/// The content type for a stream of a container with or without a terminal.
pub fn content_type(tty: bool) -> &'static str {
    if tty { RAW } else { MULTIPLEXED }
}

/// Whether the client asks to take over the connection.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"tcp"))
}

/// Answers 101 and hands the connection to `run` once the client has it.
pub fn hijack<F, R>(request: Request<Body>, content_type: &'static str, run: F) -> Response
where
    F: FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => run(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!("the client did not take over the connection: {error}"),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .header(CONTENT_TYPE, content_type)
        .body(Body::empty())
        .expect("fixed header names and values")
}

/// A streamed body.
pub fn streamed<S>(content_type: &'static str, stream: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    Response::builder()
        .header(CONTENT_TYPE, content_type)
        .body(Body::from_stream(stream.map(Ok::<_, std::convert::Infallible>)))
        .expect("fixed header names and values")
}

/// A streamed body of JSON values, one a line (`\r\n`, as Docker has it).
pub fn json_lines<S, T>(stream: S) -> Response
where
    S: Stream<Item = T> + Send + 'static,
    T: Serialize,
{
    streamed("application/json", stream.map(|value| json_line(&value)))
}

/// One JSON value and the end of its line.
pub fn json_line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("bodies are plain values with text keys");
    line.extend_from_slice(b"\r\n");
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_its_stream_and_length() {
        assert_eq!(&frame(Channel::Stderr, b"ab")[..], [2, 0, 0, 0, 0, 0, 0, 2, b'a', b'b']);
    }
}
