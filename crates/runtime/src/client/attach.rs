//! What a process writes, as it writes it, and its input.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;

use super::CallError;
use super::connection::{FrameReader, dial, encode, failed};
use crate::job::Job;
use crate::protocol::{Answer, MESSAGE, Op, Reply, Request, STDERR, STDIN, STDOUT, header};
use crate::record::ExitStatus;

/// An attached stream; [`split`](Self::split) it to read and write at once.
#[derive(Debug)]
pub struct AttachStream {
    reader: AttachReader,
    writer: AttachWriter,
}

/// The output side.
#[derive(Debug)]
pub struct AttachReader {
    frames: FrameReader,
}

/// The input side. Dropping it stops sending and says nothing to the process: a daemon that dies must not end anyone's
/// input. [`finish`](Self::finish) says that the input has ended.
#[derive(Debug)]
pub struct AttachWriter {
    id: String,
    write: OwnedWriteHalf,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Written to stdout, or to the terminal.
    Stdout(Bytes),
    /// Written to stderr.
    Stderr(Bytes),
    /// The process has ended; all it wrote came before. The last frame.
    Exited(ExitStatus),
    /// The stream was cut: the supervisor died, or it let this attacher go because that had read nothing for long
    /// and the container was not to wait. The last frame.
    Lost,
}

impl AttachStream {
    pub(super) async fn open(job: &Job, op: Op) -> Result<(Self, Reply), CallError> {
        let id = job.id.as_str();
        let stream = dial(&job.run_dir).await.map_err(|err| failed(id, err))?;
        let stream = stream.ok_or_else(|| CallError::Gone(id.to_owned()))?;
        let (read, mut write) = stream.into_split();
        let mut frames = FrameReader::new(read);
        let request = encode(&Request { id: 0, op });
        write.write_all(&request).await.map_err(|err| failed(id, err))?;
        let first = frames.next().await.map_err(|err| failed(id, err))?;
        let (kind, payload) = first.ok_or_else(|| CallError::Gone(id.to_owned()))?;
        let reply = match serde_json::from_slice::<Answer>(&payload) {
            Ok(answer) if kind == MESSAGE => answer.result?,
            _ => return Err(CallError::Protocol(id.to_owned())),
        };
        let reader = AttachReader { frames };
        let writer = AttachWriter { id: id.to_owned(), write };
        Ok((Self { reader, writer }, reply))
    }

    /// Both sides.
    pub fn split(self) -> (AttachReader, AttachWriter) {
        (self.reader, self.writer)
    }
}

impl AttachReader {
    /// The next piece. Cancel safe.
    pub async fn next(&mut self) -> Frame {
        let Ok(Some((kind, payload))) = self.frames.next().await else { return Frame::Lost };
        match kind {
            STDOUT => Frame::Stdout(payload),
            STDERR => Frame::Stderr(payload),
            _ => match serde_json::from_slice::<Answer>(&payload).map(|answer| answer.result) {
                Ok(Ok(Reply::ExecEnded(status))) => Frame::Exited(status),
                _ => Frame::Lost,
            },
        }
    }
}

impl AttachWriter {
    /// Sends input; waits while the process does not read it.
    pub async fn write(&mut self, mut input: &[u8]) -> Result<(), CallError> {
        const CHUNK: usize = 32 << 10;
        while !input.is_empty() {
            let (chunk, rest) = input.split_at(input.len().min(CHUNK));
            let mut frame = header(STDIN, chunk.len()).to_vec();
            frame.extend_from_slice(chunk);
            self.write.write_all(&frame).await.map_err(|err| failed(&self.id, err))?;
            input = rest;
        }
        Ok(())
    }

    /// Says that the input has ended. An exec'd process sees the end; the container's first one does if the container
    /// is `stdin_once`; a terminal has no end. The attacher goes on receiving output.
    pub async fn finish(mut self) -> Result<(), CallError> {
        self.write.write_all(&header(STDIN, 0)).await.map_err(|err| failed(&self.id, err))
    }
}
