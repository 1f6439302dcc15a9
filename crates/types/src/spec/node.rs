//! What a user wants of a node.

use serde::{Deserialize, Serialize};

use super::Labels;
use crate::json::one_of;

/// What a user wants of a node (`docker node update`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", try_from = "Given")]
pub struct NodeSpec {
    /// Normally empty: nodes go by their host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels for constraints and preferences.
    pub labels: Labels,
    /// The role it is to have.
    pub role: NodeRole,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// A node spec as it is read: role and availability must be there, or leaving one out would demote a manager.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Given {
    name: String,
    labels: Labels,
    role: Option<NodeRole>,
    availability: Option<Availability>,
}

/// What a node does for the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs tasks.
    #[default]
    Worker,
    /// Runs tasks and takes part in consensus.
    Manager,
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps what it has, takes no more.
    Pause,
    /// Gives up what it has.
    Drain,
}

impl TryFrom<Given> for NodeSpec {
    type Error = &'static str;

    fn try_from(given: Given) -> Result<Self, Self::Error> {
        Ok(Self {
            name: given.name,
            labels: given.labels,
            role: given.role.ok_or("invalid Role: \"\"")?,
            availability: given.availability.ok_or("invalid Availability: \"\"")?,
        })
    }
}

one_of!(NodeRole, "invalid Role: {:?}", "worker" => Worker, "manager" => Manager);
one_of!(Availability, "invalid Availability: {:?}", "active" => Active, "pause" => Pause, "drain" => Drain);

impl NodeRole {
    /// The name in Docker's JSON, filters and constraints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}
