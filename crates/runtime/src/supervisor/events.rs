//! What the kernel reports: connections, children, output.

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::client::{Client, Said};
use super::core::{Core, Token};
use super::log::Stream;
use super::process::Phase;
use super::report::{self, Report};
use super::stdio::{self, Chunk};
use crate::cgroup::{self, OomWatch};
use crate::protocol::{Reply, State, Target};
use crate::record::ExitStatus;
use crate::refusal::{LaunchError, Refusal};

/// Pieces of output taken at once before others get their turn.
const PIECES: usize = 8;

impl Core {
    pub(super) fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => {
                // which signals came does not matter: every child is asked
                while matches!(self.signals.read_signal(), Ok(Some(_))) {}
                self.reap();
            }
            Token::Listener => self.accept(),
            Token::Oom => {
                if let Some(watch) = &self.oom.watch {
                    watch.clear();
                }
                self.oom.rechecks = 20;
            }
            Token::Launch(target) => self.follow_launch(&target),
            Token::Output(target, stream) => {
                for _ in 0..PIECES {
                    if !matches!(self.take_output(&target, stream), Chunk::Data(_)) {
                        break;
                    }
                }
            }
            Token::Input(target) => {
                if let Some(process) = self.processes.get_mut(&target) {
                    process.flush_input();
                }
            }
            // a client that cannot be written to is found out by the flush
            Token::Client(id) if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) => {
                self.hear(id);
            }
            Token::Client(_) => {}
        }
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(|listener| listener.accept()) {
            if let Ok(client) = Client::new(stream) {
                self.next_client += 1;
                self.clients.insert(self.next_client, client);
            }
        }
    }

    fn hear(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Ok(said) = client.receive() else {
            self.clients.remove(&id);
            return;
        };
        for said in said {
            match said {
                Said::Request(request) => self.handle_request(id, request),
                Said::Input(input) => self.handle_input(id, &input),
            }
        }
    }

    fn handle_input(&mut self, id: u64, input: &[u8]) {
        let attached = self.clients.get(&id).and_then(|client| client.attached.as_ref());
        let Some(attached) = attached.filter(|attached| attached.options.stdin) else { return };
        let Some(process) = self.processes.get_mut(&attached.target) else { return };
        if !input.is_empty() {
            process.add_input(input);
            process.flush_input();
        } else if attached.target != Target::Main || self.job.stdin_once {
            process.end_input();
        }
    }

    /// Reads one piece of output, logs it and passes it on.
    pub(super) fn take_output(&mut self, target: &Target, stream: Stream) -> Chunk {
        let Some(process) = self.processes.get_mut(target) else { return Chunk::End };
        let Some(file) = process.output(stream) else { return Chunk::End };
        let chunk = stdio::read(file, &mut self.buffer);
        match chunk {
            Chunk::Data(len) => {
                let data = &self.buffer[..len];
                if let (Target::Main, Some(log)) = (target, &mut self.log) {
                    log.write(stream, data, Timestamp::now());
                }
                let dir = &self.job.state_dir;
                self.clients.retain(|_, client| client.output(target, stream, data, dir).is_ok());
            }
            Chunk::Empty => {}
            Chunk::End => *process.output(stream) = None,
        }
        chunk
    }

    /// Takes note of every child that has ended.
    pub(super) fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))) => {
                    self.handle_ended_child(pid, status);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => panic!("waitpid: {errno}"),
            }
        }
    }

    fn handle_ended_child(&mut self, pid: Pid, status: WaitStatus) {
        let owner = |process: &super::process::Process| process.pid() == Some(pid);
        if let Some(target) =
            self.processes.iter().find(|(_, process)| owner(process)).map(|(target, _)| target.clone())
        {
            self.handle_end(&target, exit_status(status));
            return;
        }
        let launched_by = |process: &super::process::Process| matches!(&process.phase, Phase::Launching(launch) if launch.launcher == pid);
        let launching =
            self.processes.iter().find(|(_, process)| launched_by(process)).map(|(target, _)| target.clone());
        match launching {
            Some(target) => {
                self.follow_launch(&target);
                if self.processes.get(&target).is_some_and(|process| matches!(process.phase, Phase::Launching(_))) {
                    self.handle_failed_launch(&target, "the launcher was killed");
                }
            }
            None if self.processes.values().any(|process| matches!(process.phase, Phase::Launching(_))) => {
                self.early.insert(pid, status);
            }
            None => {}
        }
    }

    /// Reads what a launcher reports.
    fn follow_launch(&mut self, target: &Target) {
        while let Some(process) = self.processes.get_mut(target) {
            let Phase::Launching(launch) = &mut process.phase else { return };
            match Report::receive(&launch.channel) {
                Ok(None) => return,
                Ok(Some(Report::Detail(detail))) => launch.findings.add_detail(detail),
                Ok(Some(Report::Cause(cause))) => launch.findings.set_cause(cause),
                Ok(Some(Report::Ready(pid))) => return self.handle_launched(target, Pid::from_raw(pid)),
                Ok(Some(Report::Failed(text))) => return self.handle_failed_launch(target, &text),
                Err(errno) => {
                    return self.handle_failed_launch(target, &format!("the launcher was lost: {errno}"));
                }
            }
        }
    }

    fn handle_launched(&mut self, target: &Target, pid: Pid) {
        let Some(process) = self.processes.get_mut(target) else { return };
        process.phase = Phase::Running(pid);
        let resize = process.resize.take();
        let console = process.io.receive_console().and_then(|()| match resize {
            Some(size) => process.io.resize(size).map(drop),
            None => Ok(()),
        });
        let opener = process.opener.take();
        process.flush_input();
        if let Err(errno) = console {
            // without its terminal it is of no use
            eprintln!("terminal of {target:?}: {errno}");
            kill(pid, Signal::SIGKILL).ok();
        }
        if *target == Target::Main {
            self.state = State::Created;
            self.oom.watch = OomWatch::new(&self.job.cgroup).inspect_err(|err| eprintln!("{err}")).ok();
            for asker in std::mem::take(&mut self.created_waiters) {
                self.answer(asker, Ok(Reply::Pid(pid.as_raw())));
            }
        }
        if let Some(opener) = opener {
            self.answer(opener, Ok(Reply::Pid(pid.as_raw())));
        }
        if let Some(status) = self.early.remove(&pid) {
            self.handle_end(target, exit_status(status));
        }
        self.forget_early();
    }

    fn handle_failed_launch(&mut self, target: &Target, text: &str) {
        let Some(process) = self.processes.remove(target) else { return };
        let Phase::Launching(launch) = process.phase else { return };
        let error = launch.findings.into_error(text);
        self.forget_early();
        match target {
            Target::Main => self.handle_failed_creation(error),
            Target::Exec(_) => {
                if let Some((client, id)) = process.opener {
                    if let Some(client) = self.clients.get_mut(&client) {
                        client.attached = None;
                    }
                    self.answer((client, id), Err(Refusal::Launch(error)));
                }
            }
        }
    }

    fn forget_early(&mut self) {
        if !self.processes.values().any(|process| matches!(process.phase, Phase::Launching(_))) {
            self.early.clear();
        }
    }

    /// Counts out-of-memory kills and tells those who wait for one.
    pub(super) fn check_oom(&mut self) {
        if self.oom.rechecks > 0 {
            self.oom.rechecks -= 1;
            self.oom.seen = self.oom.seen.max(cgroup::oom_kills(&self.job.cgroup));
        }
        if self.oom.seen > self.oom.told {
            self.oom.rechecks = 0;
            if !self.oom.waiters.is_empty() {
                self.oom.told = self.oom.seen;
            }
            for asker in std::mem::take(&mut self.oom.waiters) {
                self.answer(asker, Ok(Reply::Oom));
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status {
        WaitStatus::Exited(_, code) => ExitStatus::exited(code),
        WaitStatus::Signaled(_, signal, _) => ExitStatus::killed(signal as i32),
        other => unreachable!("only ended children are passed here, not {other:?}"),
    }
}

/// A launch that could not even be begun.
pub(super) fn cannot(what: &str, errno: Errno) -> LaunchError {
    report::setup_error(what, errno)
}
