//! What was applied, as a stream without gaps.

use std::sync::{Arc, Mutex};

use shoal_store::Snapshot;
use shoal_types::Event;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Commits that a reader may be behind before it must start over from a snapshot.
const CAPACITY: usize = 256;

/// One write, applied.
#[derive(Debug)]
pub struct Commit {
    /// Its place in the log: the version of all objects that it wrote.
    pub index: u64,
    /// What it did, in order.
    pub events: Vec<Event>,
    /// The state right after it.
    pub snapshot: Snapshot,
}

/// What a reader gets.
#[derive(Debug, Clone)]
pub enum Update {
    /// The next write.
    Commit(Arc<Commit>),
    /// The reader was too slow, or the state was replaced: forget everything, go on from here.
    Resync(Snapshot),
}

/// The reading end. Follows on the snapshot that came with it.
#[derive(Debug)]
pub struct Feed {
    updates: broadcast::Receiver<Update>,
    source: Arc<Publisher>,
}

/// The writing end: the state as it is now, and whoever follows it.
#[derive(Debug)]
pub struct Publisher {
    latest: Mutex<Snapshot>,
    updates: broadcast::Sender<Update>,
}

impl Publisher {
    /// Nobody follows yet.
    pub fn new(state: Snapshot) -> Arc<Self> {
        Arc::new(Self { latest: Mutex::new(state), updates: broadcast::Sender::new(CAPACITY) })
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.latest.lock().expect("nothing panics while it holds the state").clone()
    }

    /// The state as it is now, and everything that follows on it.
    pub fn subscribe(self: &Arc<Self>) -> (Snapshot, Feed) {
        let latest = self.latest.lock().expect("nothing panics while it holds the state");
        (latest.clone(), Feed { updates: self.updates.subscribe(), source: self.clone() })
    }

    /// A write was applied. Those without events only move the index.
    pub fn publish(&self, commit: Commit) {
        let mut latest = self.latest.lock().expect("nothing panics while it holds the state");
        *latest = commit.snapshot.clone();
        if !commit.events.is_empty() {
            self.send(Update::Commit(Arc::new(commit)));
        }
    }

    /// The state was replaced.
    pub fn replace(&self, state: Snapshot) {
        let mut latest = self.latest.lock().expect("nothing panics while it holds the state");
        *latest = state.clone();
        self.send(Update::Resync(state));
    }

    fn send(&self, update: Update) {
        // The only error is that nobody listens.
        drop(self.updates.send(update));
    }
}

impl Feed {
    /// The next update. Safe to drop while waiting: nothing is lost.
    pub async fn next(&mut self) -> Update {
        match self.updates.recv().await {
            Ok(update) => update,
            // `Closed` cannot be: we hold the source. Starting over is right for it, too.
            Err(RecvError::Lagged(_) | RecvError::Closed) => self.start_over(),
        }
    }

    /// The next update, where there is one already.
    pub fn try_next(&mut self) -> Option<Update> {
        use broadcast::error::TryRecvError;
        match self.updates.try_recv() {
            Ok(update) => Some(update),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => Some(self.start_over()),
        }
    }

    fn start_over(&mut self) -> Update {
        let (snapshot, fresh) = self.source.subscribe();
        *self = fresh;
        Update::Resync(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(index: u64) -> Commit {
        use shoal_types::change::Both;
        let events = vec![Event::Task(Both { before: None, after: None })];
        Commit { index, events, snapshot: Snapshot::default() }
    }

    #[tokio::test]
    async fn a_reader_sees_every_commit_in_order() {
        let source = Publisher::new(Snapshot::default());
        let (_, mut feed) = source.subscribe();
        for index in 1..=3 {
            source.publish(commit(index));
        }
        for index in 1..=3 {
            assert!(matches!(feed.next().await, Update::Commit(c) if c.index == index));
        }
        assert!(feed.try_next().is_none());
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_to_start_over_and_then_misses_nothing() {
        let source = Publisher::new(Snapshot::default());
        let (_, mut feed) = source.subscribe();
        for index in 1..=CAPACITY as u64 + 1 {
            source.publish(commit(index));
        }
        assert!(matches!(feed.next().await, Update::Resync(_)));
        source.publish(commit(1000));
        assert!(matches!(feed.next().await, Update::Commit(c) if c.index == 1000));
    }
}
