//! The log broker of one leader's term: brings log lines from the agents to those who asked (swarm-semantics 12).
//!
//! A client that reads slowly slows the agents down; a node that cannot answer is named at the end, never waited for: a
//! node that is down at once, one without a connection or without a word after a while.

mod reasons;
mod relay;
mod service;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shoal_raft::{Raft, Update};
use shoal_store::Snapshot;
use shoal_types::object::NodeState;
use shoal_types::{Event, NodeId, Task, TaskState, View};
use shoal_wire::logs::{LogLine, LogOptions, LogSelector, Subscription};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use reasons::{LogEnd, Reason};
pub use relay::LogStream;
pub(crate) use relay::Source;
pub use service::BrokerService;

/// Lines that wait for a slow client.
const BUFFER: usize = 1024;
/// How long a node that is not down may take to connect: after a change of leaders all of them have to.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a node may have nothing to say though it has not said that this is all.
const SILENCE: Duration = Duration::from_secs(30);
/// How often it is looked who has been silent for too long.
const LOOK: Duration = Duration::from_millis(500);

/// The broker of one term.
#[derive(Debug, Default)]
pub struct Broker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subscriptions: HashMap<String, Open>,
    listeners: HashMap<NodeId, Listener>,
    /// Numbers the listeners, so that an old one does not remove its successor.
    next: u64,
}

#[derive(Debug)]
struct Listener {
    number: u64,
    tx: mpsc::UnboundedSender<Subscription>,
}

/// A subscription that a client reads.
#[derive(Debug)]
struct Open {
    selector: LogSelector,
    options: LogOptions,
    /// Nodes that have not said that they are done. While following nobody is waited for.
    pending: HashMap<NodeId, Awaited>,
    reasons: Vec<Reason>,
    tx: mpsc::Sender<Item>,
}

/// A node that has not said that it is done.
#[derive(Debug)]
struct Awaited {
    /// It has been told.
    is_told: bool,
    /// When it is not waited for any longer.
    until: Instant,
}

/// A line, or the end. Without either, the term is over.
type Item = Result<LogLine, End>;

/// How a subscription comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Those were all lines.
    Complete,
    /// Some could not be had.
    Incomplete(LogEnd),
}

/// One subscription at the leader. Dropping it tells the agents to stop.
#[derive(Debug)]
pub struct Subscribed {
    lines: mpsc::Receiver<Item>,
    broker: Arc<Broker>,
    id: String,
}

/// Ends all subscriptions with the term.
struct Ending(Arc<Broker>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().subscriptions.clear();
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.broker.close(&self.id);
    }
}

impl Broker {
    /// Notices nodes that go down or fall silent, until the term ends.
    pub async fn run(self: Arc<Self>, raft: Raft) -> String {
        let _ending = Ending(self.clone());
        let mut feed = raft.subscribe().1;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                update = feed.next() => match update {
                    Update::Commit(commit) => commit.events.iter().for_each(|event| {
                        if let Event::Node(node) = event && is_down(&commit.snapshot, node.latest().id) {
                            self.lock().lose(node.latest().id);
                        }
                    }),
                    Update::Resync(view) => {
                        let mut state = self.lock();
                        let down: Vec<_> = state.listeners.keys().copied().filter(|n| is_down(&view, *n)).collect();
                        down.into_iter().for_each(|node| state.lose(node));
                    }
                },
                _ = look.tick() => self.lock().expire(Instant::now()),
            }
        }
    }

    /// Opens a subscription on behalf of a client.
    pub fn subscribe(self: &Arc<Self>, view: &Snapshot, selector: LogSelector, options: LogOptions) -> Subscribed {
        let (tx, lines) = mpsc::channel(BUFFER);
        let id = crate::ids::fresh();
        let mut state = self.lock();
        let mut open = Open { selector, options, pending: HashMap::new(), reasons: Vec::new(), tx };
        if open.options.follow {
            state.listeners.keys().for_each(|node| open.wait_for(*node, true));
        } else {
            open.involve(view, &state.listeners);
        }
        let message = open.message(&id);
        for (node, _) in open.pending.iter().filter(|(_, awaited)| awaited.is_told) {
            state.tell(*node, message.clone());
        }
        state.subscriptions.insert(id.clone(), open);
        state.finish_if_done(&id);
        drop(state);
        Subscribed { lines, broker: self.clone(), id }
    }

    /// An agent listens. Open subscriptions that concern it come at once.
    fn listen(&self, node: NodeId) -> (u64, mpsc::UnboundedReceiver<Subscription>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.lose(node);
        for (id, open) in &mut state.subscriptions {
            if open.options.follow || open.pending.contains_key(&node) {
                open.wait_for(node, true);
                drop(tx.send(open.message(id)));
            }
        }
        state.listeners.insert(node, Listener { number, tx });
        (number, rx)
    }

    /// The agent's stream has ended.
    fn unlisten(&self, node: NodeId, number: u64) {
        let mut state = self.lock();
        if state.listeners.get(&node).is_some_and(|l| l.number == number) {
            state.lose(node);
        }
    }

    /// Where lines of subscription `id` from `node` go; `None` where nobody wants them any more.
    fn sink(&self, id: &str, node: NodeId) -> Option<mpsc::Sender<Item>> {
        let mut state = self.lock();
        let open = state.subscriptions.get_mut(id)?;
        open.pending.get_mut(&node)?.until = Instant::now() + SILENCE;
        Some(open.tx.clone())
    }

    /// `node` has sent all that it has.
    fn done(&self, id: &str, node: NodeId, error: &str) {
        let reason = (!error.is_empty()).then(|| Reason::Node { node, error: error.to_owned() });
        self.lock().settle(id, node, reason);
    }

    /// The client has gone.
    fn close(&self, id: &str) {
        let mut state = self.lock();
        if let Some(open) = state.subscriptions.remove(id) {
            for node in open.pending.into_keys() {
                state.tell(node, Subscription::Close { id: id.to_owned() });
            }
        }
    }

    #[cfg(test)]
    pub fn open_count(&self) -> usize {
        self.lock().subscriptions.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the broker")
    }
}

