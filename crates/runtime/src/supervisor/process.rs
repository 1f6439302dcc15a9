//! A process that the supervisor owns: the container's first, or an exec'd one.

use std::fs::File;
use std::io::{self, Write};

use nix::unistd::Pid;

use super::launch::Launch;
use super::log::Stream;
use super::stdio::Io;
use crate::job::ConsoleSize;
use crate::record::ExitStatus;

/// Input that the process has not read; a client with more has to wait.
const INPUT: usize = 64 << 10;

/// Who asked, and the number of the question.
pub(super) type Asker = (u64, u64);

#[derive(Debug)]
pub(super) struct Process {
    pub(super) phase: Phase,
    pub(super) io: Io,
    input: Vec<u8>,
    input_ended: bool,
    /// The size that was asked for before there was a terminal.
    pub(super) resize: Option<ConsoleSize>,
    /// To be told when it has been launched.
    pub(super) opener: Option<Asker>,
    /// To be told when it ends.
    pub(super) waiters: Vec<Asker>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Launching(Launch),
    Running(Pid),
    Ended(ExitStatus),
}

impl Process {
    pub(super) fn new(launch: Launch, io: Io, opener: Option<Asker>) -> Self {
        let phase = Phase::Launching(launch);
        Self { phase, io, input: Vec::new(), input_ended: false, resize: None, opener, waiters: Vec::new() }
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        match self.phase {
            Phase::Running(pid) => Some(pid),
            _ => None,
        }
    }

    pub(super) fn output(&mut self, stream: Stream) -> &mut Option<File> {
        match stream {
            Stream::Stdout => &mut self.io.stdout,
            Stream::Stderr => &mut self.io.stderr,
        }
    }

    /// Takes input; what comes after the end is lost, as it would be in a closed pipe.
    pub(super) fn add_input(&mut self, input: &[u8]) {
        // before the launch is done a terminal is not there yet
        let open = self.io.stdin.is_some() || matches!(self.phase, Phase::Launching(_));
        if open && !self.input_ended {
            self.input.extend_from_slice(input);
        }
    }

    pub(super) fn wants_input(&self) -> bool {
        self.input.len() < INPUT
    }

    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty() && self.io.stdin.is_some()
    }

    /// The process sees the end of its input once it has read the rest. A terminal's input has no end.
    pub(super) fn end_input(&mut self) {
        if !self.io.is_tty() {
            self.input_ended = true;
            self.flush_input();
        }
    }

    /// Gives the process what it takes at the moment.
    pub(super) fn flush_input(&mut self) {
        while let Some(stdin) = &mut self.io.stdin
            && !self.input.is_empty()
        {
            match stdin.write(&self.input) {
                Ok(len) => drop(self.input.drain(..len)),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.io.stdin = None;
                    self.input.clear();
                }
            }
        }
        if self.input.is_empty() {
            self.input = Vec::new();
            if self.input_ended {
                self.io.stdin = None;
            }
        }
    }
}
