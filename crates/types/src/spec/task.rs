//! What each task of a service runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ContainerSpec;
use crate::json::{is_zero, one_of};
use crate::object::Platform;
use crate::{GenericResource, Nanos};

/// The template of a service's tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_spec: Option<ContainerSpec>,
    /// A managed plugin instead of a container; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_spec: Option<Value>,
    /// A network attachment instead of a container; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_attachment_spec: Option<Value>,
    /// Limits and reservations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// What happens when a task ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where tasks may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachment>,
    /// Where the output goes; absent: the node's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// Counts forced updates.
    pub force_update: u64,
    /// `container`, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
}

/// Limits and reservations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceRequirements {
    /// What a task may use at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What is set aside for it on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Resources>,
    /// Bytes of swap; -1: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<i64>,
    /// 0 to 100; -1: the kernel's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
}

/// What a task may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Limits {
    /// CPUs, in thousand-millionths; 0: no limit.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    /// Bytes; 0: no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    /// Processes; 0: no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub pids: i64,
}

/// An amount of resources: what a node has, or what is reserved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// CPUs, in thousand-millionths.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    /// Countable or named things.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::generic::read_list")]
    pub generic_resources: Vec<GenericResource>,
}

/// What happens when a task ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// When it is replaced.
    pub condition: RestartCondition,
    /// Nanoseconds before the replacement runs; absent: 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanos>,
    /// Replacements at most; 0: no limit.
    pub max_attempts: u64,
    /// Nanoseconds in which attempts are counted; 0: all time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Nanos>,
}

/// When a task that ended is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never.
    None,
    /// When it failed.
    OnFailure,
    /// Always.
    #[default]
    Any,
}

/// Where tasks may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// Expressions that a node must satisfy (see [`crate::constraint`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// What tasks are spread over, most important first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// Tasks of the service on one node at most; 0: no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_replicas: u64,
    /// Platforms that the image has; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
}

/// One placement preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Preference {
    /// The only kind there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// Spreads evenly over the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Spread {
    /// `node.labels.KEY` or `engine.labels.KEY`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spread_descriptor: String,
}

/// A network that tasks are attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachment {
    /// Name or identifier.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Names that the tasks answer to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// For the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
}

/// Where the output of containers goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogDriver {
    /// `json-file`, `none` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

one_of!(RestartCondition, "invalid RestartCondition: {:?}",
    "" => Any, "any" => Any, "none" => None, "on-failure" => OnFailure);
