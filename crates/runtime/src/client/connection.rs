//! One connection for requests, shared by all who ask; answers come in any order.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::CallError;
use crate::job::SocketAddress;
use crate::protocol::{Answer, HEADER, MESSAGE, Op, Reply, Request, header, parse_header};
use crate::refusal::Refusal;

type Outcome = Result<Reply, Refusal>;

#[derive(Debug)]
pub(super) struct Connection {
    id: String,
    /// Frames for the task that writes: a caller that stops waiting must not leave half of one.
    requests: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    task: tokio::task::AbortHandle,
}

/// Requests without an answer. `None` once the connection is lost.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    lost: bool,
    answers: HashMap<u64, oneshot::Sender<Outcome>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(super) fn new(id: &str, stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (requests, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let task = tokio::spawn(run(FrameReader::new(read), write, queue, Arc::clone(&waiting))).abort_handle();
        Self { id: id.to_owned(), requests, waiting, task }
    }

    /// Asks and waits for the answer, however long that takes.
    pub(super) async fn call(&self, op: Op) -> Result<Reply, CallError> {
        let gone = || CallError::Gone(self.id.clone());
        let (id, answer) = lock(&self.waiting).enter().ok_or_else(gone)?;
        let forget = Forget { waiting: &self.waiting, id };
        self.requests.send(encode(&Request { id, op })).map_err(|_| gone())?;
        let outcome = answer.await.map_err(|_| gone())?;
        drop(forget);
        Ok(outcome?)
    }
}

impl Waiting {
    fn enter(&mut self) -> Option<(u64, oneshot::Receiver<Outcome>)> {
        if self.lost {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        self.answers.insert(self.next, sender);
        Some((self.next, receiver))
    }
}

/// Takes a request out of the table when its caller stops waiting.
struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).answers.remove(&self.id);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends questions and hands answers out until the supervisor closes the connection.
async fn run(
    mut frames: FrameReader,
    mut write: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
) {
    let writing = async move {
        while let Some(frame) = queue.recv().await {
            if write.write_all(&frame).await.is_err() {
                // the reading side sees the end too, after the last answers
                break;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = writing => {}
        () = read_answers(&mut frames, &waiting) => {}
    }
    let mut waiting = lock(&waiting);
    waiting.lost = true;
    waiting.answers.clear();
}

async fn read_answers(frames: &mut FrameReader, waiting: &Mutex<Waiting>) {
    while let Ok(Some((MESSAGE, payload))) = frames.next().await {
        let Ok(answer) = serde_json::from_slice::<Answer>(&payload) else { break };
        let sender = lock(waiting).answers.remove(&answer.id);
        if let Some(sender) = sender {
            // whoever asked may have stopped waiting
            drop(sender.send(answer.result));
        }
    }
}

/// A lost peer is an ended container; anything else is worth telling.
pub(super) fn failed(id: &str, source: io::Error) -> CallError {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    match source.kind() {
        BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof => CallError::Gone(id.to_owned()),
        _ => CallError::Io { id: id.to_owned(), source },
    }
}

/// A request as a frame.
pub(super) fn encode(request: &Request) -> Vec<u8> {
    let body = serde_json::to_vec(request).expect("requests have string keys only");
    let mut frame = header(MESSAGE, body.len()).to_vec();
    frame.extend(body);
    frame
}

/// Takes frames off a connection.
#[derive(Debug)]
pub(super) struct FrameReader {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(read: OwnedReadHalf) -> Self {
        Self { read, buffer: BytesMut::new() }
    }

    /// The next frame; `None` at the end of the stream. Cancel safe: what has arrived stays.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        loop {
            let wanted = match self.buffer.first_chunk::<HEADER>() {
                Some(head) => {
                    let (kind, len) = parse_header(*head).ok_or(io::ErrorKind::InvalidData)?;
                    if self.buffer.len() >= HEADER + len {
                        self.buffer.advance(HEADER);
                        return Ok(Some((kind, self.buffer.split_to(len).freeze())));
                    }
                    HEADER + len - self.buffer.len()
                }
                None => HEADER,
            };
            self.buffer.reserve(wanted.max(16 << 10));
            match self.read.read_buf(&mut self.buffer).await? {
                0 if self.buffer.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }
}

/// Connects to the supervisor of a run directory; `None`: there is none. No other failure means that.
pub(super) async fn dial(run_dir: &Path) -> io::Result<Option<UnixStream>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let address = match SocketAddress::open(run_dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match UnixStream::connect(address.path()).await {
            Ok(stream) => return Ok(Some(stream)),
            Err(err) if matches!(err.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                return Ok(None);
            }
            // it died between taking the connection and looking at it: the next attempt tells
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset && Instant::now() < deadline => {}
            // more want to connect than the supervisor has accepted yet
            Err(err) if err.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(err) => return Err(err),
        }
    }
}
