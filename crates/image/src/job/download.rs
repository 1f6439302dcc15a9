//! Downloading a blob into a file, verified, with retries where the connection breaks.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};

use super::State;
use super::tail::Head;
use crate::digest::Digest;
use crate::error::{PullError, StoreError};
use crate::registry::{Descriptor, RegistryError, Session};

/// Pieces that may wait for the disk: with the registry's usual pieces this is a few megabytes.
const QUEUE: usize = 64;

/// How often progress is told.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The part that writes, on a thread where it may block.
struct Writer {
    file: File,
    hasher: Sha256,
    written: u64,
    head: Head,
}

/// Downloads the blob into `file`, telling the unpacking thread through `head` what is there. Returns `head` when all
/// of it is there and is what its digest says; until it is dropped the unpacking goes on.
pub(super) async fn download(
    session: &Session,
    blob: &Descriptor,
    file: File,
    head: Head,
    state: &watch::Sender<State>,
) -> Result<Head, PullError> {
    let mut writer = Writer { file, hasher: Sha256::new(), written: 0, head };
    let mut attempt = 1;
    loop {
        state.send_replace(State::Downloading { bytes: writer.written });
        let (returned, result) = try_download(session, blob, writer, state).await;
        writer = returned;
        match result {
            Ok(()) => break,
            Err(PullError::Registry(error)) if error.is_transient() && attempt < session.max_attempts() => {
                tracing::debug!(digest = %blob.digest, %error, attempt, "the download broke off");
                for seconds in (1..=2 * u64::from(attempt)).rev() {
                    state.send_replace(State::Retrying { seconds });
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
    state.send_replace(State::Verifying);
    let actual = Digest::from(writer.hasher);
    if actual != blob.digest {
        return Err(RegistryError::LayerDigest(blob.digest).into());
    }
    // first the state, then the reader: what the reader reports comes after
    state.send_replace(State::Downloaded);
    writer.head.finish();
    Ok(writer.head)
}

/// One attempt, from where the last one broke off if the registry can do that.
async fn try_download(
    session: &Session,
    blob: &Descriptor,
    mut writer: Writer,
    state: &watch::Sender<State>,
) -> (Writer, Result<(), PullError>) {
    let mut body = match session.blob(blob, writer.written).await {
        Ok(body) => body,
        Err(error) => return (writer, Err(error.into())),
    };
    if let Err(error) = writer.start_at(body.start) {
        return (writer, Err(error.into()));
    }
    let mut received = writer.written;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writing = tokio::task::spawn_blocking(move || writer.run(receiver));
    let mut reported = Instant::now();
    let result = loop {
        match body.chunk().await {
            Ok(None) if received < blob.size => {
                break Err(RegistryError::Http {
                    method: "Get",
                    url: body.url().to_owned(),
                    reason: "unexpected EOF".to_owned(),
                });
            }
            Ok(None) => break Ok(()),
            Ok(Some(chunk)) => {
                received += chunk.len() as u64;
                if received > blob.size {
                    break Err(RegistryError::Size { digest: blob.digest, expected: blob.size, actual: received });
                }
                // the writer ends early only when the disk fails, and says so below
                if sender.send(chunk).await.is_err() {
                    break Ok(());
                }
                if reported.elapsed() >= REPORT_EVERY {
                    reported = Instant::now();
                    state.send_replace(State::Downloading { bytes: received });
                }
            }
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let (writer, written) = match writing.await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let result = written.map_err(PullError::from).and(result.map_err(PullError::from));
    (writer, result)
}

impl Writer {
    fn run(mut self, mut chunks: mpsc::Receiver<Bytes>) -> (Self, Result<(), StoreError>) {
        while let Some(chunk) = chunks.blocking_recv() {
            if let Err(error) = self.file.write_all(&chunk) {
                return (self, Err(StoreError::at("write a layer under", "the image store")(error)));
            }
            self.hasher.update(&chunk);
            self.written += chunk.len() as u64;
            self.head.advance(self.written);
        }
        (self, Ok(()))
    }

    /// Forgets what was written if the registry starts from the beginning all the same.
    fn start_at(&mut self, start: u64) -> Result<(), StoreError> {
        if start < self.written {
            self.file.rewind().map_err(StoreError::at("rewind a layer under", "the image store"))?;
            self.hasher.reset();
            self.written = 0;
        }
        Ok(())
    }
}
