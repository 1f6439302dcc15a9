//! Reading a file while it is still being written.
//!
//! The download writes (and may start over); the unpacking thread reads behind it and waits where the data ends.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::State;
use crate::error::StoreError;

/// How often a reader says where it is.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How much of the file is there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Written {
    bytes: u64,
    is_all: bool,
}

/// The writer's end. Dropped before the reader has read everything, it makes the reader fail.
pub(super) struct Head(watch::Sender<Written>);

/// The reader's end. Blocks: not for the runtime's own threads.
pub(super) struct Tail {
    file: File,
    position: u64,
    written: watch::Receiver<Written>,
    runtime: Handle,
    state: Arc<watch::Sender<State>>,
    reported: Instant,
}

/// The two ends for a file that is there and empty. The reader reports how far it is, once all is written.
pub(super) fn channel(path: &Path, state: Arc<watch::Sender<State>>) -> Result<(Head, Tail), StoreError> {
    let file = File::open(path).map_err(StoreError::at("open", path))?;
    let (sender, written) = watch::channel(Written::default());
    Ok((Head(sender), Tail { file, position: 0, written, runtime: Handle::current(), state, reported: Instant::now() }))
}

impl Head {
    /// The first `bytes` of the file are there.
    pub fn advance(&self, bytes: u64) {
        self.0.send_if_modified(|written| {
            // a download that starts over writes the same bytes again
            let grows = bytes > written.bytes;
            written.bytes = written.bytes.max(bytes);
            grows
        });
    }

    /// The file is complete, and its content is what it should be.
    pub fn finish(&self) {
        self.0.send_modify(|written| written.is_all = true);
    }
}

impl Tail {
    /// Waits until there is more than what was read. How much there is, or `None` at the end.
    fn wait(&mut self) -> io::Result<Option<u64>> {
        loop {
            if self.written.has_changed().is_err() {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download ended early"));
            }
            let written = *self.written.borrow_and_update();
            if written.bytes > self.position {
                self.report(written.is_all);
                return Ok(Some(written.bytes - self.position));
            }
            if written.is_all {
                return Ok(None);
            }
            let changed = self.written.changed();
            self.runtime
                .block_on(changed)
                .map_err(|_| io::Error::new(io::ErrorKind::ConnectionAborted, "the download ended early"))?;
        }
    }

    fn report(&mut self, is_all: bool) {
        if is_all && self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            self.state.send_replace(State::Extracting { bytes: self.position });
        }
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(available) = self.wait()? else { return Ok(0) };
        let wanted = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
