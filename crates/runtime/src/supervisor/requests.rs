//! What clients ask.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use super::client::Attached;
use super::core::Core;
use super::events::cannot;
use super::launch::{Launch, Order, START_SOCKET};
use super::process::{Asker, Phase, Process};
use super::stdio::{self, Wanted};
use crate::cgroup::{self, CgroupError};
use crate::errno;
use crate::job::{ConsoleSize, SocketAddress};
use crate::protocol::{AttachOptions, ExecSpec, ExecState, Op, Reply, Request, State, Status, Target};
use crate::refusal::Refusal;

impl Core {
    /// Answers, or remembers the question until there is an answer.
    pub(super) fn handle_request(&mut self, client: u64, Request { id, op }: Request) {
        let asker = (client, id);
        let result = match op {
            Op::Created => return self.wait_for_creation(asker),
            Op::Wait => return self.wait_for_end(asker),
            Op::ExecWait { exec } => return self.wait_for_exec(asker, &exec),
            Op::WatchOom => return self.oom.waiters.push(asker),
            Op::Attach { target, options } => return self.attach(asker, target, options),
            Op::Exec { spec, attach } => match self.exec(asker, spec, attach) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Op::Status => Ok(Reply::Status(Box::new(self.status()))),
            Op::Start => self.start().map(|()| Reply::Done),
            Op::Signal { target, signal } => self.signal(&target, signal).map(|()| Reply::Done),
            Op::Pause => self.pause().map(|()| Reply::Done),
            Op::Resume => self.resume().map(|()| Reply::Done),
            Op::Resize { target, size } => self.resize(&target, size).map(|()| Reply::Done),
            Op::CloseStdin { target } => self.process(&target).map(|process| {
                process.end_input();
                Reply::Done
            }),
            Op::Update { resources } => {
                cgroup::update(&self.job.cgroup, &resources).map(|()| Reply::Done).map_err(refused)
            }
        };
        self.answer(asker, result);
    }

    fn wait_for_creation(&mut self, asker: Asker) {
        let pid = self.processes.get(&Target::Main).and_then(Process::pid);
        match (&self.failure, pid) {
            (Some(error), _) => self.answer(asker, Err(Refusal::Launch(error.clone()))),
            (None, Some(pid)) => self.answer(asker, Ok(Reply::Pid(pid.as_raw()))),
            (None, None) if self.state == State::Ended => {
                let refusal = self.not_running();
                self.answer(asker, Err(refusal));
            }
            (None, None) => self.created_waiters.push(asker),
        }
    }

    fn wait_for_end(&mut self, asker: Asker) {
        match &self.record {
            Some(record) => self.answer(asker, Ok(Reply::Ended(Box::new(record.clone())))),
            None => self.end_waiters.push(asker),
        }
    }

    fn wait_for_exec(&mut self, asker: Asker, exec: &str) {
        match self.processes.get_mut(&Target::Exec(exec.to_owned())) {
            Some(Process { phase: Phase::Ended(status), .. }) => {
                let status = *status;
                self.answer(asker, Ok(Reply::ExecEnded(status)));
            }
            Some(process) => process.waiters.push(asker),
            None => self.answer(asker, Err(Refusal::NoSuchExec(exec.to_owned()))),
        }
    }

    fn status(&self) -> Status {
        let mut execs = BTreeMap::new();
        for (target, process) in &self.processes {
            let state = match &process.phase {
                Phase::Launching(_) => ExecState::Starting,
                Phase::Running(pid) => ExecState::Running(pid.as_raw()),
                Phase::Ended(status) => ExecState::Ended(*status),
            };
            if let Target::Exec(id) = target {
                execs.insert(id.clone(), state);
            }
        }
        Status {
            id: self.job.id.clone(),
            state: self.state,
            pid: self.processes.get(&Target::Main).and_then(Process::pid).map(|pid| pid.as_raw()),
            started_at: self.started_at,
            oom_killed: self.oom.seen > 0 || cgroup::oom_kills(&self.job.cgroup) > 0,
            execs,
        }
    }

