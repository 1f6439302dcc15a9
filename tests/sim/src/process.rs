//! A daemon of a machine, and its ways to others. When it is killed, what is left of it in memory reaches nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use shoal_manager::ca::Subject;
use shoal_manager::{Control, Peer};
use shoal_raft::{Member, Raft, Transport, TransportError};
use shoal_types::spec::NodeRole;
use shoal_types::{ClusterId, Node, NodeId};
use shoal_wire::session::Manager as KnownManager;
use shoal_wire::{Dial, Remote, Uplink, UplinkError};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::net::Net;
use crate::place::{self, Place};
use crate::plant::Plant;
use crate::world::World;

/// How long a call between managers may take.
const CALL: Duration = Duration::from_secs(2);

/// A daemon. Cheap to clone.
#[derive(Clone)]
pub struct Process(Arc<Shared>);

struct Shared {
    world: World,
    net: Net,
    directory: Directory,
    place: Place,
    node: NodeId,
    cluster: ClusterId,
    role: watch::Sender<NodeRole>,
    dead: watch::Sender<bool>,
    channels: Mutex<BTreeMap<String, Channel>>,
    managers: Mutex<Vec<String>>,
    /// Answers to earlier calls, for one of the planted bugs.
    answers: Mutex<Vec<Vec<u8>>>,
}

/// The managers that run, by machine.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<BTreeMap<Place, Door>>>);

/// How clients and other managers get to a manager.
#[derive(Clone)]
pub struct Door {
    /// Its daemon.
    pub process: Process,
    /// Its part in consensus.
    pub raft: Raft,
    /// Its clients' calls.
    pub control: Control,
    /// Whether clients may come: it is one of the managers.
    pub is_open: bool,
}

impl Directory {
    /// The machine's manager takes calls.
    pub fn enter(&self, door: Door) {
        self.0.lock().expect("nothing panics while it is held").insert(door.process.place(), door);
    }

    /// Clients may come.
    pub fn open(&self, place: Place) {
        if let Some(door) = self.0.lock().expect("nothing panics while it is held").get_mut(&place) {
            door.is_open = true;
        }
    }

    /// Those that clients may use.
    pub fn doors(&self) -> Vec<Door> {
        self.0.lock().expect("nothing panics while it is held").values().filter(|d| d.is_open).cloned().collect()
    }

    /// It does not any more.
    pub fn leave(&self, place: Place) {
        self.0.lock().expect("nothing panics while it is held").remove(&place);
    }

    fn at(&self, place: Place) -> Option<Raft> {
        self.0.lock().expect("nothing panics while it is held").get(&place).map(|door| door.raft.clone())
    }
}

impl Process {
    /// A daemon that starts on `place`, and knows these managers.
    pub fn new(
        (world, net, directory): (&World, &Net, &Directory),
        place: Place,
        (node, role, cluster): (NodeId, NodeRole, ClusterId),
        managers: Vec<String>,
    ) -> Self {
        Self(Arc::new(Shared {
            world: world.clone(),
            net: net.clone(),
            directory: directory.clone(),
            place,
            node,
            cluster,
            role: watch::channel(role).0,
            dead: watch::channel(false).0,
            channels: Mutex::default(),
            managers: Mutex::new(managers),
            answers: Mutex::default(),
        }))
    }

    /// It is dead.
    pub fn kill(&self) {
        self.0.dead.send_replace(true);
        self.lock_channels().clear();
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        !*self.0.dead.borrow()
    }

