//! Sees every write as each manager applies it, and hands it to the invariants that hold at all times.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use shoal_raft::{Commit, OpenError, Raft, Snapshot, Update};
use shoal_types::Event;

use crate::invariants::{Continuous, all_continuous};
use crate::place::Place;
use crate::process::Process;
use crate::world::World;

/// The observer of all managers. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    world: World,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// What each write did, by its place in the log.
    seen: BTreeMap<u64, u64>,
    /// The newest one.
    newest: u64,
    invariants: Vec<Box<dyn Continuous>>,
    latest: Snapshot,
}

impl Observer {
    /// Has seen nothing.
    pub fn new(world: &World) -> Self {
        let inner =
            Inner { seen: BTreeMap::new(), newest: 0, invariants: all_continuous(), latest: Snapshot::default() };
        Self { world: world.clone(), inner: Arc::new(Mutex::new(inner)) }
    }

    /// Follows one manager.
    pub async fn follow(self, place: Place, raft: Raft) {
        let (_, mut feed) = raft.subscribe();
        loop {
            match feed.next().await {
                Update::Commit(commit) => self.applied(place, &commit),
                Update::Resync(_) => self.world.note("was given a snapshot"),
            }
        }
    }

    /// A manager cannot open what it has on disk: never right, unless the disk itself lies.
    pub fn cannot_open(&self, process: &Process, error: &OpenError) {
        let (text, place) = (format!("{error:?}"), process.place());
        if process.is_alive() && !text.contains("StorageFull") {
            self.world.violated(format_args!("m{place} cannot read its own disk: {error}"));
        }
    }

    /// The newest state that any manager has applied.
    pub fn latest(&self) -> Snapshot {
        self.lock().latest.clone()
    }

    fn applied(&self, place: Place, commit: &Commit) {
        let mut inner = self.lock();
        let digest = digest(commit);
        match inner.seen.get(&commit.index) {
            Some(known) if *known == digest => {}
            Some(_) => self.world.violated(format_args!(
                "state machines: m{place} applied another write at {} than the other managers",
                commit.index
            )),
            None => {
                self.world.mark((commit.index, digest));
                inner.seen.insert(commit.index, digest);
            }
        }
        if commit.index <= inner.newest {
            return;
        }
        inner.newest = commit.index;
        inner.latest = commit.snapshot.clone();
        let Inner { invariants, .. } = &mut *inner;
        for invariant in invariants {
            for violation in invariant.check(commit) {
                self.world.violated(format_args!("{} (at {}): {violation}", invariant.name(), commit.index));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it observes")
    }
}

fn digest(commit: &Commit) -> u64 {
    let mut hasher = DefaultHasher::new();
    for event in &commit.events {
        match event {
            Event::Task(both) => {
                both.after.is_some().hash(&mut hasher);
                let task = both.latest();
                (task.id, task.meta.version, task.desired_state, task.status.state, task.node_id).hash(&mut hasher);
            }
            Event::Node(both) => (both.after.is_some(), both.latest().id, both.latest().meta.version).hash(&mut hasher),
            Event::Service(both) => {
                (both.after.is_some(), both.latest().id, both.latest().meta.version).hash(&mut hasher);
            }
            _ => commit.index.hash(&mut hasher),
        }
    }
    hasher.finish()
}
