//! How many small writes a second three members agree on: real files with fsync, calls within the process, 64 clients.
//!
//! `cargo run --release -p shoal-raft --example writes -- DIR [MEMBERS]`: the directory says which disk is measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shoal_raft::{Config, DataKey, Member, Raft, Transport, TransportError, Tx};
use shoal_types::object::Meta;
use shoal_types::spec::{Annotations, RaftConfig, TaskSpec};
use shoal_types::{Change, IdSource, Object, ServiceId, Task, TaskId, TaskState};

const CLIENTS: u64 = 64;
const TIME: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
struct Net(Arc<Mutex<BTreeMap<u64, Raft>>>);

struct Numbered(u64);

#[async_trait::async_trait]
impl Transport for Net {
    async fn call(&self, to: u64, member: &Member, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let raft = self.0.lock().expect("nothing panics while it is held").get(&to).cloned();
        let unreachable = |reason: String| TransportError::Unreachable { addr: member.addr.clone(), reason };
        let raft = raft.ok_or_else(|| unreachable("it is not there".to_owned()))?;
        raft.serve(body).await.map_err(|e| unreachable(e.to_string()))
    }
}

impl IdSource for Numbered {
    fn random(&mut self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[1..9].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

fn task(number: u64) -> Change {
    Change::Put(Object::Task(Arc::new(Task {
        id: TaskId::new(&mut Numbered(number)),
        meta: Meta::default(),
        service_id: ServiceId::new(&mut Numbered(0)),
        slot: number,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        spec: Arc::new(TaskSpec::default()),
        spec_version: 0,
        endpoint: None,
        registry_auth: None,
        status: Default::default(),
        desired_state: TaskState::Running,
        assigned_generic: Default::default(),
        job_iteration: Default::default(),
    })))
}

async fn member(net: &Net, dir: PathBuf) -> Raft {
    let (key, limits) = (DataKey::new(&[1; 32]), RaftConfig::default());
    let config = Config { dir, key, limits, force_new: false };
    let raft = Raft::open(&config, Arc::new(net.clone())).await.expect("the directory can be used");
    net.0.lock().expect("nothing panics while it is held").insert(raft.number(), raft.clone());
    raft
}

async fn client(raft: Raft, first: u64) -> Vec<Duration> {
    let (began, mut number, mut took) = (Instant::now(), first, Vec::new());
    while began.elapsed() < TIME {
        let asked = Instant::now();
        raft.write(move |tx: &mut Tx| tx.change(task(number))).await.expect("nothing fails here");
        took.push(asked.elapsed());
        number += CLIENTS;
    }
    took
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("usage: writes DIR [MEMBERS]"));
    let count: usize = args.next().map_or(3, |n| n.parse().expect("a number of members"));
    let net = Net::default();
    let mut members = Vec::new();
    for place in 0..count {
        members.push(member(&net, dir.join(place.to_string())).await);
    }
    let leader = members[0].clone();
    let named = |place: usize| Member { node_id: None, addr: place.to_string(), ..Member::default() };
    leader.begin(named(0)).await.expect("the directory is new");
    leader.leadership().wait_for(Option::is_some).await.expect("it leads alone");
    for (place, raft) in members.iter().enumerate().skip(1) {
        leader.admit(raft.number(), named(place)).await.expect("it is there");
    }
    let clients = (1..=CLIENTS).map(|first| tokio::spawn(client(leader.clone(), first)));
    let took = futures::future::join_all(clients.collect::<Vec<_>>()).await;
    let mut took: Vec<Duration> = took.into_iter().flat_map(|t| t.expect("no client panics")).collect();
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    println!(
        "{count} members, {CLIENTS} clients: {:.0} writes a second; half within {:?}, 99 of 100 within {:?}",
        took.len() as f64 / TIME.as_secs_f64(),
        at(50),
        at(99)
    );
    for raft in members {
        raft.stop().await;
    }
}