    /// Runs `call` within it; nothing comes back from one that dies meanwhile.
    pub async fn run<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut dead = self.0.dead.subscribe();
        let mut called = place::spawn(self.0.place, call);
        tokio::select! {
            done = &mut called => done.ok(),
            _ = dead.wait_for(|dead| *dead) => {
                called.abort();
                None
            }
        }
    }

    /// What its certificate says.
    pub fn role(&self) -> NodeRole {
        *self.0.role.borrow()
    }

    /// Waits until its certificate says another role.
    pub async fn until_not(&self, role: NodeRole) {
        // The sender is ours, so it does not go away.
        drop(self.0.role.subscribe().wait_for(|r| *r != role).await);
    }

    /// The world that it is in.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// One of the managers.
    pub fn draw_manager(&self) -> Option<String> {
        self.0.world.pick(&self.managers())
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// What its certificate says.
    pub fn peer(&self) -> Peer {
        let role = self.role();
        Peer {
            subject: Subject { node: self.0.node, role, cluster: self.0.cluster },
            addr: format!("10.0.0.{}", self.0.place),
        }
    }

    /// The managers that it knows.
    pub fn managers(&self) -> Vec<String> {
        self.0.managers.lock().expect("nothing panics while it is held").clone()
    }

    fn lock_channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Channel>> {
        self.0.channels.lock().expect("nothing panics while it is held")
    }

    fn channel(&self, addr: &str) -> Channel {
        let this = self.clone();
        let mut channels = self.lock_channels();
        channels.entry(addr.to_owned()).or_insert_with(|| this.open(addr)).clone()
    }

    fn open(&self, addr: &str) -> Channel {
        let (this, addr) = (self.clone(), addr.to_owned());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (this, addr) = (this.clone(), addr.clone());
            async move {
                if !this.is_alive() {
                    return Err(io::Error::from(io::ErrorKind::NetworkDown));
                }
                let peer = this.peer();
                this.0.net.connect(this.0.place, &addr, peer).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://manager.invalid")
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        endpoint.connect_with_connector_lazy(connector)
    }
}

#[tonic::async_trait]
impl Dial for Process {
    async fn dial(&self, addr: &str) -> Result<Channel, UplinkError> {
        Ok(self.channel(addr))
    }
}

#[tonic::async_trait]
impl Uplink for Process {
    async fn connect(&self) -> Result<Remote, UplinkError> {
        let addr = self.draw_manager().ok_or(UplinkError::NoManager)?;
        self.connect_to(&addr).await
    }

    async fn connect_to(&self, addr: &str) -> Result<Remote, UplinkError> {
        Ok(Remote { addr: addr.to_owned(), channel: self.open(addr) })
    }

    fn observe(&self, _remote: &Remote, _good: bool) {}

    fn learn(&self, managers: &[KnownManager]) {
        let addrs: Vec<String> = managers.iter().map(|m| m.addr.clone()).collect();
        if !addrs.is_empty() {
            *self.0.managers.lock().expect("nothing panics while it is held") = addrs;
        }
    }

    fn trust(&self, _root_ca: &str) {}

    fn told(&self, node: &Node) {
        self.0.role.send_if_modified(|role| std::mem::replace(role, node.role) != node.role);
    }
}

#[async_trait::async_trait]
impl Transport for Process {
    async fn call(&self, to: u64, member: &Member, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let unreachable =
            |reason: &str| TransportError::Unreachable { addr: member.addr.clone(), reason: reason.into() };
        if !self.is_alive() {
            return Err(unreachable("this process is dead"));
        }
        let Some(there) = self.0.net.at(&member.addr) else { return Err(unreachable("no such address")) };
        let answer = tokio::time::timeout(CALL, self.call_at(to, there, body)).await;
        match answer {
            Ok(Ok(answer)) => Ok(self.mixed_up(answer)),
            Ok(Err(reason)) => Err(TransportError::Refused { addr: member.addr.clone(), reason }),
            Err(_) => Err(unreachable("no answer")),
        }
    }
}

impl Process {
    async fn call_at(&self, to: u64, there: Place, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let (net, here) = (&self.0.net, self.0.place);
        if net.doubles() {
            let (this, body) = (self.clone(), body.clone());
            place::spawn(place::NOWHERE, async move {
                if this.0.net.carry(this.0.place, there).await {
                    drop(this.serve(to, there, body).await);
                }
            });
        }
        if !net.carry(here, there).await {
            std::future::pending::<()>().await;
        }
        let answer = self.serve(to, there, body).await;
        if !net.carry(there, here).await || !self.is_alive() {
            std::future::pending::<()>().await;
        }
        answer
    }

    /// The other machine's part, as its own.
    async fn serve(&self, to: u64, there: Place, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let raft = self.0.directory.at(there).ok_or("nobody listens")?;
        if raft.number() != to {
            return Err("another member listens there".to_owned());
        }
        let served = place::spawn(there, async move { raft.serve(body).await });
        match served.await {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The answer, or, with the bug, one to some earlier call.
    fn mixed_up(&self, answer: Vec<u8>) -> Vec<u8> {
        if !self.0.world.has(Plant::MixedAnswers) {
            return answer;
        }
        let mut answers = self.0.answers.lock().expect("nothing panics while it is held");
        answers.push(answer.clone());
        let is_mixed = self.0.world.chance(0.05);
        if is_mixed { self.0.world.pick(&answers).unwrap_or(answer) } else { answer }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({})", self.0.place)
    }
}
