//! Attaching to a container or to an exec'd process: output as it comes, input, and the keys that detach.

use std::sync::Arc;

use bytes::Bytes;
use shoal_runtime as runtime;
use shoal_runtime::{AttachReader, AttachStream, AttachWriter, Frame, Supervisor, Target};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::container::status::Phase;
use crate::detach::DetachKeys;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::logs::Batches;
use crate::options::{AttachOptions, LogLine, LogsOptions, StdStream};

/// Both directions of an attachment.
#[derive(Debug)]
pub struct Attached {
    /// A terminal: output is one stream and goes to the client as it is, without frames.
    pub tty: bool,
    /// What the process writes.
    pub output: AttachOutput,
    /// What the client types; `None`: it was not asked for or the process has no input.
    pub input: Option<AttachInput>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it was written.
    pub stream: StdStream,
    /// What.
    pub bytes: Bytes,
}

/// The output side. Dropping it detaches.
#[derive(Debug)]
pub struct AttachOutput {
    /// What the log had, or what the engine has to say, first.
    past: Option<Past>,
    source: Source<AttachReader>,
    detached: CancellationToken,
    /// The exec'd process that it belongs to, where it does.
    exec: Option<Arc<crate::exec::Exec>>,
}

/// Lines of the log.
#[derive(Debug)]
struct Past {
    batches: Option<Batches>,
    ready: std::vec::IntoIter<LogLine>,
}

impl Past {
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.ready.next() {
                return Some(line);
            }
            match self.batches.as_mut()?.recv().await? {
                Ok(lines) => self.ready = lines.into_iter(),
                Err(error) => {
                    tracing::warn!(%error, "log of an attached container");
                    return None;
                }
            }
        }
    }
}

/// The input side. Dropping it says nothing to the process; [`finish`](Self::finish) says that the input has ended, and is
/// to be called also when the client has broken off.
#[derive(Debug)]
pub struct AttachInput {
    sink: Source<AttachWriter>,
    /// On a terminal only, as in Docker.
    keys: Option<DetachKeys>,
    detached: CancellationToken,
    on_detach: Option<Detach>,
}

/// Whom to tell of a detachment.
struct Detach {
    engine: Arc<Engine>,
    container: Arc<Container>,
    /// An exec'd process's id.
    exec: Option<String>,
}

impl std::fmt::Debug for Detach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detach").field("container", &self.container.id).finish_non_exhaustive()
    }
}

/// Half of a stream that may come only with the container's start.
#[derive(Debug)]
enum Source<T> {
    Waiting(oneshot::Receiver<T>),
    Live(T),
    Over,
}

/// An attacher that came before the start.
#[derive(Debug)]
pub(crate) struct Waiting {
    options: runtime::AttachOptions,
    reader: oneshot::Sender<AttachReader>,
    writer: oneshot::Sender<AttachWriter>,
}

impl Waiting {
    /// Attaches, before the command's first instruction.
    pub async fn deliver(self, supervisor: &Supervisor) {
        // one that has gone meanwhile needs nothing
        if self.reader.is_closed() && self.writer.is_closed() {
            return;
        }
        match supervisor.attach(Target::Main, self.options).await {
            Ok(stream) => {
                let (reader, writer) = stream.split();
                self.reader.send(reader).ok();
                self.writer.send(writer).ok();
            }
            Err(error) => tracing::warn!(%error, "a client cannot be attached to its container"),
        }
    }
}

impl<T> Source<T> {
    async fn get(&mut self) -> Option<&mut T> {
        if let Self::Waiting(coming) = self {
            *self = match coming.await {
                Ok(live) => Self::Live(live),
                Err(_) => Self::Over,
            };
        }
        match self {
            Self::Live(live) => Some(live),
            _ => None,
        }
    }
}

