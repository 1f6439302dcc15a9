//! The log broker of one leader's term: brings log lines from the agents to those who asked (swarm-semantics 12).
//!
//! A client that reads slowly slows the agents down; a node that cannot answer is named at the end, never waited for.

mod reasons;
mod service;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use shoal_store::Snapshot;
use shoal_types::{NodeId, Task, TaskState, View};
use shoal_wire::logs::{LogLine, LogOptions, LogSelector, Subscription};
use tokio::sync::mpsc;

pub use reasons::{LogEnd, Reason};
pub use service::BrokerService;

/// Lines that wait for a slow client.
const BUFFER: usize = 1024;

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
    pending: HashSet<NodeId>,
    reasons: Vec<Reason>,
    tx: mpsc::Sender<Result<LogLine, LogEnd>>,
}

/// The lines of one subscription. Dropping it tells the agents to stop.
#[derive(Debug)]
pub struct LogStream {
    lines: mpsc::Receiver<Result<LogLine, LogEnd>>,
    broker: Arc<Broker>,
    id: String,
}

impl LogStream {
    /// The next line. An error is the last thing: some lines could not be had. `None`: that is all.
    pub async fn next(&mut self) -> Option<Result<LogLine, LogEnd>> {
        self.lines.recv().await
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.broker.close(&self.id);
    }
}

impl Broker {
    /// Opens a subscription on behalf of a client.
    pub fn subscribe(self: &Arc<Self>, view: &Snapshot, selector: LogSelector, options: LogOptions) -> LogStream {
        let (tx, lines) = mpsc::channel(BUFFER);
        let id = crate::ids::fresh();
        let mut state = self.lock();
        let mut open = Open { selector, options, pending: HashSet::new(), reasons: Vec::new(), tx };
        if open.options.follow {
            open.pending.extend(state.listeners.keys());
        } else {
            open.involve(view, &state.listeners);
        }
        let message = open.message(&id);
        for node in &open.pending {
            state.tell(*node, message.clone());
        }
        state.subscriptions.insert(id.clone(), open);
        state.finish_if_done(&id);
        drop(state);
        LogStream { lines, broker: self.clone(), id }
    }

    /// An agent listens. Subscriptions that follow concern it at once.
    fn listen(&self, node: NodeId) -> (u64, mpsc::UnboundedReceiver<Subscription>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.lose(node);
        for (id, open) in &mut state.subscriptions {
            if open.options.follow {
                open.pending.insert(node);
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
    fn sink(&self, id: &str, node: NodeId) -> Option<mpsc::Sender<Result<LogLine, LogEnd>>> {
        let state = self.lock();
        state.subscriptions.get(id).filter(|open| open.pending.contains(&node)).map(|open| open.tx.clone())
    }

    /// `node` has sent all that it has.
    fn done(&self, id: &str, node: NodeId, error: &str) {
        let mut state = self.lock();
        if let Some(open) = state.subscriptions.get_mut(id)
            && open.pending.remove(&node)
        {
            if !error.is_empty() {
                open.reasons.push(Reason::Node { node, error: error.to_owned() });
            }
            state.finish_if_done(id);
        }
    }

    /// The client has gone.
    fn close(&self, id: &str) {
        let mut state = self.lock();
        if let Some(open) = state.subscriptions.remove(id) {
            for node in open.pending {
                state.tell(node, Subscription::Close { id: id.to_owned() });
            }
        }
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
            if let Some(open) = self.subscriptions.get_mut(&id)
                && open.pending.remove(&node)
            {
                if !open.options.follow {
                    open.reasons.push(Reason::Disconnected(node));
                }
                self.finish_if_done(&id);
            }
        }
    }

    /// A subscription that does not follow ends with the last node's answer.
    fn finish_if_done(&mut self, id: &str) {
        let done = self.subscriptions.get(id).is_some_and(|open| !open.options.follow && open.pending.is_empty());
        if !done {
            return;
        }
        let Some(open) = self.subscriptions.remove(id) else { return };
        if !open.reasons.is_empty() {
            // The channel may be full of lines: the last word waits for its turn.
            tokio::spawn(async move { drop(open.tx.send(Err(LogEnd::new(&open.reasons))).await) });
        }
    }
}

impl Open {
    fn message(&self, id: &str) -> Subscription {
        Subscription::Open { id: id.to_owned(), selector: self.selector.clone(), options: self.options.clone() }
    }

    /// Finds the nodes that have something to say, and what cannot be had.
    fn involve(&mut self, view: &Snapshot, listeners: &HashMap<NodeId, Listener>) {
        let of_services = self.selector.services.iter().flat_map(|s| view.tasks_of(*s));
        let started = of_services.filter(|t| t.status.state >= TaskState::Running);
        let named = self.selector.tasks.iter().filter_map(|t| view.task(*t));
        let tasks: Vec<Arc<Task>> = started.chain(named).cloned().collect();
        for task in tasks {
            match task.node_id {
                None => self.reasons.push(Reason::NotScheduled(task.id)),
                Some(node) if listeners.contains_key(&node) => drop(self.pending.insert(node)),
                Some(node) if !self.reasons.contains(&Reason::NotAvailable(node)) => {
                    self.reasons.push(Reason::NotAvailable(node));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
