//! Nodes: read, change, remove.

use std::sync::Arc;

use shoal_store::resolve;
use shoal_types::object::NodeState;
use shoal_types::spec::{Labels, NodeRole, NodeSpec};
use shoal_types::{Change, Node, NodeId, Object, ObjectKind, Refusal, RefusalKind, View, validate};

use super::{Control, Filters};

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
        let id = self.get_node(input)?.id;
        self.write(move |tx| {
            let before = tx.node(id).ok_or_else(|| not_found(id))?.clone();
            validate::node_update(tx, &before, &spec)?;
            if before.meta.version != version {
                return Err(Refusal::out_of_sequence());
            }
            let after = Node { spec, ..before.as_ref().clone() };
            Ok(tx.change(Change::Put(Object::Node(Arc::new(after))))?)
        })
        .await
    }

    /// Removes the node that `input` means. `force`: even if it is in session.
    ///
    /// # Errors
    /// `node … not found`; `node … is a cluster manager and is a member of the raft cluster. …`; `node … is not down and
    /// can't be removed`.
    pub async fn remove_node(&self, input: &str, force: bool) -> Result<(), Refusal> {
        let id = self.get_node(input)?.id;
        let is_member = self.manager_status(id).is_some();
        self.write(move |tx| {
            let node = tx.node(id).ok_or_else(|| not_found(id))?;
            let refused = |text: String| Refusal::new(RefusalKind::FailedPrecondition, text);
            if is_member || node.spec.role == NodeRole::Manager {
                return Err(refused(format!(
                    "node {id} is a cluster manager and is a member of the raft cluster. \
                     It must be demoted to worker before removal"
                )));
            }
            if !force && node.status.state == NodeState::Ready {
                return Err(refused(format!("node {id} is not down and can't be removed")));
            }
            Ok(tx.change(Change::Remove(ObjectKind::Node(id)))?)
        })
        .await
    }

    /// The node's part in consensus, if it is a manager that takes part.
    pub fn manager_status(&self, node: NodeId) -> Option<ManagerStatus> {
        let (leader, members) = self.raft.members();
        let (number, member) = members.into_iter().find(|(_, m)| m.node_id == Some(node))?;
        let is_self = number == self.raft.number();
        Some(ManagerStatus {
            is_leader: leader == Some(number),
            reachability: if is_self { Reachability::Reachable } else { Reachability::Unknown },
            // The member's own is where it was when it joined.
            addr: self.snapshot().node(node).and_then(|n| n.manager_addr.clone()).unwrap_or(member.addr),
        })
    }
}

fn role(name: &str) -> Option<NodeRole> {
    [NodeRole::Worker, NodeRole::Manager].into_iter().find(|r| r.as_str().eq_ignore_ascii_case(name))
}

fn not_found(id: NodeId) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("node {id} not found"))
}