    fn start(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Created => {}
            State::Creating | State::Ended => return Err(self.not_running()),
            State::Running | State::Paused => return Err(Refusal::AlreadyStarted(self.job.id.clone())),
        }
        let started = SocketAddress::open(&self.job.run_dir).and_then(|address| {
            let mut socket = UnixStream::connect(address.sibling(START_SOCKET))?;
            socket.write_all(b"start container")?;
            std::fs::remove_file(address.sibling(START_SOCKET))
        });
        started.map_err(|err| Refusal::Kernel { what: "start the command".into(), error: err.to_string() })?;
        self.started_at = Some(Timestamp::now());
        self.state = State::Running;
        Ok(())
    }

    fn signal(&mut self, target: &Target, number: i32) -> Result<(), Refusal> {
        let pid = self.process(target)?.pid().ok_or_else(|| self.not_running())?;
        // SAFETY: sends a signal to a child that has not been waited for, so the number is still its own; real-time
        // signals have no name in nix
        Errno::result(unsafe { libc::kill(pid.as_raw(), number) })
            .map_err(|errno| Refusal::Kernel { what: format!("send signal {number}"), error: errno::text(errno) })?;
        if number == libc::SIGKILL && self.state == State::Paused {
            self.resume()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Running => {}
            State::Paused => return Err(Refusal::Paused(self.job.id.clone())),
            _ => return Err(self.not_running()),
        }
        if let Err(err) = cgroup::freeze(&self.job.cgroup) {
            cgroup::thaw(&self.job.cgroup).map_err(refused)?;
            return Err(refused(err));
        }
        self.state = State::Paused;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Paused => cgroup::thaw(&self.job.cgroup).map_err(refused)?,
            State::Running => return Err(Refusal::NotPaused(self.job.id.clone())),
            _ => return Err(self.not_running()),
        }
        self.state = State::Running;
        Ok(())
    }

    fn resize(&mut self, target: &Target, size: ConsoleSize) -> Result<(), Refusal> {
        let name = match target {
            Target::Main => format!("container {}", self.job.id),
            Target::Exec(id) => format!("exec instance {id}"),
        };
        let process = self.process(target)?;
        if let Phase::Launching(_) = process.phase {
            process.resize = Some(size);
            return Ok(());
        }
        match process.io.resize(size) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::NoTerminal(name)),
            Err(errno) => Err(Refusal::Kernel { what: format!("resize {name}"), error: errno::text(errno) }),
        }
    }

    fn attach(&mut self, asker @ (client, request): Asker, target: Target, options: AttachOptions) {
        let ended = match self.process(&target) {
            Ok(Process { phase: Phase::Ended(status), .. }) => Some(*status),
            Ok(_) => None,
            Err(refusal) => return self.answer(asker, Err(refusal)),
        };
        self.answer(asker, Ok(Reply::Done));
        if let Some(client) = self.clients.get_mut(&client) {
            client.attached = Some(Attached { request, target: target.clone(), options });
        }
        if let Some(status) = ended {
            self.end_streams(&target, status);
        }
    }

    fn exec(&mut self, asker: Asker, spec: Box<ExecSpec>, attach: Option<AttachOptions>) -> Result<(), Refusal> {
        let first = match self.state {
            State::Running => self.process(&Target::Main)?.pid().ok_or_else(|| self.not_running())?,
            State::Paused => return Err(Refusal::Paused(self.job.id.clone())),
            _ => return Err(self.not_running()),
        };
        let target = Target::Exec(spec.id.clone());
        if self.processes.contains_key(&target) {
            return Err(Refusal::ExecExists(spec.id.clone()));
        }
        let cell = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
        let size = spec.process.console_size();
        let wanted = Wanted {
            tty: spec.process.terminal().unwrap_or(false),
            stdin: spec.open_stdin,
            output: attach.is_some(),
            uid: spec.process.user().uid(),
            size: size.map(|size| ConsoleSize { height: cell(size.height()), width: cell(size.width()) }),
        };
        let (io, ends) = stdio::open(wanted).map_err(|errno| Refusal::Launch(cannot("make pipes", errno)))?;
        let order = Order::Exec { spec, first };
        let launch = Launch::start(&self.job, &order, &ends, &self.oom_score_adj).map_err(Refusal::Launch)?;
        self.processes.insert(target.clone(), Process::new(launch, io, Some(asker)));
        if let (Some(options), Some(client)) = (attach, self.clients.get_mut(&asker.0)) {
            client.attached = Some(Attached { request: asker.1, target, options });
        }
        Ok(())
    }

    fn process(&mut self, target: &Target) -> Result<&mut Process, Refusal> {
        match (target, self.processes.get_mut(target)) {
            (_, Some(process)) => Ok(process),
            (Target::Main, None) => Err(Refusal::NotRunning(self.job.id.clone())),
            (Target::Exec(id), None) => Err(Refusal::NoSuchExec(id.clone())),
        }
    }

    pub(super) fn not_running(&self) -> Refusal {
        Refusal::NotRunning(self.job.id.clone())
    }

    /// Sends `SIGKILL` to every launcher that is still at work.
    pub(super) fn kill_launchers(&self) {
        for process in self.processes.values() {
            if let Phase::Launching(launch) = &process.phase {
                // it may have ended on its own
                kill(launch.launcher, Signal::SIGKILL).ok();
            }
        }
    }
}

fn refused(err: CgroupError) -> Refusal {
    Refusal::Kernel { what: "change the control group".into(), error: err.to_string() }
}