impl State {
    fn tell(&self, node: NodeId, message: Subscription) {
        if let Some(listener) = self.listeners.get(&node) {
            // An agent that has just gone is noticed by its stream.
            drop(listener.tx.send(message));
        }
    }

    fn lose(&mut self, node: NodeId) {
        if self.listeners.remove(&node).is_none() {
            return;
        }
        let ids: Vec<String> = self.subscriptions.keys().cloned().collect();
        for id in ids {
            self.settle(&id, node, Some(Reason::Disconnected(node)));
        }
    }

    /// Gives up nodes that have been waited for long enough.
    fn expire(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (id, open) in self.subscriptions.iter_mut().filter(|(_, open)| !open.options.follow) {
            let is_client_slow = open.tx.capacity() == 0;
            for (node, awaited) in &mut open.pending {
                if awaited.is_told && is_client_slow {
                    awaited.until = now + SILENCE;
                } else if awaited.until <= now {
                    let reason =
                        if awaited.is_told { Reason::Disconnected(*node) } else { Reason::NotAvailable(*node) };
                    late.push((id.clone(), *node, reason));
                }
            }
        }
        for (id, node, reason) in late {
            self.settle(&id, node, Some(reason));
        }
    }

    /// `node` is not waited for any more; why there may be lines missing. That is nobody's concern while following.
    fn settle(&mut self, id: &str, node: NodeId, reason: Option<Reason>) {
        let Some(open) = self.subscriptions.get_mut(id) else { return };
        if open.pending.remove(&node).is_some() {
            open.reasons.extend(reason.filter(|_| !open.options.follow));
            self.finish_if_done(id);
        }
    }

    /// A subscription that does not follow ends with the last node's answer.
    fn finish_if_done(&mut self, id: &str) {
        let done = self.subscriptions.get(id).is_some_and(|open| !open.options.follow && open.pending.is_empty());
        if !done {
            return;
        }
        let Some(open) = self.subscriptions.remove(id) else { return };
        let is_complete = open.reasons.is_empty();
        let end = if is_complete { End::Complete } else { End::Incomplete(LogEnd::new(&open.reasons)) };
        // The channel may be full of lines: the last word waits for its turn.
        tokio::spawn(async move { drop(open.tx.send(Err(end)).await) });
    }
}

impl Open {
    fn message(&self, id: &str) -> Subscription {
        Subscription::Open { id: id.to_owned(), selector: self.selector.clone(), options: self.options.clone() }
    }

    fn wait_for(&mut self, node: NodeId, is_told: bool) {
        let until = Instant::now() + if is_told { SILENCE } else { CONNECT };
        self.pending.insert(node, Awaited { is_told, until });
    }

    /// Finds the nodes that have something to say, and what cannot be had.
    fn involve(&mut self, view: &Snapshot, listeners: &HashMap<NodeId, Listener>) {
        let of_services = self.selector.services.iter().flat_map(|s| view.tasks_of(*s));
        let started = of_services.filter(|t| t.status.state >= TaskState::Running);
        let named = self.selector.tasks.iter().filter_map(|t| view.task(*t));
        let tasks: Vec<Arc<Task>> = started.chain(named).cloned().collect();
        let mut down = HashSet::new();
        for task in tasks {
            match task.node_id {
                None => self.reasons.push(Reason::NotScheduled(task.id)),
                Some(node) if listeners.contains_key(&node) => self.wait_for(node, true),
                Some(node) if !is_down(view, node) => self.wait_for(node, false),
                Some(node) if down.insert(node) => self.reasons.push(Reason::NotAvailable(node)),
                Some(_) => {}
            }
        }
    }
}

/// Whether nothing is to be expected of a node.
fn is_down(view: &Snapshot, node: NodeId) -> bool {
    view.node(node).is_none_or(|n| n.status.state == NodeState::Down)
}

#[cfg(test)]
mod tests;
