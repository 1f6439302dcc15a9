//! Nodes.

use serde::Serialize;
use serde_json::{Value, json};
use shoal_manager::control::ManagerStatus;
use shoal_types::object::{NodeDescription, NodeStatus};
use shoal_types::spec::NodeSpec;
use shoal_types::{Node, NodeId};

use super::MetaBody;

/// A node as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeBody<'a> {
    #[serde(rename = "ID")]
    id: NodeId,
    #[serde(flatten)]
    meta: MetaBody,
    spec: &'a NodeSpec,
    description: DescriptionBody<'a>,
    status: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    manager_status: Option<Value>,
}

/// `{}` before the node's first session.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DescriptionBody<'a> {
    Given(&'a NodeDescription),
    Absent {},
}

/// `node` for a client; `managing` where it is a member of the consensus.
pub fn body<'a>(node: &'a Node, managing: Option<&ManagerStatus>) -> NodeBody<'a> {
    NodeBody {
        id: node.id,
        meta: node.meta.into(),
        spec: &node.spec,
        description: node.description.as_deref().map_or(DescriptionBody::Absent {}, DescriptionBody::Given),
        status: status(&node.status),
        manager_status: managing.map(manager_status),
    }
}

fn status(status: &NodeStatus) -> Value {
    let mut body = json!({ "State": status.state });
    if !status.message.is_empty() {
        body["Message"] = status.message.as_str().into();
    }
    if !status.addr.is_empty() {
        body["Addr"] = status.addr.as_str().into();
    }
    body
}

fn manager_status(managing: &ManagerStatus) -> Value {
    let mut body = json!({ "Reachability": managing.reachability.as_str(), "Addr": managing.addr });
    if managing.is_leader {
        body["Leader"] = true.into();
    }
    body
}
