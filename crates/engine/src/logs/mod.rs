//! Reading the logs of containers. The supervisors write them (`json-file`, rotated); here they are read from where a
//! client wants to where it wants, and followed as they grow.

mod entry;
mod files;
mod follow;
mod tail;

use std::sync::Arc;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::{LogLine, LogsOptions, StdStream};

/// Batches of lines that are read ahead of a slow client.
const AHEAD: usize = 4;

/// Lines as they are read: many at a time, so that handing them on costs little.
pub(crate) type Batches = mpsc::Receiver<Result<Vec<LogLine>>>;

/// A log and how far a client wants it.
pub(crate) struct Reader {
    path: std::path::PathBuf,
    options: LogsOptions,
    out: mpsc::Sender<Result<Vec<LogLine>>>,
}

impl Engine {
    /// The lines of a container's log, oldest first. Followed, the stream ends with the container's run.
    pub async fn logs(
        self: &Arc<Self>,
        name: &str,
        options: LogsOptions,
    ) -> Result<impl Stream<Item = Result<LogLine>> + Send + use<>> {
        let container = self.containers.find(name)?;
        if !options.stdout && !options.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let batches = ReceiverStream::new(self.read_log(&container, options)?);
        Ok(batches.flat_map(|batch| match batch {
            Ok(lines) => futures::stream::iter(lines).map(Ok).left_stream(),
            Err(error) => futures::stream::iter([Err(error)]).right_stream(),
        }))
    }

    pub(crate) fn read_log(self: &Arc<Self>, container: &Arc<Container>, options: LogsOptions) -> Result<Batches> {
        if !container.spec().log.json_file {
            return Err(Error::LogNotReadable);
        }
        let (out, lines) = mpsc::channel(AHEAD);
        let mut seen = container.watch();
        let follow = options.follow && seen.borrow_and_update().running;
        let reader = Reader { path: self.layout.log(&container.id), options, out };
        tokio::spawn(async move {
            let out = reader.out.clone();
            if let Err(error) = reader.run(follow.then_some(seen)).await {
                // the client may have gone
                out.send(Err(error)).await.ok();
            }
        });
        Ok(lines)
    }
}

impl Reader {
    /// Whether a client wants this line.
    fn wants(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            StdStream::Stdout => self.options.stdout,
            StdStream::Stderr => self.options.stderr,
        };
        stream && self.options.since.is_none_or(|since| line.time >= since)
    }

    /// Whether all that may follow is too new.
    fn is_past(&self, line: &LogLine) -> bool {
        self.options.until.is_some_and(|until| line.time > until)
    }
}
