//! Nodes: read, change, remove.

use std::sync::Arc;

use shoal_store::resolve;
use shoal_types::object::NodeState;
use shoal_types::spec::{Labels, NodeRole, NodeSpec};
use shoal_types::{Change, Node, NodeId, Object, ObjectKind, Refusal, RefusalKind, View, validate};

use super::{Control, Filters, Halt, Here, Request};

/// A node's part in consensus; only managers have one. Computed when asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerStatus {
    /// It leads.
    pub is_leader: bool,
    /// Whether the others reach it.
    pub reachability: Reachability,
    /// Where it listens: `host:port`.
    pub addr: String,
}

/// Whether a manager is reached by the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// Not known.
    Unknown,
    /// It is not.
    Unreachable,
    /// It is.
    Reachable,
}

impl Reachability {
    /// The name in Docker's JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Reachable => "reachable",
        }
    }
}

impl Control {
    /// The node that `input` means.
    ///
    /// # Errors
    /// `node … not found`, `node … is ambiguous (… matches found)`.
    pub fn get_node(&self, input: &str) -> Result<Arc<Node>, Refusal> {
        resolve::node(&self.snapshot(), input).cloned()
    }

    /// `node` as this manager may show it after [`Self::catch_up`]. Without a leader it is not known who is there: what was
    /// known last may be long out of date, and must not be taken for the present.
    pub fn seen(&self, node: &Arc<Node>) -> Arc<Node> {
        if self.way.standing().leader.is_some() || node.status.state == NodeState::Down {
            return node.clone();
        }
        let mut node = node.as_ref().clone();
        node.status.state = NodeState::Unknown;
        "this manager has no contact to a leader".clone_into(&mut node.status.message);
        Arc::new(node)
    }

    /// The nodes that `filters` let through, in the order of identifiers.
    ///
    /// # Errors
    /// `invalid filter '…'`; `Invalid role filter: '…'`; `Invalid membership filter: '…'`.
    pub fn list_nodes(&self, filters: &Filters) -> Result<Vec<Arc<Node>>, Refusal> {
        filters.accept(&["id", "name", "label", "node.label", "role", "membership"])?;
        let roles = filters.parsed("role", "role", role)?;
        // All nodes that there are were accepted.
        let memberships = filters.parsed("membership", "membership", |v| match v.to_ascii_lowercase().as_str() {
            "accepted" => Some(true),
            "pending" => Some(false),
            _ => None,
        })?;
        let view = self.snapshot();
        let fits = |n: &&Arc<Node>| {
            let none = Labels::new();
            let engine = n.description.as_ref().map_or(&none, |d| &d.engine.labels);
            let hostname = n.description.as_ref().map_or("", |d| d.hostname.as_str());
            filters.prefix("id", n.id.as_str())
                && filters.prefix("name", hostname)
                && filters.labels("label", engine)
                && filters.labels("node.label", &n.spec.labels)
                && (roles.is_empty() || roles.contains(&n.role))
                && (memberships.is_empty() || memberships.contains(&true))
        };
        Ok(view.nodes().filter(fits).cloned().collect())
    }

    /// Changes the node that `input` means; `version` is what the client has seen.
    ///
    /// # Errors
    /// What `validate::node_update` refuses; `node … not found`; `update out of sequence`.
    pub async fn update_node(&self, input: &str, version: u64, spec: NodeSpec) -> Result<(), Refusal> {
        self.ask(Request::UpdateNode { input: input.to_owned(), version, spec }).await
    }

    /// Removes the node that `input` means. `force`: even if it is in session.
    ///
    /// # Errors
    /// `node … not found`; `node … is a cluster manager and is a member of the raft cluster. …`; `node … is not down and
    /// can't be removed`.
    pub async fn remove_node(&self, input: &str, force: bool) -> Result<(), Refusal> {
        self.ask(Request::RemoveNode { input: input.to_owned(), force }).await
    }

