//! Processes that are started in running containers.

use std::sync::Arc;

use bollard_stubs::models::{ExecConfig, ExecInspectResponse, ProcessConfig};
use serde::{Deserialize, Serialize};
use shoal_runtime::{
    AttachOptions, CallError, ConsoleSize, ExecSpec, ExecState, ExitStatus, LaunchError, Refusal, Supervisor, Target,
};

use tokio::sync::watch;

use crate::attach::Attached;
use crate::container::Container;
use crate::container::spec::ContainerSpec;
use crate::container::status::Phase;
use crate::engine::{Engine, blocking, detached};
use crate::error::{Error, Result};
use crate::names;
use crate::options::ExecStartOptions;
use crate::spec::ProcessInput;

/// Ended processes that are remembered per container.
const KEPT: usize = 64;

/// A process of a container beside its first.
#[derive(Debug)]
pub(crate) struct Exec {
    pub id: String,
    pub config: ExecConfig,
    /// Orders them by age.
    born: jiff::Timestamp,
    state: watch::Sender<State>,
}

/// Where it is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Starting,
    Running(i32),
    Ended(i32),
}

/// What a new daemon must know of a process that runs on. In the run directory, as `exec-ID.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: String,
    config: ExecConfig,
}

impl Exec {
    fn new(id: String, config: ExecConfig, state: State) -> Arc<Self> {
        Arc::new(Self { id, config, born: jiff::Timestamp::now(), state: watch::Sender::new(state) })
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state(), State::Starting | State::Running(_))
    }

    fn state(&self) -> State {
        *self.state.borrow()
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Waits until its exit code is known: a client that sees the end of the output asks for it at once.
    pub async fn ended(&self) {
        let mut seen = self.state.subscribe();
        // the sender is this exec's own: it lives as long as the borrow
        seen.wait_for(|state| matches!(state, State::Ended(_))).await.ok();
    }

    fn command(&self) -> &[String] {
        self.config.cmd.as_deref().unwrap_or_default()
    }

    fn action(&self, what: &str) -> String {
        format!("{what}: {}", self.command().join(" "))
    }

    fn wants_streams(&self) -> AttachOptions {
        let on = |flag: Option<bool>| flag.unwrap_or_default();
        AttachOptions {
            stdin: on(self.config.attach_stdin),
            stdout: on(self.config.attach_stdout),
            stderr: on(self.config.attach_stderr),
        }
    }
}

impl Engine {
    /// Prepares a process in a running container; returns its id.
    pub async fn exec_create(self: &Arc<Self>, name: &str, config: ExecConfig) -> Result<String> {
        let container = self.containers.find(name)?;
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        crate::detach::DetachKeys::parse(config.detach_keys.as_deref().unwrap_or_default())?;
        let dir = config.working_dir.as_deref().unwrap_or_default();
        if !dir.is_empty() && !dir.starts_with('/') {
            return Err(Error::invalid(format!("Cwd must be an absolute path: {dir}")));
        }
        let exec = Exec::new(names::new_id(&mut rand::rng()), config, State::Created);
        {
            let mut data = container.data();
            check_running(&container, data.status.phase)?;
            forget_oldest(&mut data.execs);
            data.execs.insert(exec.id.clone(), exec.clone());
        }
        self.container_event(&container, &exec.action("exec_create"), &[("execID", exec.id.clone())]);
        Ok(exec.id.clone())
    }

