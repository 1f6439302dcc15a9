//! A machine of the cluster: its disk, its containers, and the daemon that runs on it, or does not.

use std::path::Path;
use std::sync::Arc;

use shoal_agent::Agent;
use shoal_types::spec::{NodeRole, RaftConfig};
use shoal_types::{Cluster, ClusterId, Node, NodeId};
use tokio::task::JoinHandle;

use crate::containers::Containers;
use crate::disk::{Disk, Image};
use crate::net::Net;
use crate::observer::Observer;
use crate::place::{self, Place};
use crate::process::{Directory, Process};
use crate::supervisor::Supervisor;
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

/// Whether a machine belongs to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits to be let in.
    Outside,
    /// It does.
    Inside,
    /// It does not any more, and does not come back.
    Gone,
}

/// A machine.
pub struct Machine {
    pub site: Site,
    pub place: Place,
    pub node: NodeId,
    pub addr: String,
    pub disk: Disk,
    pub containers: Containers,
    /// What its certificate says.
    pub role: NodeRole,
    /// Managers that it knows when it starts.
    pub known: Vec<String>,
    /// What the first manager begins with.
    pub first: Option<(Cluster, Node)>,
    /// Its disk as it was once, for one of the planted bugs.
    pub backup: Option<Image>,
    pub stage: Stage,
    /// The next daemon makes a new cluster of what it has.
    pub is_forced: bool,
    daemon: Option<Daemon>,
}

/// A daemon that runs.
struct Daemon {
    process: Process,
    supervisor: JoinHandle<()>,
    agent: Agent,
}

impl Machine {
    /// A machine that is off.
    pub fn new(site: &Site, place: Place, node: NodeId, role: NodeRole) -> Self {
        Self {
            site: site.clone(),
            place,
            node,
            addr: format!("10.0.0.{place}:2377"),
            disk: Disk::new(&site.world),
            containers: Containers::new(&site.world, place),
            role,
            known: Vec::new(),
            first: None,
            backup: None,
            stage: Stage::Outside,
            is_forced: false,
            daemon: None,
        }
    }

    /// Whether its daemon runs.
    pub fn is_on(&self) -> bool {
        self.daemon.is_some()
    }

    /// Whether its daemon does not run, and should.
    pub fn is_missing(&self) -> bool {
        self.stage == Stage::Inside && !self.is_on()
    }

    /// What it is now.
    pub fn role(&self) -> NodeRole {
        self.daemon.as_ref().map_or(self.role, |daemon| daemon.process.role())
    }

    /// Starts the daemon. It does not stay where its agent cannot use the disk.
    pub fn start(&mut self) {
        if !self.is_missing() {
            return;
        }
        let site = &self.site;
        site.world.note(format_args!("start m{}", self.place));
        let mount = self.disk.mount();
        let shared = (&site.world, &site.net, &site.directory);
        let process = Process::new(shared, self.place, (self.node, self.role, site.cluster), self.known.clone());
        site.net.appear(self.place, &self.addr);
        let executor = Arc::new(self.containers.clone());
        let storage = {
            let mount = mount.clone();
            move || mount.storage(Path::new("/agent/tasks.redb"))
        };
        match place::enter(self.place, || Agent::start_on(storage, Arc::new(process.clone()), executor)) {
            Ok(agent) => {
                let supervisor = Supervisor {
                    site: site.clone(),
                    process: process.clone(),
                    mount,
                    addr: self.addr.clone(),
                    first: self.first.take(),
                    is_forced: std::mem::take(&mut self.is_forced),
                };
                let supervisor = place::spawn(self.place, supervisor.run());
                self.daemon = Some(Daemon { process, supervisor, agent });
            }
            Err(error) => {
                if !self.disk.is_full() {
                    site.world.violated(format_args!("m{} cannot open its record: {error}", self.place));
                }
                process.kill();
            }
        }
    }

    /// It leaves the cluster, or is lost with all that is on it. It does not come back.
    pub fn leave(&mut self, dark: bool) {
        self.site.world.note(format_args!("m{} is gone for good", self.place));
        self.kill(dark);
        self.containers.clear();
        self.stage = Stage::Gone;
    }

    /// Has another address from the next start on.
    pub fn move_to(&mut self, addr: String) {
        self.site.world.note(format_args!("m{} moves to {addr}", self.place));
        self.kill(true);
        self.addr = addr;
    }

    /// The daemon is killed. With `dark` the whole machine loses its power.
    pub fn kill(&mut self, dark: bool) {
        let Some(daemon) = self.daemon.take() else { return };
        self.site.world.note(format_args!("{} m{}", if dark { "power off" } else { "kill" }, self.place));
        daemon.process.kill();
        self.role = daemon.process.role();
        let known = daemon.process.managers();
        if !known.is_empty() {
            self.known = known;
        }
        if dark {
            self.disk.power_fails();
            self.containers.power_fails();
        } else {
            self.disk.kill();
        }
        self.site.net.kill(self.place, dark);
        self.site.directory.leave(self.place);
        daemon.supervisor.abort();
        drop(place::spawn(self.place, daemon.agent.stop()));
    }
}