    /// The node's part in consensus, if it is a manager that takes part; as the leader saw it at the last [`Self::catch_up`].
    pub fn manager_status(&self, node: NodeId) -> Option<ManagerStatus> {
        let (leader, members) = self.raft.members();
        let (number, member) = members.into_iter().find(|(_, m)| m.node_id == Some(node))?;
        let standing = self.way.standing();
        let reachability = match standing.leader {
            Some(_) if standing.unreachable.contains(&number) => Reachability::Unreachable,
            Some(_) => Reachability::Reachable,
            None if number == self.raft.number() => Reachability::Reachable,
            None => Reachability::Unknown,
        };
        Some(ManagerStatus { is_leader: leader == Some(number), reachability, addr: member.addr })
    }
}

impl Here {
    pub(super) async fn update_node(&self, input: &str, version: u64, spec: NodeSpec) -> Result<(), Halt> {
        let id = resolve::node(&self.raft.snapshot(), input)?.id;
        let demotion = self.may_demote(id);
        self.write(move |tx| {
            let before = tx.node(id).ok_or_else(|| not_found(id))?.clone();
            validate::node_update(tx, &before, &spec)?;
            if (before.spec.role, spec.role) == (NodeRole::Manager, NodeRole::Worker) {
                demotion?;
            }
            if !before.meta.is_current(version) {
                return Err(Refusal::out_of_sequence());
            }
            let after = Node { spec, ..before.as_ref().clone() };
            Ok(tx.change(Change::Put(Object::Node(Arc::new(after))))?)
        })
        .await
    }

    /// Whether the managers go on without the one on `id` (swarm-semantics 8.2).
    fn may_demote(&self, id: NodeId) -> Result<(), Refusal> {
        let members = self.raft.members().1;
        let Some((leaves, _)) = members.iter().find(|(_, m)| m.node_id == Some(id)) else { return Ok(()) };
        let stays: Vec<u64> = members.iter().map(|(number, _)| *number).filter(|number| number != leaves).collect();
        if stays.is_empty() {
            return Err(last_manager());
        }
        let reached = stays.iter().filter(|number| **number == self.raft.number() || self.raft.reachable(**number));
        if reached.count() < (members.len() - 1) / 2 + 1 {
            let text = "can't remove member from the raft: this would result in a loss of quorum";
            return Err(Refusal::new(RefusalKind::FailedPrecondition, text));
        }
        Ok(())
    }

    pub(super) async fn remove_node(&self, input: &str, force: bool) -> Result<(), Halt> {
        let id = resolve::node(&self.raft.snapshot(), input)?.id;
        let is_member = self.raft.members().1.iter().any(|(_, m)| m.node_id == Some(id));
        self.write(move |tx| {
            let node = tx.node(id).ok_or_else(|| not_found(id))?;
            let refused = |text: String| Refusal::new(RefusalKind::FailedPrecondition, text);
            if is_member {
                return Err(refused(format!(
                    "node {id} is a cluster manager and is a member of the raft cluster. \
                     It must be demoted to worker before removal"
                )));
            }
            if !force && node.status.state == NodeState::Ready {
                return Err(refused(format!("node {id} is not down and can't be removed")));
            }
            if let Some(cluster) = tx.cluster() {
                let cluster = crate::ca::without(cluster, id, shoal_ambient::now());
                tx.change(Change::Put(Object::Cluster(Arc::new(cluster))))?;
            }
            Ok(tx.change(Change::Remove(ObjectKind::Node(id)))?)
        })
        .await
    }
}

fn role(name: &str) -> Option<NodeRole> {
    [NodeRole::Worker, NodeRole::Manager].into_iter().find(|r| r.as_str().eq_ignore_ascii_case(name))
}

fn last_manager() -> Refusal {
    Refusal::new(RefusalKind::FailedPrecondition, "attempting to demote the last manager of the swarm")
}

fn not_found(id: NodeId) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("node {id} not found"))
}
