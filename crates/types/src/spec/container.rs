//! The container of a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConfigReference, Labels, SecretReference};
use crate::Nanos;
use crate::json::{is_zero, one_of};

/// The container of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    /// Reference of the image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Labels of the containers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Replaces the image's entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Host name in the container; may hold a template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// `KEY=value`; values may hold templates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `user[:group]`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Further groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Credential spec, SELinux, seccomp, AppArmor, no-new-privileges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Value>,
    /// Runs a small init as process 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Overrides the image's stop signal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Gives it a terminal.
    #[serde(rename = "TTY", skip_serializing_if = "is_zero")]
    pub tty: bool,
    /// Keeps its standard input open.
    #[serde(skip_serializing_if = "is_zero")]
    pub open_stdin: bool,
    /// Its root file system cannot be written.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Nanoseconds between the stop signal and SIGKILL; absent: 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<Nanos>,
    /// How its health is asked for; absent: the image's way.
    #[serde(alias = "HealthCheck", skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// `IP host [alias…]` lines for /etc/hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// For /etc/resolv.conf.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// References to secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretReference>,
    /// References to configs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ConfigReference>,
    /// Windows only; `default` elsewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// Kernel settings of its namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities beyond the default ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capability_add: Vec<String>,
    /// Capabilities it is not to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capability_drop: Vec<String>,
    /// Resource limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// -1000 to 1000: how readily the kernel kills it when memory runs out.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_score_adj: i64,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// The kind.
    pub r#type: MountType,
    /// Path on the node, or name of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Cannot be written.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    /// `default`, `consistent`, `cached`, `delegated`: no difference on Linux.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// For binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A path of the node.
    #[default]
    Bind,
    /// A named or anonymous volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// Windows only.
    Npipe,
    /// A cluster volume.
    Cluster,
}

/// Options of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate` (default), `private`, `rshared`, `shared`, `rslave`, `slave`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Leaves out mounts below the source.
    #[serde(skip_serializing_if = "is_zero")]
    pub non_recursive: bool,
    /// Makes the source where it is missing (containers only).
    #[serde(skip_serializing_if = "is_zero")]
    pub create_mountpoint: bool,
    /// Read-only for the top mount alone.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_non_recursive: bool,
    /// Fails where mounts below cannot be made read-only.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_force_recursive: bool,
}

/// Options of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// A new volume is not filled from the image.
    #[serde(skip_serializing_if = "is_zero")]
    pub no_copy: bool,
    /// Labels of the volume, where it is made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Its driver, where it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<VolumeDriver>,
    /// Path below the volume's root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// The driver of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeDriver {
    /// `local`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Options of a tmpfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Bytes; 0: no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// File mode; 0: 1777 octal.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u32,
    /// Mount options: `["noexec"]`, `["uid", "1000"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<Vec<String>>,
}

/// How the health of a container is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`; empty: the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Nanoseconds between probes; 0: 30 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: Nanos,
    /// Nanoseconds that a probe may take; 0: 30 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: Nanos,
    /// Nanoseconds at the start in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: Nanos,
    /// Nanoseconds between probes in the start period; 0: 5 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: Nanos,
    /// Failures in a row that make it unhealthy; 0: 3.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// For /etc/resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Addresses of servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A resource limit of processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// `nofile`, `nproc` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The most it can be raised to.
    #[serde(skip_serializing_if = "is_zero")]
    pub hard: i64,
    /// The one in force.
    #[serde(skip_serializing_if = "is_zero")]
    pub soft: i64,
}

one_of!(MountType, "invalid MountType: {:?}",
    "" => Bind, "bind" => Bind, "volume" => Volume, "tmpfs" => Tmpfs, "npipe" => Npipe, "cluster" => Cluster);
