//! A connection as the supervisor sees it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::log::Stream;
use super::outbox::Outbox;
use crate::protocol::{
    Answer, AttachOptions, HEADER, MESSAGE, Reply, Request, STDERR, STDIN, STDOUT, Target, header, parse_header,
};
use crate::refusal::Refusal;

/// What a client says.
pub(super) enum Said {
    Request(Request),
    /// Input for the process it is attached to; empty: the end of it.
    Input(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    outbox: Outbox,
    pub(super) attached: Option<Attached>,
    /// It will say no more, but it may still listen.
    pub(super) silent: bool,
    /// Nothing more will be sent; leave once all has been read.
    pub(super) leaving: bool,
}

/// A connection that has become a stream.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) request: u64,
    pub(super) target: Target,
    pub(super) options: AttachOptions,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), outbox: Outbox::new(), attached: None, silent: false, leaving: false })
    }

    /// What has arrived; an error: the client has left or makes no sense.
    pub(super) fn receive(&mut self) -> io::Result<Vec<Said>> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) if self.attached.is_some() && !self.silent => {
                self.silent = true;
                return Ok(Vec::new());
            }
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => self.input.extend_from_slice(&buffer[..len]),
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(err) => return Err(err),
        }
        let mut said = Vec::new();
        let mut at = 0;
        while let Some(head) = self.input[at..].first_chunk::<HEADER>() {
            let (kind, len) = parse_header(*head).ok_or(io::ErrorKind::InvalidData)?;
            let Some(payload) = self.input.get(at + HEADER..at + HEADER + len) else { break };
            match kind {
                MESSAGE => said.push(Said::Request(serde_json::from_slice(payload)?)),
                STDIN => said.push(Said::Input(payload.to_vec())),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            at += HEADER + len;
        }
        self.input.drain(..at);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(said)
    }

    pub(super) fn answer(&mut self, id: u64, result: Result<Reply, Refusal>, dir: &Path) -> io::Result<()> {
        let body = serde_json::to_vec(&Answer { id, result })?;
        self.outbox.push(&header(MESSAGE, body.len()), dir)?;
        self.outbox.push(&body, dir)
    }

    /// Passes output on, if this client wants it.
    pub(super) fn output(&mut self, target: &Target, stream: Stream, data: &[u8], dir: &Path) -> io::Result<()> {
        let Some(attached) = &self.attached else { return Ok(()) };
        let (wanted, kind) = match stream {
            Stream::Stdout => (attached.options.stdout, STDOUT),
            Stream::Stderr => (attached.options.stderr, STDERR),
        };
        if self.leaving || !wanted || attached.target != *target {
            return Ok(());
        }
        self.outbox.push(&header(kind, data.len()), dir)?;
        self.outbox.push(data, dir)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(&self.stream)
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Output for this client should wait.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// It has had output to read for long and read none.
    pub(super) fn is_stalled(&self) -> bool {
        self.outbox.is_stalled()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
