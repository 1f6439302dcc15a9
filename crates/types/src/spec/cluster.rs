//! Settings of the cluster.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Labels, LogDriver};
use crate::Nanos;
use crate::json::is_zero;

/// Settings of the cluster (`docker swarm update`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    /// Always `default`.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Task history.
    pub orchestration: OrchestrationConfig,
    /// Consensus.
    pub raft: RaftConfig,
    /// Heartbeats.
    pub dispatcher: DispatcherConfig,
    /// Certificates.
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    /// Defaults of task templates.
    pub task_defaults: TaskDefaults,
    /// Encryption at rest.
    pub encryption_config: EncryptionConfig,
}

/// Task history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct OrchestrationConfig {
    /// How many tasks of a slot are kept, the live one included; negative: all. Absent: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

/// Consensus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftConfig {
    /// Log entries between snapshots.
    #[serde(skip_serializing_if = "is_zero")]
    pub snapshot_interval: u64,
    /// Snapshots kept beside the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old_snapshots: Option<u64>,
    /// Log entries kept for followers that lag.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_entries_for_slow_followers: u64,
    /// Ticks without a leader before an election.
    pub election_tick: i64,
    /// Ticks between heartbeats.
    pub heartbeat_tick: i64,
}

/// Heartbeats of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct DispatcherConfig {
    /// Nanoseconds between heartbeats.
    #[serde(skip_serializing_if = "is_zero")]
    pub heartbeat_period: Nanos,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaConfig {
    /// Nanoseconds that a node's certificate is valid.
    #[serde(skip_serializing_if = "is_zero")]
    pub node_cert_expiry: Nanos,
    /// External authorities.
    #[serde(rename = "ExternalCAs", skip_serializing_if = "Vec::is_empty")]
    pub external_cas: Vec<Value>,
    /// A root certificate to change to.
    #[serde(rename = "SigningCACert", skip_serializing_if = "String::is_empty")]
    pub signing_ca_cert: String,
    /// Its key.
    #[serde(rename = "SigningCAKey", skip_serializing_if = "String::is_empty")]
    pub signing_ca_key: String,
    /// Counts forced root rotations.
    #[serde(skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
}

/// Defaults of task templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskDefaults {
    /// For services that name no log driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
}

/// Encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct EncryptionConfig {
    /// Managers need the unlock key after a restart.
    pub auto_lock_managers: bool,
}

impl ClusterSpec {
    /// The settings of a new cluster (swarm-semantics 15).
    pub fn initial() -> Self {
        Self {
            name: "default".into(),
            orchestration: OrchestrationConfig { task_history_retention_limit: Some(5) },
            raft: RaftConfig {
                snapshot_interval: 10_000,
                keep_old_snapshots: Some(0),
                log_entries_for_slow_followers: 500,
                election_tick: 10,
                heartbeat_tick: 1,
            },
            dispatcher: DispatcherConfig { heartbeat_period: 5_000_000_000 },
            ca_config: CaConfig { node_cert_expiry: 90 * 24 * 3600 * 1_000_000_000, ..CaConfig::default() },
            ..Self::default()
        }
    }
}
