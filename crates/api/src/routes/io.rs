//! What flows: logs, attachments, and answers that come late.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use shoal_engine::{AttachInput, AttachOptions, AttachOutput, Attached, LogsOptions, StdStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::error::{Answer, ApiError};
use crate::lines::{self, Style};
use crate::query::Query;
use crate::state::Api;
use crate::stream::{Channel, content_type, frame, hijack, json_line, streamed, wants_upgrade};

/// Input is read from clients in pieces of this size.
const CHUNK: usize = 32 << 10;

/// `GET /containers/{id}/logs`
pub(super) async fn logs(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    let options = LogsOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: lines::time(&query, "since")?,
        until: lines::time(&query, "until")?,
        tail: lines::container_tail(&query),
        follow: query.flag("follow"),
    };
    let tty = api.engine.inspect(&id, false).await?.config.and_then(|c| c.tty).unwrap_or_default();
    let style = Style { timestamps: query.flag("timestamps"), details: query.flag("details"), tty };
    let lines = api.engine.logs(&id, options).await?;
    Ok(streamed(
        content_type(tty),
        lines.map(move |line| match line {
            Ok(line) => style.line(channel(line.stream), line.time, &line.attrs, &line.line),
            Err(error) => style.error(&error.to_string()),
        }),
    ))
}

/// `POST /containers/{id}/attach`
pub(super) async fn attach(State(api): State<Api>, Path(id): Path<String>, query: Query, request: Request) -> Answer {
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: query.get("detachKeys").map(str::to_owned),
    };
    let attached = api.engine.attach(&id, options).await?;
    let upgrade = wants_upgrade(request.headers());
    Ok(carry(request, upgrade, attached))
}

/// Carries an attachment over the client's connection: taken over where the client asks for that, else as the bodies of
/// the request and the answer.
pub(super) fn carry(request: Request, upgrade: bool, attached: Attached) -> Response {
    let Attached { tty, output, input } = attached;
    if upgrade {
        return hijack(request, content_type(tty), move |io| converse(io, tty, output, input));
    }
    if let Some(input) = input {
        tokio::spawn(feed(request.into_body(), input));
    }
    streamed(content_type(tty), pieces(output, tty))
}

async fn converse<T>(io: TokioIo<T>, tty: bool, output: AttachOutput, input: Option<AttachInput>)
where
    TokioIo<T>: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let typing = tokio::spawn(async move {
        match input {
            Some(input) => type_in(read, input).await,
            // Read all the same, so that a client that goes away is noticed.
            None => drain(read).await,
        }
    });
    show(write, output, tty).await;
    typing.abort();
}

async fn show<T: AsyncWrite>(mut write: WriteHalf<T>, output: AttachOutput, tty: bool) {
    let mut pieces = std::pin::pin!(pieces(output, tty));
    while let Some(piece) = pieces.next().await {
        if let Err(error) = write.write_all(&piece).await {
            tracing::debug!("an attached client is gone: {error}");
            return;
        }
    }
    if let Err(error) = write.shutdown().await {
        tracing::debug!("an attached client is gone: {error}");
    }
}

async fn type_in<T: AsyncRead>(mut read: ReadHalf<T>, mut input: AttachInput) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return end(input).await,
            Ok(n) if !put(&mut input, &buffer[..n]).await => return,
            Ok(_) => {}
            Err(error) => return tracing::debug!("an attached client is gone: {error}"),
        }
    }
}

async fn drain<T: AsyncRead>(mut read: ReadHalf<T>) {
    let mut buffer = [0; 1024];
    while matches!(read.read(&mut buffer).await, Ok(n) if n > 0) {}
}

async fn feed(body: Body, mut input: AttachInput) {
    let mut pieces = body.into_data_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        if !put(&mut input, &piece).await {
            return;
        }
    }
    end(input).await;
}

async fn put(input: &mut AttachInput, piece: &[u8]) -> bool {
    input.write(piece).await.unwrap_or_else(|error| {
        tracing::debug!("input is not taken: {error}");
        false
    })
}

async fn end(input: AttachInput) {
    if let Err(error) = input.finish().await {
        tracing::debug!("the end of input is not taken: {error}");
    }
}

fn pieces(output: AttachOutput, tty: bool) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(output, move |mut output| async move {
        let piece = output.next().await?;
        let bytes = if tty { piece.bytes } else { frame(channel(piece.stream), &piece.bytes) };
        Some((bytes, output))
    })
}

pub(super) fn channel(stream: StdStream) -> Channel {
    match stream {
        StdStream::Stdout => Channel::Stdout,
        StdStream::Stderr => Channel::Stderr,
    }
}

/// An answer whose head goes out now and whose body follows.
pub(super) fn later<T: Serialize>(body: impl Future<Output = T> + Send + 'static) -> Response {
    streamed("application/json", stream::once(async move { json_line(&body.await) }))
}

/// `h` and `w`.
pub(super) fn size(query: &Query) -> Answer<(u16, u16)> {
    let read = |name: &str| match query.number::<u16>(name)? {
        Some(cells) => Ok(cells),
        None => Err(ApiError::bad_request(format!("invalid value for {name}: \"\""))),
    };
    Ok((read("h")?, read("w")?))
}

/// `[height, width]` of an exec's start.
pub(super) fn console_size(given: Option<&[usize]>) -> Option<(u64, u64)> {
    match given? {
        [height, width] => Some((u64::try_from(*height).ok()?, u64::try_from(*width).ok()?)),
        _ => None,
    }
}
