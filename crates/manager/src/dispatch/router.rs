//! From commits to the nodes that they concern: one reader of the store for all agents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shoal_raft::{Commit, Snapshot, Update};
use shoal_types::change::Both;
use shoal_types::{Event, Node, NodeId, Task, TaskId, TaskState, View};
use shoal_wire::assignments::Assigned;
use shoal_wire::session::Manager;
use tokio::sync::Notify;

use super::Dispatcher;
use super::payloads::{PayloadId, Uses};

/// Where changes of tasks wait for their node.
#[derive(Debug)]
pub struct Router {
    /// The state up to which changes are in the outboxes.
    pub view: Snapshot,
    /// The managers in that state: every node is told of them, and there are many nodes.
    pub managers: Vec<Manager>,
    places: BTreeMap<NodeId, Place>,
}

/// A node that listens.
#[derive(Debug)]
struct Place {
    outbox: Arc<Outbox>,
    uses: Uses,
}

/// What changed for one node since it was told. The latest change of a task replaces those before.
#[derive(Debug, Default)]
pub struct Outbox {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// Removed where there is no task.
    tasks: BTreeMap<TaskId, Option<Arc<Task>>>,
    /// Each to be had or to be forgotten.
    payloads: BTreeMap<PayloadId, Assigned>,
    /// Another stream of the same node, or the store started over: begin again.
    is_replaced: bool,
}

impl Router {
    /// Nobody listens yet.
    pub fn new(view: Snapshot) -> Self {
        Self { managers: managers(&view), view, places: BTreeMap::new() }
    }

    /// What `node` has now, and where what follows on that will wait. A former outbox of the node ends.
    pub fn open(&mut self, node: NodeId) -> (Vec<Assigned>, Arc<Outbox>) {
        let (outbox, mut uses) = (Arc::new(Outbox::default()), Uses::default());
        let tasks: Vec<_> = self.view.tasks_on(node).filter(|t| is_sent(t)).collect();
        tasks.iter().for_each(|task| drop(uses.note(None, Some(task))));
        let payloads = uses.all().filter_map(|id| id.update(&self.view));
        let all = payloads.chain(tasks.iter().map(|t| Assigned::Task(Box::new(Task::clone(t))))).collect();
        if let Some(old) = self.places.insert(node, Place { outbox: outbox.clone(), uses }) {
            old.outbox.replace();
        }
        (all, outbox)
    }

    /// Forgets `outbox`, if it is still the node's.
    pub fn close(&mut self, node: NodeId, outbox: &Arc<Outbox>) {
        if self.places.get(&node).is_some_and(|current| Arc::ptr_eq(&current.outbox, outbox)) {
            self.places.remove(&node);
        }
    }

    /// Whether a stream of the node is there.
    pub fn is_open(&self, node: NodeId) -> bool {
        self.places.contains_key(&node)
    }

    fn commit(&mut self, commit: &Commit) {
        self.view = commit.snapshot.clone();
        for event in &commit.events {
            match event {
                Event::Task(task) => self.route_task(task),
                Event::Node(node) if concerns_all(node) => self.managers = managers(&self.view),
                _ => {}
            }
        }
    }

    fn route_task(&mut self, task: &Both<Task>) {
        let on = |task: &Option<Arc<Task>>| task.as_ref().filter(|t| is_sent(t)).and_then(|t| t.node_id);
        let (was, is) = (on(&task.before), on(&task.after));
        let (before, after) = (task.before.as_deref(), task.after.as_deref());
        if was == is {
            self.note_uses(is, before, after);
        } else {
            self.note_uses(was, before, None);
            self.note_uses(is, None, after);
        }
        let outbox = |node| self.places.get(&node).map(|place| &place.outbox);
        if let Some(outbox) = was.filter(|_| was != is).and_then(outbox) {
            outbox.put(task.latest().id, None);
        }
        let Some((outbox, after)) = is.and_then(outbox).zip(task.after.as_ref()) else { return };
        let news = was != is || task.before.as_ref().is_none_or(|before| is_news(before, after));
        if news {
            outbox.put(after.id, Some(after.clone()));
        }
    }

    fn note_uses(&mut self, node: Option<NodeId>, before: Option<&Task>, after: Option<&Task>) {
        let Some(place) = node.and_then(|node| self.places.get_mut(&node)) else { return };
        let turn = place.uses.note(before, after);
        for id in turn.needed {
            // one that is gone is not sent, and the task says so when it starts
            id.update(&self.view).into_iter().for_each(|update| place.outbox.put_payload(id, update));
        }
        turn.released.into_iter().for_each(|id| place.outbox.put_payload(id, id.removal()));
    }

    fn start_over(&mut self, view: Snapshot) {
        self.managers = managers(&view);
        self.view = view;
        std::mem::take(&mut self.places).into_iter().for_each(|(_, place)| place.outbox.replace());
    }
}

impl Outbox {
    /// Waits for changes and takes them. `None`: begin again with a new outbox.
    pub async fn take(&self) -> Option<Vec<Assigned>> {
        loop {
            {
                let mut pending = self.pending.lock().expect("nothing panics while it holds the outbox");
                if pending.is_replaced {
                    return None;
                }
                if !pending.tasks.is_empty() || !pending.payloads.is_empty() {
                    return Some(std::mem::take(&mut *pending).into_changes());
                }
            }
            self.wake.notified().await;
        }
    }

