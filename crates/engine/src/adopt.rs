//! A new daemon and what an earlier one left: running containers are gone on with, those that ended meanwhile are
//! reported, restart policies are applied, half-made things are swept.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shoal_network::LiveEndpoint;
use shoal_runtime::{ConnectError, Connected, ExitRecord, ExitStatus, State, Supervisor, Target};

use crate::container::Container;
use crate::container::exit::{ended, span};
use crate::container::restart::starts_with_the_daemon;
use crate::container::spec::ContainerSpec;
use crate::container::start::Starter;
use crate::container::status::{Phase, Status};
use crate::engine::Engine;
use crate::error::OpenError;
use crate::layout::Layout;
use crate::record::{Kind, Record};
use crate::signal;

/// The exit code of a container that ended with the machine.
const LOST: i32 = 255;

/// How long a container that was never started may take to end.
const UNSTARTED: Duration = Duration::from_secs(10);
/// How long it is waited before it is told again.
const AGAIN: Duration = Duration::from_millis(20);

/// What was found on the disk.
pub(crate) struct Found {
    containers: Vec<FoundContainer>,
    /// Records of containers whose removal was half done.
    removed: Vec<String>,
}

struct FoundContainer {
    container: Arc<Container>,
    fate: Fate,
}

/// What has become of a container.
enum Fate {
    /// It runs.
    Alive(Supervisor, Box<shoal_runtime::Status>),
    /// It has ended since.
    Ended(Box<ExitRecord>),
    /// It ended with the machine.
    Lost,
    /// Its supervisor is there and does not answer.
    Silent,
    /// It was not running.
    Idle,
}

/// Reads the record and asks the supervisors.
pub(crate) async fn find(layout: &Layout, record: &Record) -> Result<Found, OpenError> {
    let specs: Vec<ContainerSpec> = record.load(Kind::Container)?;
    let (there, gone): (Vec<_>, Vec<_>) = specs.into_iter().partition(|spec| layout.container(&spec.id).is_dir());
    let removed = gone.into_iter().map(|spec| spec.id).collect();
    let asked = there.into_iter().map(|spec| {
        let layout = layout.clone();
        async move {
            let dir = layout.container(&spec.id);
            let status = Status::load(&dir);
            let fate = fate(&layout, &spec.id, &status).await;
            FoundContainer { container: Container::new(Arc::new(spec), status, dir), fate }
        }
    });
    Ok(Found { containers: futures::future::join_all(asked).await, removed })
}

async fn fate(layout: &Layout, id: &str, status: &Status) -> Fate {
    match Supervisor::connect(&layout.run(id)).await {
        Ok(Connected::Alive(supervisor, state)) => match state.state {
            State::Running | State::Paused | State::Ended => Fate::Alive(supervisor, state),
            // the earlier daemon did not come to start it
            State::Creating | State::Created => {
                end_unstarted(&supervisor, id).await;
                Fate::Idle
            }
        },
        // only a run that the state knows of has ended: the record may be of a start that failed
        Ok(Connected::Ended(record)) if status.phase.is_alive() => Fate::Ended(record),
        Ok(Connected::Ended(_)) => Fate::Idle,
        // The machine was started anew: how the container ended is known only if its supervisor came to write it down.
        Err(ConnectError::NoJob(_)) if status.phase.is_alive() => match ExitRecord::load(&layout.container(id)) {
            Ok(Some(record)) => Fate::Ended(Box::new(record)),
            _ => Fate::Lost,
        },
        Err(ConnectError::NoJob(_)) => Fate::Idle,
        Err(error) => {
            tracing::warn!(container = id, %error, "supervisor cannot be asked");
            Fate::Silent
        }
    }
}

