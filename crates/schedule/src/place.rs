//! The choice among nodes that can take a task: few recent failures, then few tasks of the service, then few tasks,
//! then the identifier (swarm-semantics 4.4); where there are preferences, below evenly filled branches (4.5).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use shoal_types::id::NodeKind;
use shoal_types::{IdSet, NodeId, Timestamp};

use crate::demand::{Demand, LabelKey, Load};
use crate::filter;
use crate::index::{NodeInfo, Nodes};

/// Chooses nodes for the tasks of one group, one after the other.
pub(crate) enum Placer {
    /// Without preferences.
    Flat(Flat),
    /// With them.
    Tree(Branch, BTreeMap<NodeId, usize>),
}

/// Failures (where there are too many), tasks of the service, tasks: less is better.
type Rank = (usize, u32, u32);

type Heap = BinaryHeap<Reverse<(Rank, NodeId)>>;

/// Looks at nodes only as they are needed. One that has no task of the service ranks by its load alone, and the
/// index has all nodes in that order.
pub(crate) struct Flat {
    avoided: BTreeMap<NodeId, usize>,
    heap: Heap,
    seen: IdSet<NodeKind>,
    last: Option<(u32, NodeId)>,
}

/// The nodes with one value of a label.
pub(crate) struct Branch {
    /// Tasks of the service in it.
    tasks: u32,
    inner: Inner,
}

enum Inner {
    Leaf(Heap),
    /// The branches below, and those that are not full, emptiest first.
    Fork(Vec<Branch>, BTreeSet<(u32, usize)>),
}

// === impl Placer ===

impl Placer {
    pub(crate) fn new(nodes: &Nodes, demand: &Demand, now: Timestamp) -> Self {
        let avoided = nodes.avoided(demand.group, now);
        if demand.preferences.is_empty() {
            return Self::Flat(Flat::new(nodes, demand, avoided));
        }
        let all: Vec<_> = nodes.known().collect();
        Self::Tree(Branch::new(&all, &demand.preferences, demand, &avoided), avoided)
    }

    /// The node for the next task, which is counted on it, and what it takes there; `None` when no node can take one.
    pub(crate) fn place(&mut self, nodes: &mut Nodes, demand: &Demand) -> Option<(NodeId, Load)> {
        match self {
            Self::Flat(flat) => flat.place(nodes, demand),
            Self::Tree(branch, avoided) => branch.place(nodes, demand, avoided),
        }
    }
}

fn rank(id: NodeId, info: &NodeInfo, demand: &Demand, avoided: &BTreeMap<NodeId, usize>) -> Rank {
    (avoided.get(&id).copied().unwrap_or_default(), info.of(demand.group.0), info.active)
}

fn offer(heap: &mut Heap, id: NodeId, nodes: &Nodes, demand: &Demand, avoided: &BTreeMap<NodeId, usize>) {
    if let Some(info) = nodes.get(id)
        && filter::first(info, demand).is_none()
    {
        heap.push(Reverse((rank(id, info, demand, avoided), id)));
    }
}

/// Takes the best node of `heap`, counts a task on it and puts it back where it can take another.
fn take(
    heap: &mut Heap,
    nodes: &mut Nodes,
    demand: &Demand,
    avoided: &BTreeMap<NodeId, usize>,
) -> Option<(NodeId, Load)> {
    let Reverse((_, id)) = heap.pop()?;
    let load = nodes.get(id).and_then(|info| demand.of_node(info)).expect("only nodes that fit are on the heap");
    nodes.add(id, &load);
    offer(heap, id, nodes, demand, avoided);
    Some((id, load))
}

// === impl Flat ===

impl Flat {
    fn new(nodes: &Nodes, demand: &Demand, avoided: BTreeMap<NodeId, usize>) -> Self {
        let mut flat = Self { heap: Heap::new(), seen: IdSet::default(), last: None, avoided };
        let special: BTreeSet<_> = nodes.with_tasks_of(demand.group.0).chain(flat.avoided.keys().copied()).collect();
        for id in special {
            flat.seen.insert(id);
            offer(&mut flat.heap, id, nodes, demand, &flat.avoided);
        }
        flat
    }

    fn place(&mut self, nodes: &mut Nodes, demand: &Demand) -> Option<(NodeId, Load)> {
        while let Some(next) = nodes.next_by_load(self.last) {
            let best = self.heap.peek().map(|Reverse((rank, id))| (*rank, *id));
            if best.is_some_and(|best| best < ((0, 0, next.0), next.1)) {
                break;
            }
            self.last = Some(next);
            if self.seen.insert(next.1) {
                offer(&mut self.heap, next.1, nodes, demand, &self.avoided);
            }
        }
        take(&mut self.heap, nodes, demand, &self.avoided)
    }
}

// === impl Branch ===

impl Branch {
    fn new(
        nodes: &[(NodeId, &NodeInfo)],
        keys: &[LabelKey],
        demand: &Demand,
        avoided: &BTreeMap<NodeId, usize>,
    ) -> Self {
        let tasks = nodes.iter().map(|(_, info)| info.of(demand.group.0)).sum();
        let Some((key, below)) = keys.split_first() else {
            let fit = nodes.iter().filter(|(_, info)| filter::first(info, demand).is_none());
            let heap = fit.map(|(id, info)| Reverse((rank(*id, info, demand, avoided), *id))).collect();
            return Self { tasks, inner: Inner::Leaf(heap) };
        };
        let mut values: BTreeMap<&str, Vec<(NodeId, &NodeInfo)>> = BTreeMap::new();
        for (id, info) in nodes {
            values.entry(key.value(info)).or_default().push((*id, *info));
        }
        let branches: Vec<_> = values.values().map(|nodes| Self::new(nodes, below, demand, avoided)).collect();
        let open = branches.iter().enumerate().map(|(at, branch)| (branch.tasks, at)).collect();
        Self { tasks, inner: Inner::Fork(branches, open) }
    }

    fn place(
        &mut self,
        nodes: &mut Nodes,
        demand: &Demand,
        avoided: &BTreeMap<NodeId, usize>,
    ) -> Option<(NodeId, Load)> {
        let placed = match &mut self.inner {
            Inner::Leaf(heap) => take(heap, nodes, demand, avoided),
            Inner::Fork(branches, open) => std::iter::from_fn(|| open.pop_first())
                .find_map(|(_, at)| {
                    // a branch that cannot take its share stays closed; the others take the rest
                    let placed = branches[at].place(nodes, demand, avoided)?;
                    Some((placed, at))
                })
                .map(|(placed, at)| {
                    open.insert((branches[at].tasks, at));
                    placed
                }),
        };
        self.tasks += u32::from(placed.is_some());
        placed
    }
}

// === impl LabelKey ===

impl LabelKey {
    /// What a node has there; nothing is the empty text, which is a branch of its own.
    fn value<'a>(&self, info: &'a NodeInfo) -> &'a str {
        let node = info.node.as_deref();
        let value = match self {
            Self::Node(key) => node.and_then(|n| n.spec.labels.get(key)),
            Self::Engine(key) => node.and_then(|n| n.description.as_ref()).and_then(|d| d.engine.labels.get(key)),
        };
        value.map_or("", String::as_str)
    }
}
