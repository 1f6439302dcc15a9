//! A machine of the cluster: its disk, its containers, and the daemon that runs on it, or does not.

use std::path::Path;
use std::sync::Arc;

use shoal_agent::Agent;
use shoal_manager::{Control, Manager};
use shoal_raft::{Config, DataKey, Raft};
use shoal_types::spec::{NodeRole, RaftConfig};
use shoal_types::{ClusterId, NodeId};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Server;

use crate::containers::Containers;
use crate::disk::{Disk, Image};
use crate::net::Net;
use crate::observer::Observer;
use crate::place::{self, Place};
use crate::process::{Directory, Door, Process};
use crate::world::World;

/// What all machines share.
#[derive(Clone)]
pub struct Site {
    pub world: World,
    pub net: Net,
    pub directory: Directory,
    pub observer: Observer,
    pub cluster: ClusterId,
    /// How long the log of a manager may grow.
    pub limits: RaftConfig,
}

/// A machine.
pub struct Machine {
    pub site: Site,
    pub place: Place,
    pub node: NodeId,
    pub addr: String,
    pub disk: Disk,
    pub containers: Containers,
    /// Whether it has, or is to have, a part in consensus.
    pub is_manager: bool,
    /// Managers that it knows when it starts.
    pub known: Vec<String>,
    /// Its disk as it was once, for one of the planted bugs.
    pub backup: Option<Image>,
    pub daemon: Option<Daemon>,
}

/// A daemon that runs.
pub struct Daemon {
    pub process: Process,
    pub manager: Option<Part>,
    agent: Agent,
}

/// A manager that runs.
pub struct Part {
    pub raft: Raft,
    pub control: Control,
    manager: Manager,
    server: JoinHandle<()>,
    observer: JoinHandle<()>,
}

impl Machine {
    /// A machine that is off.
    pub fn new(site: &Site, place: Place, node: NodeId, is_manager: bool) -> Self {
        Self {
            site: site.clone(),
            place,
            node,
            addr: format!("10.0.0.{place}:2377"),
            disk: Disk::new(&site.world),
            containers: Containers::new(&site.world, place),
            is_manager,
            known: Vec::new(),
            backup: None,
            daemon: None,
        }
    }

    /// Starts the daemon; whether that worked. One whose manager cannot start does not stay.
    pub async fn start(&mut self) -> bool {
        let site = self.site.clone();
        site.world.note(format_args!("start m{}", self.place));
        let mount = self.disk.mount();
        let role = if self.is_manager { NodeRole::Manager } else { NodeRole::Worker };
        let shared = (&site.world, &site.net, &site.directory);
        let process = Process::new(shared, self.place, (self.node, role, site.cluster), self.known.clone());
        site.net.appear(self.place, &self.addr);
        let mut part = None;
        if self.is_manager {
            let config = Config {
                dir: "/raft".into(),
                key: DataKey::new(&[self.place as u8; 32]),
                limits: site.limits.clone(),
                force_new: false,
            };
            let (mount, transport) = (Arc::new(mount.clone()), Arc::new(process.clone()));
            let open = async move { Raft::open_on(mount, &config, transport).await };
            match place::spawn(self.place, open).await {
                Ok(Ok(raft)) => part = Some(self.manage(raft, &process)),
                Ok(Err(error)) => {
                    site.world.note(format_args!("m{} cannot open its log: {error}", self.place));
                    self.site.observer.cannot_open(self.place, &error);
                    process.kill();
                    return false;
                }
                Err(panic) => {
                    site.world.violated(format_args!("m{} cannot open its log: {panic}", self.place));
                    return false;
                }
            }
        }
        let executor = Arc::new(self.containers.clone());
        let storage = mount.storage(Path::new("/agent/tasks.redb"));
        let Ok(storage) = storage else { return false };
        let agent = place::enter(self.place, || Agent::start_on(storage, Arc::new(process.clone()), executor));
        match agent {
            Ok(agent) => {
                self.daemon = Some(Daemon { process, manager: part, agent });
                true
            }
            Err(error) => {
                site.world.note(format_args!("m{} cannot open its record: {error}", self.place));
                process.kill();
                if let Some(part) = part {
                    part.end(self.place);
                }
                false
            }
        }
    }

    fn manage(&self, raft: Raft, process: &Process) -> Part {
        let site = &self.site;
        place::enter(self.place, || {
            let manager = Manager::start(raft.clone(), site.cluster, Arc::new(process.clone()));
            let control = manager.control();
            let door = Door { process: process.clone(), raft: raft.clone(), control: control.clone() };
            site.directory.enter(self.place, door);
            let incoming = UnboundedReceiverStream::new(site.net.listen(self.place)).map(Ok::<_, std::io::Error>);
            let routes = manager.routes();
            let server = tokio::spawn(async move {
                drop(Server::builder().add_routes(routes).serve_with_incoming(incoming).await);
            });
            let observer = tokio::spawn(site.observer.clone().follow(self.place, raft.clone()));
            Part { raft, control, manager, server, observer }
        })
    }

    /// The daemon is killed. With `dark` the whole machine loses its power.
    pub fn kill(&mut self, dark: bool) {
        let Some(daemon) = self.daemon.take() else { return };
        self.site.world.note(format_args!("{} m{}", if dark { "power off" } else { "kill" }, self.place));
        daemon.process.kill();
        self.known = daemon.process.managers();
        if dark {
            self.disk.power_fails();
            self.containers.power_fails();
        } else {
            self.disk.kill();
        }
        self.site.net.kill(self.place, dark);
        self.site.directory.leave(self.place);
        if let Some(part) = daemon.manager {
            part.end(self.place);
        }
        drop(place::spawn(self.place, daemon.agent.stop()));
    }

    /// The manager that runs on it.
    pub fn part(&self) -> Option<&Part> {
        self.daemon.as_ref()?.manager.as_ref()
    }

    /// Whether consensus has ended by itself: the daemon would start it again.
    pub fn is_stuck(&self) -> bool {
        use futures::FutureExt;
        self.part().is_some_and(|part| part.raft.stopped().now_or_never().is_some())
    }
}

impl Part {
    fn end(self, place: Place) {
        self.server.abort();
        self.observer.abort();
        drop(self.manager);
        let raft = self.raft;
        drop(place::spawn(place, async move { raft.stop().await }));
    }
}