    fn put(&self, id: TaskId, task: Option<Arc<Task>>) {
        self.pending.lock().expect("nothing panics while it holds the outbox").tasks.insert(id, task);
        self.wake.notify_one();
    }

    fn put_payload(&self, id: PayloadId, change: Assigned) {
        self.pending.lock().expect("nothing panics while it holds the outbox").payloads.insert(id, change);
        self.wake.notify_one();
    }

    fn replace(&self) {
        self.pending.lock().expect("nothing panics while it holds the outbox").is_replaced = true;
        self.wake.notify_one();
    }
}

impl Pending {
    /// Contents come before the tasks that use them, and go after them.
    fn into_changes(self) -> Vec<Assigned> {
        let is_removal = |a: &Assigned| matches!(a, Assigned::RemoveSecret(_) | Assigned::RemoveConfig(_));
        let (removals, updates): (Vec<_>, Vec<_>) = self.payloads.into_values().partition(is_removal);
        let tasks = self.tasks.into_iter().map(|(id, task)| match task {
            Some(task) => Assigned::Task(Box::new(Task::clone(&task))),
            None => Assigned::RemoveTask(id),
        });
        updates.into_iter().chain(tasks).chain(removals).collect()
    }
}

impl Dispatcher {
    /// Follows the store and fills the outboxes.
    pub(super) async fn route(&self) {
        let (view, mut feed) = self.raft.subscribe();
        self.router().start_over(view);
        loop {
            match feed.next().await {
                Update::Commit(commit) => {
                    self.router().commit(&commit);
                    commit.events.iter().for_each(|event| self.announce(event));
                }
                Update::Resync(view) => {
                    self.router().start_over(view);
                    self.sessions().announce(None);
                }
            }
        }
    }

    fn announce(&self, event: &Event) {
        match event {
            Event::Node(node) => {
                if node.after.is_none() {
                    self.sessions().end(node.latest().id);
                }
                self.sessions().announce(Some(node.latest().id).filter(|_| !concerns_all(node)));
            }
            Event::Cluster(_) => {
                self.renew_rules();
                self.sessions().announce(None);
            }
            Event::Service(_) | Event::Task(_) | Event::Secret(_) | Event::Config(_) => {}
        }
    }
}

/// A task that its node is to know.
fn is_sent(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

/// Whether a node that knows `before` must hear of `after`: not where only what it reported itself changed.
fn is_news(before: &Task, after: &Task) -> bool {
    // Templates are shared, so most are told to be equal by where they lie.
    fn differ<T: PartialEq + ?Sized>(before: &Arc<T>, after: &Arc<T>) -> bool {
        !Arc::ptr_eq(before, after) && before != after
    }
    after.status.state <= TaskState::Assigned
        || before.desired_state != after.desired_state
        || differ(&before.spec, &after.spec)
        || differ(&before.annotations, &after.annotations)
        || before.endpoint != after.endpoint
        || before.registry_auth != after.registry_auth
}

/// Whether there is a manager more or less, or one elsewhere.
fn concerns_all(node: &Both<Node>) -> bool {
    let addr = |n: &Option<Arc<Node>>| n.as_ref().and_then(|n| n.manager_addr.clone());
    addr(&node.before) != addr(&node.after)
}

fn managers(view: &Snapshot) -> Vec<Manager> {
    view.nodes().filter_map(|n| Some(Manager { node_id: n.id, addr: n.manager_addr.clone()? })).collect()
}

#[cfg(test)]
mod tests {
    use shoal_store::Store;
    use shoal_types::{Change, Object, ObjectKind, Timestamp};

    use super::*;
    use crate::ids::RandomIds;
    use crate::testing::first_node;

    #[test]
    fn all_nodes_hear_of_a_manager_that_comes_moves_or_goes_and_of_nothing_else() {
        let mut store = Store::new();
        let mut router = Router::new(store.snapshot());
        let mut write = |change| {
            let index = store.index() + 1;
            let events = store.apply(index, Timestamp::UNIX_EPOCH, &[change]);
            let told = events.iter().any(|event| matches!(event, Event::Node(node) if concerns_all(node)));
            router.commit(&Commit { index, events, snapshot: store.snapshot() });
            (told, router.managers.iter().map(|m| m.addr.clone()).collect::<Vec<_>>())
        };
        let put = |node: &Node| Change::Put(Object::Node(Arc::new(node.clone())));
        let here = first_node(NodeId::new(&mut RandomIds), "a:1");
        let gone = Node { manager_addr: None, ..here.clone() };
        let moved = Node { manager_addr: Some("b:1".into()), ..here.clone() };
        let other = Node { id: NodeId::new(&mut RandomIds), ..gone.clone() };
        assert_eq!(write(put(&here)), (true, vec!["a:1".to_owned()]));
        assert_eq!(write(put(&other)), (false, vec!["a:1".to_owned()]));
        assert_eq!(write(put(&moved)), (true, vec!["b:1".to_owned()]));
        assert_eq!(write(put(&gone)), (true, vec![]));
        assert_eq!(write(put(&here)), (true, vec!["a:1".to_owned()]));
        assert_eq!(write(Change::Remove(ObjectKind::Node(here.id))), (true, vec![]));
    }
}