impl Engine {
    /// Attaches to a container. To one that does not run, the attachment waits for the start and misses nothing of it.
    pub async fn attach(self: &Arc<Self>, name: &str, options: AttachOptions) -> Result<Attached> {
        let container = self.containers.find(name)?;
        let spec = container.spec();
        let keys = DetachKeys::parse(options.detach_keys.as_deref().unwrap_or_default())?;
        let past = match options.logs {
            true => {
                let wanted = LogsOptions { stdout: options.stdout, stderr: options.stderr, ..LogsOptions::default() };
                Some(Past { batches: Some(self.read_log(&container, wanted)?), ready: Vec::new().into_iter() })
            }
            false => None,
        };
        let wanted = runtime::AttachOptions {
            stdin: options.stdin && spec.config.open_stdin.unwrap_or_default(),
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let (reader, writer) = match options.stream {
            true => attach_now_or_later(&container, wanted).await?,
            false => (Source::Over, Source::Over),
        };
        self.container_event(&container, "attach", &[]);
        let detached = CancellationToken::new();
        let on_detach = Some(Detach { engine: self.clone(), container: container.clone(), exec: None });
        let input = wanted.stdin.then(|| AttachInput {
            sink: writer,
            keys: spec.tty().then_some(keys),
            detached: detached.clone(),
            on_detach,
        });
        Ok(Attached { tty: spec.tty(), output: AttachOutput { past, source: reader, detached, exec: None }, input })
    }

    /// The stream of an exec'd process.
    pub(crate) fn exec_attached(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<crate::exec::Exec>,
        stream: AttachStream,
    ) -> Result<Attached> {
        let keys = DetachKeys::parse(exec.config.detach_keys.as_deref().unwrap_or_default())?;
        let tty = exec.config.tty.unwrap_or_default();
        let (reader, writer) = stream.split();
        let detached = CancellationToken::new();
        let input = exec.config.attach_stdin.unwrap_or_default().then(|| AttachInput {
            sink: Source::Live(writer),
            keys: tty.then_some(keys),
            detached: detached.clone(),
            on_detach: Some(Detach { engine: self.clone(), container: container.clone(), exec: Some(exec.id.clone()) }),
        });
        Ok(Attached {
            tty,
            output: AttachOutput { past: None, source: Source::Live(reader), detached, exec: Some(exec.clone()) },
            input,
        })
    }
}

async fn attach_now_or_later(
    container: &Arc<Container>,
    options: runtime::AttachOptions,
) -> Result<(Source<AttachReader>, Source<AttachWriter>)> {
    let supervisor = {
        let mut data = container.data();
        let refuse = |state: &str, advice: &str| {
            Err(Error::Conflict(format!("container {} is {state}, {advice}", container.id)))
        };
        match data.status.phase {
            Phase::Paused => return refuse("paused", "unpause the container before attach"),
            Phase::Restarting => return refuse("restarting", "wait until the container is running"),
            Phase::Running => Some(data.supervisor.clone().ok_or_else(|| Error::NotRunning(container.id.clone()))?),
            Phase::Created | Phase::Exited => None,
        }
        .map_or_else(
            || {
                let (reader, read) = oneshot::channel();
                let (writer, write) = oneshot::channel();
                data.attachers.push(Waiting { options, reader, writer });
                Err((Source::Waiting(read), Source::Waiting(write)))
            },
            Ok,
        )
    };
    match supervisor {
        Ok(supervisor) => {
            let (reader, writer) = supervisor.attach(Target::Main, options).await?.split();
            Ok((Source::Live(reader), Source::Live(writer)))
        }
        Err(waiting) => Ok(waiting),
    }
}

impl Attached {
    /// A stream that says one thing and ends.
    pub(crate) fn of_text(tty: bool, text: String) -> Self {
        let line = Bytes::from(text);
        let line = LogLine { stream: StdStream::Stdout, time: jiff::Timestamp::now(), line, attrs: Default::default() };
        let past = Past { batches: None, ready: vec![line].into_iter() };
        let detached = CancellationToken::new();
        Self { tty, output: AttachOutput { past: Some(past), source: Source::Over, detached, exec: None }, input: None }
    }
}

impl AttachOutput {
    /// The next piece; `None`: the process has ended, or the client has typed the keys that detach, or it fell too far
    /// behind. Not cancel safe.
    pub async fn next(&mut self) -> Option<Output> {
        if let Some(past) = &mut self.past {
            if let Some(line) = past.next().await {
                return Some(Output { stream: line.stream, bytes: line.line });
            }
            self.past = None;
        }
        let detached = self.detached.clone();
        tokio::select! {
            biased;
            output = self.next_live() => output,
            () = detached.cancelled() => {
                self.source = Source::Over;
                None
            }
        }
    }

    async fn next_live(&mut self) -> Option<Output> {
        match self.source.get().await?.next().await {
            Frame::Stdout(bytes) => Some(Output { stream: StdStream::Stdout, bytes }),
            Frame::Stderr(bytes) => Some(Output { stream: StdStream::Stderr, bytes }),
            Frame::Exited(_) | Frame::Lost => {
                if let Some(exec) = &self.exec {
                    exec.ended().await;
                }
                None
            }
        }
    }
}

impl AttachInput {
    /// Sends input on; waits while the process does not read it. `false`: the client has detached or the process has
    /// ended, and no more is wanted.
    pub async fn write(&mut self, input: &[u8]) -> Result<bool> {
        let (pass, detach) = match &mut self.keys {
            Some(keys) => keys.filter(input),
            None => (input.to_vec(), false),
        };
        let Some(writer) = self.sink.get().await else { return Ok(false) };
        if !pass.is_empty() {
            match writer.write(&pass).await {
                Ok(()) => {}
                // it has ended
                Err(runtime::CallError::Gone(_) | runtime::CallError::Io { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        if detach {
            self.detach();
        }
        Ok(!detach)
    }

    /// The client has no more input; it goes on receiving output.
    pub async fn finish(mut self) -> Result<()> {
        let mut sink = std::mem::replace(&mut self.sink, Source::Over);
        sink.get().await;
        match sink {
            Source::Live(writer) => match writer.finish().await {
                Ok(()) | Err(runtime::CallError::Gone(_) | runtime::CallError::Io { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
            _ => Ok(()),
        }
    }

    fn detach(&mut self) {
        self.detached.cancel();
        if let Some(Detach { engine, container, exec }) = self.on_detach.take() {
            match exec {
                None => engine.container_event(&container, "detach", &[]),
                Some(id) => engine.container_event(&container, "exec_detach", &[("execID", id)]),
            }
        }
    }
}