    /// Starts a prepared process with its streams. A command that cannot be run is told in its stream, as Docker does: by then
    /// clients have taken over the connection. Its exit code is 126 or 127.
    pub async fn exec_start(self: &Arc<Self>, id: &str, options: ExecStartOptions) -> Result<Attached> {
        let (container, exec) = self.begin_exec(id)?;
        let engine = self.clone();
        detached(async move {
            let attach = exec.wants_streams();
            match engine.launch_exec(&container, &exec, &options, Some(attach)).await {
                Ok(Some(stream)) => engine.exec_attached(&container, &exec, stream),
                Ok(None) => Err(Error::NotRunning(container.id.clone())),
                Err(error @ Error::Launch { .. }) => {
                    Ok(Attached::of_text(exec.config.tty.unwrap_or_default(), format!("{error}\r\n")))
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Starts a prepared process with nobody attached.
    pub async fn exec_start_detached(self: &Arc<Self>, id: &str, options: ExecStartOptions) -> Result<()> {
        let (container, exec) = self.begin_exec(id)?;
        let engine = self.clone();
        detached(async move { engine.launch_exec(&container, &exec, &options, None).await.map(drop) }).await
    }

    /// What became of a process.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecInspectResponse> {
        let (container, exec) = self.find_exec(id)?;
        let (running, code, pid) = match exec.state() {
            State::Created => (false, None, 0),
            State::Starting => (true, None, 0),
            State::Running(pid) => (true, None, pid),
            State::Ended(code) => (false, Some(code.into()), 0),
        };
        let config = &exec.config;
        let (entrypoint, arguments) =
            exec.command().split_first().map(|(a, b)| (a.clone(), b.to_vec())).unwrap_or_default();
        Ok(ExecInspectResponse {
            can_remove: Some(false),
            detach_keys: Some(String::new()),
            id: Some(exec.id.clone()),
            running: Some(running),
            exit_code: code,
            process_config: Some(ProcessConfig {
                privileged: Some(config.privileged.unwrap_or_default()),
                user: config.user.clone(),
                tty: Some(config.tty.unwrap_or_default()),
                entrypoint: Some(entrypoint),
                arguments: Some(arguments),
            }),
            open_stdin: Some(config.attach_stdin.unwrap_or_default()),
            open_stderr: Some(config.attach_stderr.unwrap_or_default()),
            open_stdout: Some(config.attach_stdout.unwrap_or_default()),
            container_id: Some(container.id.clone()),
            pid: Some(pid.into()),
        })
    }

    /// Sets the size of a process's terminal.
    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let (container, exec) = self.find_exec(id)?;
        if !exec.is_running() {
            return Err(Error::Conflict(format!("exec {id} is not running")));
        }
        let size = ConsoleSize { height, width };
        Ok(container.supervisor()?.resize(Target::Exec(exec.id.clone()), size).await?)
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, name: &str, height: u16, width: u16) -> Result<()> {
        let container = self.containers.find(name)?;
        Ok(container.supervisor()?.resize(Target::Main, ConsoleSize { height, width }).await?)
    }

    fn find_exec(&self, id: &str) -> Result<(Arc<Container>, Arc<Exec>)> {
        let found = self.containers.all().into_iter().find_map(|container| {
            let exec = container.data().execs.get(id).cloned();
            exec.map(|exec| (container, exec))
        });
        found.ok_or_else(|| Error::NoSuchExec(id.to_owned()))
    }

    fn begin_exec(&self, id: &str) -> Result<(Arc<Container>, Arc<Exec>)> {
        let (container, exec) = self.find_exec(id)?;
        check_running(&container, container.phase())?;
        let mut begun = Ok(());
        exec.state.send_if_modified(|state| {
            begun = match *state {
                State::Created => Ok(()),
                State::Starting | State::Running(_) => Err("is already running"),
                State::Ended(_) => Err("has already run"),
            };
            if begun.is_ok() {
                *state = State::Starting;
            }
            begun.is_ok()
        });
        match begun {
            Ok(()) => Ok((container, exec)),
            Err(why) => Err(Error::Conflict(format!("Error: Exec command {id} {why}"))),
        }
    }

    async fn launch_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        options: &ExecStartOptions,
        attach: Option<AttachOptions>,
    ) -> Result<Option<shoal_runtime::AttachStream>> {
        let started = self.try_exec(container, exec, options, attach).await;
        match started {
            Ok((supervisor, stream, pid)) => {
                exec.set(State::Running(pid));
                self.container_event(container, &exec.action("exec_start"), &[("execID", exec.id.clone())]);
                self.watch_exec(container, exec, supervisor);
                Ok(stream)
            }
            Err(error) => {
                let code = match &error {
                    Error::Launch { exit_code, .. } => *exit_code,
                    _ => 126,
                };
                exec.set(State::Ended(code));
                Err(error)
            }
        }
    }

    async fn try_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        options: &ExecStartOptions,
        attach: Option<AttachOptions>,
    ) -> Result<(Supervisor, Option<shoal_runtime::AttachStream>, i32)> {
        let supervisor = container.supervisor()?;
        let spec = {
            let (engine, spec, exec) = (self.clone(), container.spec(), exec.clone());
            blocking(move || {
                engine.note_exec(&spec, &exec)?;
                engine.exec_spec(&spec, &exec.id, &exec.config)
            })
            .await?
        };
        let mut spec = spec;
        if let Some((height, width)) = options.console_size.or_else(|| console_size(&exec.config)) {
            spec.process.set_console_size(Some(
                oci_spec::runtime::BoxBuilder::default()
                    .height(height)
                    .width(width)
                    .build()
                    .expect("both sides are given"),
            ));
        }
        match attach {
            Some(attach) => {
                let (stream, pid) = supervisor.exec_attached(spec, attach).await.map_err(exec_error)?;
                Ok((supervisor, Some(stream), pid))
            }
            None => {
                let pid = supervisor.exec(spec).await.map_err(exec_error)?;
                Ok((supervisor, None, pid))
            }
        }
    }

    /// The process as the supervisor is told. Reads the container's account files.
    pub(crate) fn exec_spec(&self, spec: &ContainerSpec, id: &str, config: &ExecConfig) -> Result<ExecSpec> {
        let rootfs = self.images.ensure_mounted(&spec.id)?.path;
        let own = config.user.as_deref().filter(|user| !user.is_empty());
        let name = own.or(spec.config.user.as_deref()).unwrap_or_default();
        let groups = spec.host_config.group_add.clone().unwrap_or_default();
        let user = crate::spec::resolve_in(&rootfs, name, &groups)?;
        let tty = config.tty.unwrap_or_default();
        let mut all = spec.config.clone();
        all.env.get_or_insert_default().extend(config.env.iter().flatten().cloned());
        let hostname = spec.config.hostname.clone().unwrap_or_default();
        let dir = config.working_dir.as_deref().filter(|dir| !dir.is_empty());
        let cwd = dir.or(spec.config.working_dir.as_deref().filter(|dir| !dir.is_empty())).unwrap_or("/");
        let process = crate::spec::process(&ProcessInput {
            spec,
            node: &self.node,
            user: &user,
            args: config.cmd.clone().unwrap_or_default(),
            env: crate::container::merge::environment(&all, &hostname, tty),
            cwd: cwd.to_owned(),
            tty,
            privileged: config.privileged.unwrap_or_default() || spec.host_config.privileged.unwrap_or_default(),
        })?;
        Ok(ExecSpec { id: id.to_owned(), process, open_stdin: config.attach_stdin.unwrap_or_default() })
    }

    fn note_exec(&self, spec: &ContainerSpec, exec: &Exec) -> Result<()> {
        let path = self.layout.run(&spec.id).join(format!("exec-{}.json", exec.id));
        let note = Note { id: exec.id.clone(), config: exec.config.clone() };
        let bytes = serde_json::to_vec(&note).map_err(|e| Error::at("encode", &path)(e.into()))?;
        std::fs::write(&path, bytes).map_err(Error::at("write", &path))
    }

    fn watch_exec(self: &Arc<Self>, container: &Arc<Container>, exec: &Arc<Exec>, supervisor: Supervisor) {
        let (engine, container, exec) = (self.clone(), container.clone(), exec.clone());
        tokio::spawn(async move {
            let code = match supervisor.exec_wait(&exec.id).await {
                Ok(ExitStatus { code, .. }) => code,
                // the container has ended and took it along
                Err(_) => 137,
            };
            exec.set(State::Ended(code));
            let attributes = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
            engine.container_event(&container, "exec_die", &attributes);
            let note = engine.layout.run(&container.id).join(format!("exec-{}.json", exec.id));
            // gone with the run directory where the container has ended
            tokio::fs::remove_file(note).await.ok();
        });
    }

    /// Goes on with the processes that an earlier daemon started.
    pub(crate) fn adopt_execs(
        self: &Arc<Self>,
        container: &Arc<Container>,
        supervisor: &Supervisor,
        execs: &std::collections::BTreeMap<String, ExecState>,
    ) {
        for (id, state) in execs {
            let path = self.layout.run(&container.id).join(format!("exec-{id}.json"));
            let note = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
            // a health probe of the earlier daemon: its result has nobody to go to
            let Some(note) = note else { continue };
            let state = match state {
                ExecState::Starting => State::Starting,
                ExecState::Running(pid) => State::Running(*pid),
                ExecState::Ended(status) => State::Ended(status.code),
            };
            let exec = Exec::new(note.id, note.config, state);
            container.data().execs.insert(exec.id.clone(), exec.clone());
            if exec.is_running() {
                self.watch_exec(container, &exec, supervisor.clone());
            }
        }
    }
}

fn check_running(container: &Container, phase: Phase) -> Result<()> {
    let id = &container.id;
    match phase {
        Phase::Running => Ok(()),
        Phase::Paused => Err(Error::Conflict(format!("container {id} is paused, unpause the container before exec"))),
        Phase::Restarting => {
            Err(Error::Conflict(format!("container {id} is restarting, wait until the container is running")))
        }
        Phase::Created | Phase::Exited => Err(Error::NotRunning(id.clone())),
    }
}

fn forget_oldest(execs: &mut std::collections::HashMap<String, Arc<Exec>>) {
    while execs.len() >= KEPT {
        let over = execs.values().filter(|exec| !exec.is_running()).min_by_key(|exec| exec.born).map(|e| e.id.clone());
        match over {
            Some(id) => drop(execs.remove(&id)),
            None => return,
        }
    }
}

fn console_size(config: &ExecConfig) -> Option<(u64, u64)> {
    match config.console_size.as_deref()? {
        [height, width] if *height > 0 && *width > 0 => Some((*height as u64, *width as u64)),
        _ => None,
    }
}

/// In Docker's words, with the exit code that the exec now reports.
fn exec_error(error: CallError) -> Error {
    match error {
        CallError::Refused(Refusal::Launch(cause)) => {
            let exit_code = match cause {
                LaunchError::CommandNotFound(_) => 127,
                _ => 126,
            };
            let message =
                format!("OCI runtime exec failed: exec failed: unable to start container process: {cause}: unknown");
            Error::Launch { message, exit_code }
        }
        CallError::Gone(id) | CallError::Refused(Refusal::NotRunning(id)) => Error::NotRunning(id),
        other => other.into(),
    }
}
