//! The whole cluster: how it comes up, what can be done to it, and when it is calm.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_manager::RandomIds;
use shoal_manager::control::Filters;
use shoal_raft::Tx;
use shoal_types::object::RootCa;
use shoal_types::spec::{Availability, ClusterSpec, NodeRole, NodeSpec};
use shoal_types::{Change, Cluster as ClusterObject, Meta, Node, NodeId, Object, View};
use tokio::time::Instant;

use crate::client::{Client, REGISTERS, insist, is_restless, register, replicated, service};
use crate::invariants::unsettled;
use crate::ledger::Ledger;
use crate::machine::{Machine, Site, Stage};
use crate::net::Quality;
use crate::place::{self, Place};
use crate::process::Door;

/// The service that is made when all is calm.
pub const LAST: &str = "last";
/// How long nothing may happen until the cluster is calm.
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take to get there.
const HEAL: Duration = Duration::from_secs(240);
/// How long it may take to come up.
const BOOT: Duration = Duration::from_secs(30);
/// How long a machine waits until it is let in, before it asks again.
const GREETING: Duration = Duration::from_secs(2);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A cluster.
pub struct Cluster {
    pub site: Site,
    pub machines: Vec<Machine>,
    pub ledger: Ledger,
    /// A manager has got another address.
    has_moved: bool,
}

impl Cluster {
    /// A cluster of `managers` and `workers` that is up and has its registers.
    ///
    /// # Errors
    /// It does not come up; never right.
    pub async fn boot(site: Site, managers: usize, workers: usize) -> Result<Self, String> {
        let mut this = Self { site, machines: Vec::new(), ledger: Ledger::default(), has_moved: false };
        this.add(NodeRole::Manager);
        this.machines[0].known = vec![this.machines[0].addr.clone()];
        this.machines[0].first = Some((this.object(), this.node_object(0)));
        this.machines[0].stage = Stage::Inside;
        this.machines[0].start();
        for number in 1..managers + workers {
            this.wait("somebody leads", |this| this.leading().is_some()).await?;
            this.add(if number < managers { NodeRole::Manager } else { NodeRole::Worker });
            if !this.let_in().await {
                return Err(format!("m{number} cannot be added"));
            }
        }
        this.wait("managers come up", |this| this.site.directory.doors().len() == managers).await?;
        let door = this.leading().ok_or("nobody leads")?;
        for name in REGISTERS {
            let made = door.control.create_service(register(name), None).await;
            made.map_err(|e| format!("cannot make {name}: {}", e.message))?;
        }
        Ok(this)
    }

