//! The whole cluster: how it comes up, what can be done to it, and when it is calm.

use std::time::Duration;

use shoal_manager::RandomIds;
use shoal_manager::control::Filters;
use shoal_raft::{Member, Raft, Tx};
use shoal_types::object::RootCa;
use shoal_types::spec::{Availability, ClusterSpec, NodeRole, NodeSpec};
use shoal_types::{Change, Cluster as ClusterObject, Meta, Node, NodeId, Object, View};
use tokio::time::Instant;

use crate::client::{Client, REGISTERS, insist, is_restless, register, replicated, service};
use crate::invariants::unsettled;
use crate::ledger::Ledger;
use crate::machine::{Machine, Part, Site};
use crate::net::Quality;
use crate::place::{self, Place};
use crate::process::Door;

/// The service that is made when all is calm.
pub const LAST: &str = "last";
/// How long nothing may happen until the cluster is calm.
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take to get there.
const HEAL: Duration = Duration::from_secs(240);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A cluster.
pub struct Cluster {
    pub site: Site,
    pub machines: Vec<Machine>,
    pub ledger: Ledger,
}

impl Cluster {
    /// A cluster of `managers` and `workers` that is up and has its registers.
    ///
    /// # Errors
    /// It does not come up; never right.
    pub async fn boot(site: Site, managers: usize, workers: usize) -> Result<Self, String> {
        let mut this = Self { site, machines: Vec::new(), ledger: Ledger::default() };
        this.add(true);
        this.machines[0].start().await;
        let first = this.machines[0].part().ok_or("the first manager does not start")?.raft.clone();
        let member = Member { node_id: Some(this.machines[0].node), addr: this.machines[0].addr.clone() };
        first.begin(member).await.map_err(|e| e.to_string())?;
        let (object, node) = (this.object(), this.node_object(0));
        shoal_manager::begin(&first, object, node).await.map_err(|e| e.to_string())?;
        for number in 1..managers + workers {
            this.add(number < managers);
            this.join(number).await?;
        }
        let door = this.site.directory.doors().into_iter().next().ok_or("no manager is there")?;
        for name in REGISTERS {
            let made = door.control.create_service(register(name), None).await;
            made.map_err(|e| format!("cannot make {name}: {}", e.message))?;
        }
        Ok(this)
    }

    fn add(&mut self, is_manager: bool) {
        let node = place::enter(self.machines.len(), || NodeId::new(&mut RandomIds));
        self.machines.push(Machine::new(&self.site, self.machines.len(), node, is_manager));
    }

    /// Takes a machine in: its node, then its daemon, then its vote.
    async fn join(&mut self, place: Place) -> Result<(), String> {
        let node = self.node_object(place);
        let leader = self.leader().ok_or("nobody leads")?;
        let write = move |tx: &mut Tx| tx.change(Change::Put(Object::Node(node.into())));
        leader.write(write).await.map_err(|e| format!("cannot add m{place}: {e}"))?;
        self.machines[place].known = vec![self.machines[0].addr.clone()];
        self.machines[place].start().await;
        if self.machines[place].is_manager && !self.admit(place).await {
            return Err(format!("m{place} is not taken in"));
        }
        Ok(())
    }

    /// Asks the leader to take the manager on `place` in; whether it did.
    pub async fn admit(&self, place: Place) -> bool {
        let (Some(part), Some(leader)) = (self.machines[place].part(), self.leading()) else { return false };
        let member = Member { node_id: Some(self.machines[place].node), addr: self.machines[place].addr.clone() };
        let (raft, number) = (leader.raft.clone(), part.raft.number());
        let admitted = leader.process.run(async move { raft.admit(number, member).await }).await;
        self.site.world.note(format_args!("admit m{place}: {admitted:?}"));
        matches!(admitted, Some(Ok(())))
    }

    fn object(&self) -> ClusterObject {
        let text = String::new;
        let root_ca =
            RootCa { cert_pem: "root".into(), key_pem: text(), worker_token: text(), manager_token: text() };
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
        let role = if machine.is_manager { NodeRole::Manager } else { NodeRole::Worker };
        Node {
            id: machine.node,
            meta: Meta::default(),
            spec: NodeSpec { role, ..NodeSpec::default() },
            role,
            description: None,
            status: Default::default(),
            manager_addr: machine.is_manager.then(|| machine.addr.clone()),
            wanted_issuer: None,
        }
    }

    /// The managers that run.
    pub fn parts(&self) -> impl Iterator<Item = (Place, &Part)> {
        self.machines.iter().filter_map(|m| Some((m.place, m.part()?)))
    }

    fn leading(&self) -> Option<Door> {
        self.site.directory.doors().into_iter().find(|door| door.raft.leadership().borrow().is_some())
    }

    /// The one that leads; with a network that is cut, one of those that think so.
    pub fn leader(&self) -> Option<Raft> {
        self.leading().map(|door| door.raft)
    }

    /// Where the leader is.
    pub fn leading_place(&self) -> Option<Place> {
        self.leading().map(|door| door.process.place())
    }

    /// Starts daemons whose consensus has ended by itself, as their supervisors would.
    pub async fn restart_stuck(&mut self) {
        for machine in &mut self.machines {
            if machine.is_stuck() {
                self.site.world.note(format_args!("m{} has stopped by itself", machine.place));
                machine.kill(false);
                machine.start().await;
            }
        }
    }

    /// Everything works again.
    pub async fn mend(&mut self) {
        self.site.net.set_quality(Quality::GOOD);
        self.site.net.mend();
        for machine in &mut self.machines {
            machine.disk.set_full(false);
            machine.disk.set_lag(0, 3);
            if machine.daemon.is_none() {
                machine.start().await;
            }
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
            self.restart_stuck().await;
        }
        Ok(())
    }

    async fn try_clean(&self, client: &Client) -> bool {
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
        is_clean
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
            self.restart_stuck().await;
            let disturbed = self.disturbed();
            let index = self.parts().map(|(_, part)| part.raft.snapshot().index()).max();
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
        if let Some(machine) = self.machines.iter().find(|m| m.daemon.is_none()) {
            return Some(format!("m{} does not start", machine.place));
        }
        let indexes: Vec<u64> = self.parts().map(|(_, part)| part.raft.snapshot().index()).collect();
        if indexes.windows(2).any(|pair| pair[0] != pair[1]) {
            return Some(format!("managers are at {indexes:?}"));
        }
        if self.leader().is_none() {
            return Some("nobody leads".to_owned());
        }
        let unsettled = unsettled(&self.site.observer.latest());
        (!unsettled.is_empty()).then(|| unsettled.join("; "))
    }
}