/// Ends a container that nobody will start. One that is just being made cannot be signalled yet, and would wait for its start
/// for ever: it is told again until it has heard.
async fn end_unstarted(supervisor: &Supervisor, id: &str) {
    let kill = async {
        loop {
            if let Err(error) = supervisor.signal(Target::Main, signal::KILL).await {
                tracing::debug!(container = id, %error, "a container that was never started does not end yet");
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        // its end is what is waited for, not how it ended
        _ = supervisor.wait() => {}
        () = kill => {}
        () = tokio::time::sleep(UNSTARTED) => {
            tracing::warn!(container = id, "a container that was never started stays until it is removed");
        }
    }
}

fn lost(id: &str) -> ExitRecord {
    ExitRecord {
        id: id.to_owned(),
        status: ExitStatus::exited(LOST),
        oom_killed: false,
        started_at: None,
        finished_at: Timestamp::now(),
        launch_error: None,
        error: None,
        execs: Default::default(),
    }
}

impl Found {
    /// The places in the network of what runs.
    pub fn live_endpoints(&self) -> Vec<LiveEndpoint> {
        let alive = self.containers.iter().filter(|found| matches!(found.fate, Fate::Alive(..) | Fate::Silent));
        let endpoints = alive.filter_map(|found| {
            let status = found.container.status();
            Some(LiveEndpoint { endpoint: status.endpoint?, pid: status.pid })
        });
        endpoints.collect()
    }
}

impl Engine {
    /// Goes on with what was found.
    pub(crate) async fn adopt(self: &Arc<Self>, found: Found) {
        self.sweep(&found).await;
        for FoundContainer { container, .. } in &found.containers {
            let name = container.spec().name.clone();
            if let Err(error) = self.containers.reserve(&name, &container.id) {
                tracing::error!(container = %container.id, %error, "two containers have one name: this one is known by its id only");
            }
            self.containers.insert(container.clone());
        }
        for FoundContainer { container, fate } in found.containers {
            if matches!(fate, Fate::Lost) {
                // Before anybody asks whether it has to be started again.
                container.data().status.lost = true;
                self.handle_exit(&container, lost(&container.id)).await;
            } else {
                self.adopt_one(&container, fate);
            }
        }
    }

    fn adopt_one(self: &Arc<Self>, container: &Arc<Container>, fate: Fate) {
        match fate {
            Fate::Alive(supervisor, state) => self.adopt_alive(container, supervisor, &state),
            Fate::Ended(record) => {
                let (engine, container) = (self.clone(), container.clone());
                tokio::spawn(async move { engine.handle_exit(&container, *record).await });
            }
            Fate::Silent => {
                let (engine, container) = (self.clone(), container.clone());
                tokio::spawn(async move { engine.adopt_silent(&container).await });
            }
            Fate::Idle | Fate::Lost => self.adopt_idle(container),
        }
    }

    fn adopt_alive(
        self: &Arc<Self>,
        container: &Arc<Container>,
        supervisor: Supervisor,
        state: &shoal_runtime::Status,
    ) {
        container.set_status(|data| {
            data.supervisor = Some(supervisor.clone());
            let status = &mut data.status;
            status.phase = if state.state == State::Paused { Phase::Paused } else { Phase::Running };
            status.pid = state.pid.or(status.pid);
            status.started_at = state.started_at.or(status.started_at);
            status.oom_killed |= state.oom_killed;
        });
        self.adopt_execs(container, &supervisor, &state.execs);
        if let Some(plan) = self.health_plan(&container.spec()) {
            container.set_status(|data| {
                data.status.health.get_or_insert_default();
            });
            self.check_health(container, plan);
        }
        self.watch(container, supervisor);
    }

    /// Asks until it answers or has ended.
    async fn adopt_silent(self: &Arc<Self>, container: &Arc<Container>) {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            match Supervisor::connect(&self.layout.run(&container.id)).await {
                Ok(Connected::Alive(supervisor, state)) => return self.adopt_alive(container, supervisor, &state),
                Ok(Connected::Ended(record)) => return self.handle_exit(container, *record).await,
                Err(error) => tracing::warn!(container = %container.id, %error, "supervisor cannot be asked"),
            }
        }
    }

    /// One that does not run: started by its policy, removed if it was to be, or left as it is.
    fn adopt_idle(self: &Arc<Self>, container: &Arc<Container>) {
        let (spec, status) = (container.spec(), container.status());
        let waiting = status.phase == Phase::Restarting;
        if status.endpoint.is_some() || waiting {
            container.set_status(|data| {
                data.status.endpoint = None;
                data.status.pid = None;
                if data.status.phase == Phase::Restarting {
                    data.status.phase = Phase::Exited;
                }
            });
        }
        let Some(started) = status.started_at else { return };
        let ran = span(started, status.finished_at.unwrap_or(started));
        let starts = starts_with_the_daemon(spec.host_config.restart_policy.as_ref(), ended(&status, ran));
        let (engine, container) = (self.clone(), container.clone());
        if starts || waiting {
            tokio::spawn(async move {
                if let Err(error) = engine.apply_start(&container, Starter::Policy).await {
                    tracing::warn!(container = %container.id, %error, "container cannot be started with the daemon");
                }
            });
        } else if spec.auto_remove() {
            tokio::spawn(async move { engine.remove_ended(&container).await });
        }
    }

    /// Takes away what belongs to no container.
    async fn sweep(self: &Arc<Self>, found: &Found) {
        for id in &found.removed {
            self.record.forget(Kind::Container, id);
        }
        let known: HashMap<&str, bool> = found
            .containers
            .iter()
            .map(|found| (found.container.id.as_str(), !matches!(found.fate, Fate::Idle | Fate::Ended(_))))
            .collect();
        for id in self.images.snapshots() {
            let result = match known.get(id.as_str()) {
                None => self.images.remove_snapshot(&id),
                Some(false) => self.images.ensure_unmounted(&id),
                Some(true) => Ok(()),
            };
            if let Err(error) = result {
                tracing::warn!(container = id, %error, "a root file system that nobody needs stays");
            }
        }
        self.sweep_files(|id| known.contains_key(id));
        for id in names_in(&self.layout.runs()) {
            if known.get(id.as_str()) != Some(&true) {
                self.release_ground(&id);
            }
        }
        for id in names_in(&self.layout.containers()) {
            let dir = self.layout.container(&id);
            if !known.contains_key(id.as_str())
                && let Err(error) = fs::remove_dir_all(&dir)
            {
                tracing::warn!(path = %dir.display(), %error, "a directory that nobody needs stays");
            }
        }
        let trash = self.layout.trash();
        tokio::task::spawn_blocking(move || {
            for entry in fs::read_dir(&trash).into_iter().flatten().flatten() {
                if let Err(error) = fs::remove_dir_all(entry.path()) {
                    tracing::warn!(path = %entry.path().display(), %error, "a removed container's files stay");
                }
            }
        });
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
