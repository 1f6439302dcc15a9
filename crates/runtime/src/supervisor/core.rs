//! The supervisor's state and its loop.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::Deserialize;

use super::client::Client;
use super::launch::{Launch, Order};
use super::log::{Log, Stream};
use super::process::{Asker, Phase, Process};
use super::report;
use super::stdio::{self, Wanted};
use crate::cgroup::OomWatch;
use crate::job::{Job, LogConfig};
use crate::protocol::{Reply, State, Target};
use crate::record::ExitRecord;
use crate::refusal::{LaunchError, Refusal};

/// Ended exec'd processes that are remembered.
pub(super) const REMEMBERED: usize = 128;
/// How soon to look again where no event will come.
const RECHECK: Duration = Duration::from_millis(50);

pub(super) struct Core {
    pub(super) job: Job,
    /// Until the end.
    pub(super) listener: Option<UnixListener>,
    pub(super) signals: SignalFd,
    /// What a container gets that names no OOM score.
    pub(super) oom_score_adj: String,
    pub(super) state: State,
    pub(super) started_at: Option<Timestamp>,
    pub(super) processes: BTreeMap<Target, Process>,
    /// Ended exec'd processes, oldest first.
    pub(super) ended_execs: VecDeque<String>,
    /// Children that ended before their launcher named them.
    pub(super) early: HashMap<Pid, WaitStatus>,
    pub(super) log: Option<Log>,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) next_client: u64,
    pub(super) created_waiters: Vec<Asker>,
    pub(super) end_waiters: Vec<Asker>,
    pub(super) oom: Oom,
    /// Why the container could not be created, or how it ended.
    pub(super) failure: Option<LaunchError>,
    pub(super) record: Option<ExitRecord>,
    pub(super) buffer: Vec<u8>,
}

/// Out-of-memory kills: what was seen and who wants to know.
#[derive(Default)]
pub(super) struct Oom {
    pub(super) watch: Option<OomWatch>,
    pub(super) seen: u64,
    pub(super) told: u64,
    /// The event comes before the kill: how often to look again.
    pub(super) rechecks: u32,
    pub(super) waiters: Vec<Asker>,
}

/// What a descriptor is for.
#[derive(Clone)]
pub(super) enum Token {
    Signals,
    Listener,
    Oom,
    Launch(Target),
    Output(Target, Stream),
    Input(Target),
    Client(u64),
}

/// The one thing that the supervisor itself needs from the OCI configuration.
#[derive(Deserialize)]
struct Peek {
    process: PeekProcess,
}

#[derive(Deserialize)]
struct PeekProcess {
    #[serde(default)]
    user: PeekUser,
}

#[derive(Default, Deserialize)]
struct PeekUser {
    #[serde(default)]
    uid: u32,
}

impl Core {
    pub(super) fn new(job: Job, listener: UnixListener, signals: SignalFd, oom_score_adj: String) -> Self {
        Self {
            job,
            listener: Some(listener),
            signals,
            oom_score_adj,
            state: State::Creating,
            started_at: None,
            processes: BTreeMap::new(),
            ended_execs: VecDeque::new(),
            early: HashMap::new(),
            log: None,
            clients: BTreeMap::new(),
            next_client: 0,
            created_waiters: Vec::new(),
            end_waiters: Vec::new(),
            oom: Oom::default(),
            failure: None,
            record: None,
            buffer: vec![0; 64 << 10],
        }
    }

    /// Creates the container and follows it to its end, and its clients until they have been told.
    pub(super) fn run(mut self) {
        if let Err(error) = self.create() {
            self.handle_failed_creation(error);
        }
        while self.state != State::Ended || self.clients.values().any(Client::has_unsent) {
            for (token, flags) in self.wait_for_events() {
                self.handle(token, flags);
            }
            self.check_oom();
            self.flush_clients();
        }
    }