    async fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let until = Instant::now() + BOOT;
        while !holds(self) {
            if Instant::now() > until {
                return Err(format!("at the beginning, in good weather, it does not happen that {what}"));
            }
            tokio::time::sleep(LOOK / 10).await;
        }
        Ok(())
    }

    /// Adds a machine, which has to be let in.
    pub fn add(&mut self, role: NodeRole) {
        let node = place::enter(self.machines.len(), || NodeId::new(&mut RandomIds));
        self.site.world.note(format_args!("m{} is {node}", self.machines.len()));
        self.machines.push(Machine::new(&self.site, self.machines.len(), node, role));
    }

    /// Lets in those who wait; whether nobody waits any more.
    pub async fn let_in(&mut self) -> bool {
        for place in 0..self.machines.len() {
            if self.machines[place].stage == Stage::Outside && !self.join(place).await {
                return false;
            }
        }
        true
    }

    /// Takes a machine in: its node, then its daemon, which sees to the rest. Whether that worked.
    async fn join(&mut self, place: Place) -> bool {
        let Some(leader) = self.leading() else { return false };
        let node = self.node_object(place);
        // What was lost on its way may have arrived all the same.
        let write = move |tx: &mut Tx| match tx.node(node.id) {
            Some(_) => Ok(()),
            None => tx.change(Change::Put(Object::Node(node.into()))),
        };
        let raft = leader.raft.clone();
        let written = leader.process.run(async move { tokio::time::timeout(GREETING, raft.write(write)).await });
        if !matches!(written.await, Some(Ok(Ok(())))) {
            return false;
        }
        let managers = self.site.directory.doors();
        let known = managers.iter().map(|door| self.machines[door.process.place()].addr.clone()).collect();
        self.machines[place].known = known;
        self.machines[place].stage = Stage::Inside;
        self.machines[place].start();
        true
    }

    fn object(&self) -> ClusterObject {
        let text = String::new;
        let root_ca = RootCa { cert_pem: "root".into(), key_pem: text(), worker_token: text(), manager_token: text() };
        let mut spec = ClusterSpec::initial();
        spec.raft = self.site.limits.clone();
        ClusterObject {
            id: self.site.cluster,
            meta: Meta::default(),
            spec,
            root_ca,
            default_addr_pool: vec!["10.0.0.0/8".into()],
            subnet_size: 24,
            data_path_port: 4789,
            blacklist: Default::default(),
            unlock_keys: None,
            root_rotation: None,
        }
    }

    fn node_object(&self, place: Place) -> Node {
        let machine = &self.machines[place];
        let role = machine.role;
        Node {
            id: machine.node,
            meta: Meta::default(),
            spec: NodeSpec { role, ..NodeSpec::default() },
            role,
            description: None,
            status: Default::default(),
            manager_addr: (role == NodeRole::Manager).then(|| machine.addr.clone()),
            wanted_issuer: None,
        }
    }

    fn leading(&self) -> Option<Door> {
        self.site.directory.doors().into_iter().find(|door| door.raft.leadership().borrow().is_some())
    }

    /// Where the leader is; with a network that is cut, one of those that think so.
    pub fn leading_place(&self) -> Option<Place> {
        self.leading().map(|door| door.process.place())
    }

    /// Everything works again.
    pub fn mend(&mut self) {
        self.site.net.set_quality(Quality::GOOD);
        self.site.net.mend();
        for machine in &mut self.machines {
            machine.disk.set_full(false);
            machine.disk.set_lag(0, 3);
            machine.start();
        }
    }

    /// Removes what never rests and lets all nodes work, as a user would who wants calm.
    ///
    /// # Errors
    /// What could not be done.
    pub async fn clean(&mut self, client: &Client) -> Result<(), String> {
        let until = Instant::now() + HEAL;
        while !self.try_clean(client).await {
            if Instant::now() > until {
                return Err("clients cannot write".to_owned());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn try_clean(&mut self, client: &Client) -> bool {
        if !self.let_in().await {
            return false;
        }
        let Some(door) = self.leading() else { return false };
        if !door.control.catch_up().await {
            return false;
        }
        let state = door.control.snapshot();
        let mut is_clean = true;
        for service in state.services().filter(|s| is_restless(s)) {
            is_clean &= client.remove_one(&door, &service.spec.name).await;
        }
        let nodes = door.control.list_nodes(&Filters::default()).unwrap_or_default();
        for node in nodes.iter().filter(|n| n.spec.availability != Availability::Active) {
            is_clean &= client.turn(&door, node, Availability::Active).await;
        }
        let gone: BTreeSet<NodeId> = self.machines.iter().filter(|m| m.stage == Stage::Gone).map(|m| m.node).collect();
        for node in nodes.iter().filter(|n| gone.contains(&n.id)) {
            is_clean &= client.expel(&door, node).await;
        }
        is_clean
    }

    /// Whether a machine may get another address. Of managers only one of several may: where the others cannot agree on a
    /// leader without it, nobody is there whom it could tell where it is.
    pub fn may_move(&mut self, place: Place) -> bool {
        if self.machines[place].role() == NodeRole::Worker {
            return true;
        }
        let is_one_of_several = self.site.directory.doors().len() > 2;
        is_one_of_several && !std::mem::replace(&mut self.has_moved, true)
    }

    /// All managers but one are lost for good. It goes on with what it has, which is everything: nothing moved.
    pub fn lose_quorum(&mut self) {
        let managers: Vec<Place> = self.site.directory.doors().iter().map(|door| door.process.place()).collect();
        let Some(left) = self.site.world.pick(&managers) else { return };
        for place in managers.into_iter().filter(|place| *place != left) {
            self.machines[place].leave(true);
        }
        let dark = self.site.world.chance(0.5);
        self.machines[left].kill(dark);
        self.machines[left].is_forced = true;
        self.machines[left].start();
    }

    /// Makes one more service.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn make_last(&self) -> Result<(), String> {
        let count = 2 * self.machines.len() as i64;
        let make = || async {
            let Some(door) = self.leading() else { return false };
            door.control.create_service(service(LAST, replicated(count)), None).await.is_ok()
        };
        if insist(make).await { Ok(()) } else { Err(format!("{LAST} cannot be made")) }
    }

    /// Waits until nothing moves any more and everything is as it should be.
    ///
    /// # Errors
    /// What is not, after a long time.
    pub async fn calm(&mut self) -> Result<(), String> {
        let until = Instant::now() + HEAL;
        let (mut since, mut last) = (Instant::now(), None);
        loop {
            tokio::time::sleep(LOOK).await;
            let disturbed = self.disturbed();
            let index = self.site.directory.doors().iter().map(|door| door.raft.snapshot().index()).max();
            if disturbed.is_some() || index != last {
                (since, last) = (Instant::now(), index);
            }
            if since.elapsed() >= QUIET {
                return Ok(());
            }
            if let Some(disturbed) = disturbed.filter(|_| Instant::now() > until) {
                return Err(disturbed);
            }
            if Instant::now() > until + HEAL {
                return Err("something changes all the time".to_owned());
            }
        }
    }

    fn disturbed(&self) -> Option<String> {
        if let Some(machine) = self.machines.iter().find(|m| m.is_missing()) {
            return Some(format!("m{} does not start", machine.place));
        }
        let Some(leader) = self.leading() else { return Some("nobody leads".to_owned()) };
        let doors = self.site.directory.doors();
        let indexes: Vec<u64> = doors.iter().map(|door| door.raft.snapshot().index()).collect();
        if indexes.windows(2).any(|pair| pair[0] != pair[1]) {
            return Some(format!("managers are at {indexes:?}"));
        }
        let open: BTreeSet<u64> = doors.iter().map(|door| door.raft.number()).collect();
        let members: BTreeSet<u64> = leader.raft.members().1.into_iter().map(|(number, _)| number).collect();
        let participants = leader.raft.participants().len();
        if open != members || participants != members.len() {
            return Some(format!("{} of {} members vote, {} managers run", members.len(), participants, open.len()));
        }
        let unsettled = unsettled(&self.site.observer.latest());
        (!unsettled.is_empty()).then(|| unsettled.join("; "))
    }
}
