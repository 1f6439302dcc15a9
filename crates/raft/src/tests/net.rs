//! Members in one process, on real files, with a network between them that can be cut, slow and unreliable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use shoal_types::View;
use tempfile::TempDir;

use super::{config, put, task_id};
use crate::{Config, Member, Raft, Transport, TransportError, WriteError, WriteFailure};

/// Nothing may take longer than this.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What lies between members. Addresses are `a`, `b`, ...
#[derive(Default)]
pub struct Net {
    listening: Mutex<BTreeMap<String, Raft>>,
    weather: Mutex<Weather>,
}

/// What goes wrong.
#[derive(Clone, Default)]
pub struct Weather {
    /// Between these addresses nothing passes.
    pub cut: BTreeSet<(String, String)>,
    /// Of a hundred messages, and of a hundred answers, so many are lost, and so many come twice.
    pub lost: u32,
    pub doubled: u32,
    /// Milliseconds that each message takes.
    pub delay: Option<Range<u64>>,
}

/// A member's end of it.
struct Wire {
    net: Arc<Net>,
    addr: String,
}

/// A member, and where it keeps its part.
pub struct Node {
    pub config: Config,
    pub addr: String,
    net: Arc<Net>,
    raft: Option<Raft>,
    _dir: Option<TempDir>,
}

impl Net {
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.weather.lock().unwrap());
    }

    /// Cuts `addr` off from all others.
    pub fn isolate(&self, addr: &str) {
        let others: Vec<String> = self.listening.lock().unwrap().keys().filter(|a| *a != addr).cloned().collect();
        self.set(|w| {
            for other in others {
                w.cut.insert((addr.to_owned(), other.clone()));
                w.cut.insert((other, addr.to_owned()));
            }
        });
    }

    pub fn heal(&self) {
        self.set(|w| *w = Weather::default());
    }

    fn passes(&self, from: &str, to: &str) -> Option<Weather> {
        let weather = self.weather.lock().unwrap().clone();
        let is_lost = rand::rng().random_range(0..100) < weather.lost;
        (!is_lost && !weather.cut.contains(&(from.to_owned(), to.to_owned()))).then_some(weather)
    }
}

#[async_trait::async_trait]
impl Transport for Wire {
    async fn call(&self, to: u64, member: &Member, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let unreachable =
            || TransportError::Unreachable { addr: member.addr.clone(), reason: "nothing comes back".into() };
        let lost = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            unreachable()
        };
        assert!(body.len() < 4 * 1024 * 1024, "a message is too large: {}", body.len());
        let Some(weather) = self.net.passes(&self.addr, &member.addr) else { return Err(lost.await) };
        if let Some(delay) = weather.delay {
            let delay = rand::rng().random_range(delay);
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let there = self.net.listening.lock().unwrap().get(&member.addr).cloned();
        let Some(there) = there.filter(|raft| raft.number() == to) else { return Err(unreachable()) };
        let answer = there.serve(body.clone()).await;
        if rand::rng().random_range(0..100) < weather.doubled {
            drop(there.serve(body).await);
        }
        if self.net.passes(&member.addr, &self.addr).is_none() {
            return Err(lost.await);
        }
        answer.map_err(|e| TransportError::Refused { addr: member.addr.clone(), reason: e.to_string() })
    }
}

impl Node {
    pub async fn open(net: &Arc<Net>, addr: &str) -> Self {
        let dir = TempDir::new().unwrap();
        Self::open_with(net, addr, config(dir.path()), Some(dir)).await
    }

    pub async fn open_with(net: &Arc<Net>, addr: &str, config: Config, dir: Option<TempDir>) -> Self {
        let mut node = Self { config, addr: addr.to_owned(), net: net.clone(), raft: None, _dir: dir };
        node.reopen().await;
        node
    }

    pub async fn reopen(&mut self) {
        let wire = Wire { net: self.net.clone(), addr: self.addr.clone() };
        let raft = Raft::open(&self.config, Arc::new(wire)).await.unwrap();
        self.net.listening.lock().unwrap().insert(self.addr.clone(), raft.clone());
        self.raft = Some(raft);
    }

    /// Ends it as a crash does: nobody is told.
    pub async fn kill(&mut self) {
        self.net.listening.lock().unwrap().remove(&self.addr);
        if let Some(raft) = self.raft.take() {
            raft.halt().await;
        }
    }

    pub async fn stop(&mut self) {
        if let Some(raft) = self.raft.take() {
            raft.stop().await;
        }
        self.net.listening.lock().unwrap().remove(&self.addr);
    }

    pub fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("it runs")
    }

    pub fn number(&self) -> u64 {
        self.raft().number()
    }

    pub fn member(&self) -> Member {
        Member { node_id: None, addr: self.addr.clone(), ..Member::default() }
    }

    pub fn runs(&self) -> bool {
        self.raft.is_some()
    }

    pub fn leads(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.leadership().borrow().is_some())
    }

    /// Waits until task `number` is here.
    pub async fn sees(&self, number: u64) {
        until(|| self.raft().snapshot().task(task_id(number)).is_some(), &format!("{} has task {number}", self.addr))
            .await;
    }
}

/// A cluster of `count` voters, led by the first.
pub async fn cluster(net: &Arc<Net>, count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for addr in ["a", "b", "c", "d", "e", "f", "g"].iter().take(count) {
        nodes.push(Node::open(net, addr).await);
    }
    found(&nodes).await;
    nodes
}

/// Makes a cluster of `nodes`, led by the first.
pub async fn found(nodes: &[Node]) {
    nodes[0].raft().begin(nodes[0].member()).await.unwrap();
    nodes[0].raft().leadership().wait_for(Option::is_some).await.unwrap();
    for node in &nodes[1..] {
        nodes[0].raft().admit(node.number(), node.member()).await.unwrap();
    }
}

/// The one of `nodes` that leads.
pub async fn leader(nodes: &[Node]) -> &Node {
    until(|| nodes.iter().any(Node::leads), "one leads").await;
    nodes.iter().find(|n| n.leads()).unwrap_or(&nodes[0])
}

/// Writes task `number` on whoever leads; tries again only where nothing was written.
pub async fn write(nodes: &[Node], number: u64) {
    loop {
        match put(leader(nodes).await.raft(), number, 1).await {
            Ok(()) => return,
            Err(WriteError::Failed(WriteFailure::NotLeader)) => {}
            Err(WriteError::Failed(WriteFailure::Unknown)) => {
                let next = leader(nodes).await.raft();
                if next.snapshot().task(task_id(number)).is_some() {
                    return;
                }
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Waits until `holds`, but not forever.
pub async fn until(holds: impl Fn() -> bool, what: &str) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "in vain: {what}");
}