    fn create(&mut self) -> Result<(), LaunchError> {
        if let LogConfig::JsonFile(config) = &self.job.log {
            let log = Log::open(config);
            self.log = Some(log.map_err(|err| LaunchError::Setup(format!("log {}: {err}", config.path.display())))?);
        }
        let path = self.job.bundle.join("config.json");
        let bytes = fs::read(&path).map_err(|err| LaunchError::Config(format!("{}: {err}", path.display())))?;
        let peek: Peek =
            serde_json::from_slice(&bytes).map_err(|err| LaunchError::Config(format!("{}: {err}", path.display())))?;
        let wanted = Wanted {
            tty: self.job.tty,
            stdin: self.job.open_stdin,
            output: true,
            uid: peek.process.user.uid,
            size: self.job.console_size,
        };
        let (io, ends) = stdio::open(wanted).map_err(|errno| report::setup_error("make pipes", errno))?;
        let launch = Launch::start(&self.job, &Order::Create, &ends, &self.oom_score_adj)?;
        self.processes.insert(Target::Main, Process::new(launch, io, None));
        Ok(())
    }

    /// Waits until something happens.
    fn wait_for_events(&self) -> Vec<(Token, PollFlags)> {
        let mut tokens = Vec::new();
        let mut fds = Vec::new();
        for (token, fd) in self.interests() {
            tokens.push(token);
            fds.push(fd);
        }
        let restless = self.oom.rechecks > 0 || self.clients.values().any(|client| client.has_unsent());
        let timeout = match restless {
            true => PollTimeout::try_from(RECHECK).expect("a short time"),
            false => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // without poll there is no supervisor; the daemon will find the container an orphan
            Err(errno) => panic!("poll: {errno}"),
        }
        let flags = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        tokens.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn interests(&self) -> Vec<(Token, PollFd<'_>)> {
        let mut list = vec![(Token::Signals, PollFd::new(self.signals.as_fd(), PollFlags::POLLIN))];
        if let Some(listener) = &self.listener {
            list.push((Token::Listener, PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        }
        if let Some(watch) = &self.oom.watch {
            list.push((Token::Oom, PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        }
        for (target, process) in &self.processes {
            if let Phase::Launching(launch) = &process.phase {
                list.push((Token::Launch(target.clone()), PollFd::new(launch.channel.as_fd(), PollFlags::POLLIN)));
                // its opener is answered before its first output
                continue;
            }
            if let (true, Some(stdin)) = (process.has_input(), &process.io.stdin) {
                list.push((Token::Input(target.clone()), PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)));
            }
            let held = self.clients.values().any(|client| {
                client.is_full() && client.attached.as_ref().is_some_and(|attached| attached.target == *target)
            });
            let outputs = [(Stream::Stdout, &process.io.stdout), (Stream::Stderr, &process.io.stderr)];
            for (stream, file) in outputs.into_iter().filter(|_| !held) {
                if let Some(file) = file {
                    let fd = PollFd::new(file.as_fd(), PollFlags::POLLIN);
                    list.push((Token::Output(target.clone(), stream), fd));
                }
            }
        }
        for (&id, client) in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.hears(client));
            flags.set(PollFlags::POLLOUT, client.has_unsent());
            list.push((Token::Client(id), PollFd::new(client.as_fd(), flags)));
        }
        list
    }

    /// Input for a process that does not read waits in the client's socket.
    fn hears(&self, client: &Client) -> bool {
        if client.silent {
            return false;
        }
        let target = client.attached.as_ref().map(|attached| &attached.target);
        target.and_then(|target| self.processes.get(target)).is_none_or(Process::wants_input)
    }

    fn flush_clients(&mut self) {
        let ended = self.state == State::Ended;
        self.clients.retain(|_, client| {
            let lost = client.flush().is_err() || (client.is_stalled() && (client.is_full() || ended));
            !lost && (client.has_unsent() || !client.leaving)
        });
    }

    /// Answers a question, if whoever asked is still there.
    pub(super) fn answer(&mut self, (client, id): Asker, result: Result<Reply, Refusal>) {
        if let Some(asker) = self.clients.get_mut(&client)
            && asker.answer(id, result, &self.job.state_dir).is_err()
        {
            self.clients.remove(&client);
        }
    }

    /// Tells everyone who is attached to a process how it ended; their streams end with that.
    pub(super) fn end_streams(&mut self, target: &Target, status: crate::record::ExitStatus) {
        let attached = self.clients.iter().filter_map(|(&id, client)| {
            let attached = client.attached.as_ref().filter(|attached| attached.target == *target)?;
            (!client.leaving).then_some((id, attached.request))
        });
        for (id, request) in attached.collect::<Vec<_>>() {
            self.answer((id, request), Ok(Reply::ExecEnded(status)));
            if let Some(client) = self.clients.get_mut(&id) {
                client.leaving = true;
            }
        }
    }
}
