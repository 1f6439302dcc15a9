//! How processes and the container come to their end.

use std::mem;
use std::os::fd::AsFd;

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::core::{Core, REMEMBERED};
use super::log::Stream;
use super::process::Phase;
use super::stdio::Chunk;
use crate::cgroup;
use crate::protocol::{Reply, State, Target};
use crate::record::{ExitRecord, ExitStatus};
use crate::refusal::{LaunchError, Refusal};

/// How long a terminal may take to hand over what was written to it, in milliseconds.
const TERMINAL: u8 = 200;

impl Core {
    /// A process has ended and is reaped.
    pub(super) fn handle_end(&mut self, target: &Target, status: ExitStatus) {
        if let Some(process) = self.processes.get_mut(target) {
            process.phase = Phase::Ended(status);
        }
        match target {
            Target::Main => self.handle_container_end(status),
            Target::Exec(id) => self.handle_exec_end(id, status),
        }
    }

    fn handle_exec_end(&mut self, id: &str, status: ExitStatus) {
        let target = Target::Exec(id.to_owned());
        self.drain(&target);
        self.end_streams(&target, status);
        if let Some(process) = self.processes.get_mut(&target) {
            process.io = Default::default();
            for asker in mem::take(&mut process.waiters) {
                self.answer(asker, Ok(Reply::ExecEnded(status)));
            }
        }
        self.ended_execs.push_back(id.to_owned());
        if self.ended_execs.len() > REMEMBERED
            && let Some(oldest) = self.ended_execs.pop_front()
        {
            self.processes.remove(&Target::Exec(oldest));
        }
    }

    /// The first process has ended, and so has the container: nothing of it is left when anyone is told.
    fn handle_container_end(&mut self, status: ExitStatus) {
        let finished_at = Timestamp::now();
        let mut trouble = self.kill_the_rest();
        self.drain(&Target::Main);
        if let Some(log) = &mut self.log {
            trouble = trouble.or(log.finish(finished_at));
        }
        self.oom.seen = self.oom.seen.max(cgroup::oom_kills(&self.job.cgroup));
        self.oom.watch = None;
        if let Err(err) = cgroup::remove(&self.job.cgroup) {
            trouble = trouble.or(Some(err.to_string()));
        }
        self.conclude(status, finished_at, trouble);
        self.end_streams(&Target::Main, status);
    }

    /// Without a pid namespace of its own, a container's processes outlive its first one.
    fn kill_the_rest(&mut self) -> Option<String> {
        self.kill_launchers();
        let trouble = cgroup::kill(&self.job.cgroup).err().map(|err| err.to_string());
        self.reap();
        let pending = self.processes.iter().filter(|(_, process)| !matches!(process.phase, Phase::Ended(_)));
        for (target, pid) in pending.map(|(target, process)| (target.clone(), process.pid())).collect::<Vec<_>>() {
            match pid {
                // killed with the rest, though not by a child's death that we have seen
                Some(_) => self.handle_end(&target, ExitStatus::killed(libc::SIGKILL)),
                None => {
                    let opener = self.processes.remove(&target).and_then(|process| process.opener);
                    if let Some(opener) = opener {
                        self.answer(opener, Err(self.not_running()));
                    }
                }
            }
        }
        trouble
    }

    /// The container could not be created: takes down what there is of it.
    pub(super) fn handle_failed_creation(&mut self, error: LaunchError) {
        self.processes.clear();
        let cleanup = cgroup::kill(&self.job.cgroup).and_then(|()| cgroup::remove(&self.job.cgroup));
        if let Err(err) = cleanup {
            eprintln!("{err}");
        }
        self.failure = Some(error.clone());
        self.conclude(ExitStatus::exited(error.exit_code()), Timestamp::now(), None);
        for asker in mem::take(&mut self.created_waiters) {
            self.answer(asker, Err(Refusal::Launch(error.clone())));
        }
    }

    /// Records the end, then tells it.
    fn conclude(&mut self, status: ExitStatus, finished_at: Timestamp, error: Option<String>) {
        let execs = self.processes.iter().filter_map(|(target, process)| match (target, &process.phase) {
            (Target::Exec(id), Phase::Ended(status)) => Some((id.clone(), *status)),
            _ => None,
        });
        let record = ExitRecord {
            id: self.job.id.clone(),
            status,
            oom_killed: self.oom.seen > 0,
            started_at: self.started_at,
            finished_at,
            launch_error: self.failure.clone(),
            error,
            execs: execs.collect(),
        };
        if let Err(err) = record.save(&self.job.state_dir) {
            // whoever is connected will still be told
            eprintln!("{err}");
        }
        self.state = State::Ended;
        // from here on the record speaks; the next run may bind the socket
        self.listener = None;
        for asker in mem::take(&mut self.end_waiters) {
            self.answer(asker, Ok(Reply::Ended(Box::new(record.clone()))));
        }
        self.record = Some(record);
    }

    /// Takes what a process wrote before it ended. What its children write later is not its output.
    fn drain(&mut self, target: &Target) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            loop {
                match self.take_output(target, stream) {
                    Chunk::Data(_) => {}
                    Chunk::End => break,
                    // a terminal hands its data over a moment after it was written
                    Chunk::Empty if self.is_waiting_for_terminal(target) => {}
                    Chunk::Empty => break,
                }
            }
        }
    }

    /// Waits a moment for a terminal; `false`: nothing more came, or it is none.
    fn is_waiting_for_terminal(&self, target: &Target) -> bool {
        let Some(process) = self.processes.get(target) else { return false };
        let Some(master) = process.io.stdout.as_ref().filter(|_| process.io.is_tty()) else { return false };
        matches!(poll(&mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)], PollTimeout::from(TERMINAL)), Ok(1..))
    }
}
