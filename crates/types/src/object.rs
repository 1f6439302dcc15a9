//! The objects of the cluster as the store keeps them (swarm-semantics 1.5).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::spec::{
    Annotations, ClusterSpec, EndpointSpec, NodeSpec, PortConfig, Resources, ServiceSpec, TaskSpec, UpdateState,
};
use crate::{ClusterId, GenericResource, NodeId, ServiceId, TaskId, TaskState, Timestamp};

/// What every object carries. Stamped when the write is applied, never by the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Meta {
    /// Position in the cluster's log of the last write; equal for all objects of one write.
    pub version: u64,
    /// Position in the log of the last write that changed what users want of the object. Other writes do not make what a
    /// client has seen out of date.
    #[serde(default)]
    pub wanted: u64,
    /// The leader's clock at the first write.
    pub created_at: Timestamp,
    /// The leader's clock at the last write.
    pub updated_at: Timestamp,
}

/// A service: what a user wants to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its identifier.
    pub id: ServiceId,
    /// Version and times.
    #[serde(default)]
    pub meta: Meta,
    /// What is wanted now.
    pub spec: Arc<ServiceSpec>,
    /// What was wanted before the last update; the target of a rollback.
    pub previous_spec: Option<Arc<ServiceSpec>>,
    /// The version index that the client presented with the last spec change; 0 at creation. Tasks copy it.
    pub spec_version: u64,
    /// The same, of `previous_spec`.
    pub previous_spec_version: Option<u64>,
    /// `X-Registry-Auth` as it came with the spec, for the nodes' pulls. Never shown.
    pub registry_auth: Option<Arc<str>>,
    /// The same, of `previous_spec`.
    pub previous_registry_auth: Option<Arc<str>>,
    /// Progress of the rolling update, absent when there was none since the last spec change.
    pub update_status: Option<UpdateStatus>,
    /// Which run of a job this is; jobs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
}

/// Which run of a job this is. Each change of its service begins another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct JobStatus {
    /// Counts the runs, from 0.
    pub job_iteration: u64,
    /// When it began.
    pub last_execution: Timestamp,
}

/// How far a rolling update or rollback is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// The phase.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended well.
    pub completed_at: Option<Timestamp>,
    /// One sentence for the user.
    pub message: String,
}

/// A task: one attempt to run one container of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its identifier.
    pub id: TaskId,
    /// Version and times.
    #[serde(default)]
    pub meta: Meta,
    /// The service it belongs to.
    pub service_id: ServiceId,
    /// 1 and up for replicated services, 0 and up for replicated jobs; 0 for global ones.
    pub slot: u64,
    /// Preset for global services and jobs, else the scheduler's choice.
    pub node_id: Option<NodeId>,
    /// Name and labels of the service when the task was made.
    pub annotations: Arc<Annotations>,
    /// The service's task template when the task was made.
    pub spec: Arc<TaskSpec>,
    /// The service's `spec_version` when the task was made.
    pub spec_version: u64,
    /// The service's endpoint spec when the task was made.
    pub endpoint: Option<Arc<EndpointSpec>>,
    /// The service's `registry_auth` when the task was made.
    pub registry_auth: Option<Arc<str>>,
    /// What was observed last.
    pub status: TaskStatus,
    /// Where it is to be.
    pub desired_state: TaskState,
    /// The run that it belongs to; tasks of jobs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<u64>,
    /// What it was given of its node's generic resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assigned_generic: Vec<GenericResource>,
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TaskStatus {
    /// When this was observed, by the observer's clock.
    pub timestamp: Timestamp,
    /// The observed state.
    pub state: TaskState,
    /// What happened, in a word or two: `created`, `started`, `preparing` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why it failed, or why it waits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub err: String,
    /// The container, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerStatus>,
    /// Host-mode ports as the node bound them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// When the leader wrote this status; absent until a node reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<Timestamp>,
}

/// The container of a task. The JSON form is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ContainerStatus {
    /// 64 hexadecimal digits.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Its first process as the host sees it; 0 once ended.
    #[serde(rename = "PID")]
    pub pid: i64,
    /// The exit code; 0 while it runs.
    #[serde(rename = "ExitCode")]
    pub exit_code: i64,
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its identifier.
    pub id: NodeId,
    /// Version and times.
    #[serde(default)]
    pub meta: Meta,
    /// What a user wants of it.
    pub spec: NodeSpec,
    /// The role its certificate carries now (`spec.role` is the desired one).
    pub role: crate::spec::NodeRole,
    /// What it reported about itself; absent before its first session.
    pub description: Option<Arc<NodeDescription>>,
    /// Whether it is there.
    pub status: NodeStatus,
    /// Where its manager listens (`host:port`), on managers.
    pub manager_addr: Option<String>,
    /// The authority that its certificate is to be from, by public key (as in [`TlsInfo`]); absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_issuer: Option<String>,
}

/// What a node reports about itself. The JSON form is Docker's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDescription {
    /// Its host name.
    pub hostname: String,
    /// Architecture (`x86_64`) and operating system (`linux`).
    pub platform: Platform,
    /// What it has to give.
    pub resources: Resources,
    /// Its engine.
    pub engine: EngineDescription,
    /// The certificate authority it trusts.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
}

/// An architecture and an operating system; an empty field matches any. The JSON form is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// `x86_64`, `aarch64` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// `linux`
    #[serde(rename = "OS", skip_serializing_if = "String::is_empty")]
    pub os: String,
}

/// The engine of a node. The JSON form is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineDescription {
    /// Its version.
    pub engine_version: String,
    /// `--label` of the daemon.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Drivers, sorted by type, then name.
    pub plugins: Vec<PluginDescription>,
}

/// A driver of an engine. The JSON form is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct PluginDescription {
    /// `Volume`, `Network`, `Log` …
    pub r#type: String,
    /// `local`, `overlay`, `json-file` …
    pub name: String,
}

/// The authority that a node trusts. The JSON form is Docker's (byte fields in base64).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct TlsInfo {
    /// The root certificates, PEM.
    #[serde(rename = "TrustRoot")]
    pub trust_root: String,
    /// DER of the issuer's subject, base64.
    #[serde(rename = "CertIssuerSubject")]
    pub cert_issuer_subject: String,
    /// DER of the issuer's public key, base64.
    #[serde(rename = "CertIssuerPublicKey")]
    pub cert_issuer_public_key: String,
}

/// Whether a node is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct NodeStatus {
    /// The state.
    pub state: NodeState,
    /// Why, where there is something to say.
    #[serde(default)]
    pub message: String,
    /// The address its session came from, without port.
    #[serde(default)]
    pub addr: String,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not heard of since the leader changed.
    #[default]
    Unknown,
    /// Heartbeats stopped.
    Down,
    /// In session.
    Ready,
    /// Looks for another manager.
    Disconnected,
}

/// The cluster itself; there is one, named `default`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its identifier.
    pub id: ClusterId,
    /// Version and times.
    #[serde(default)]
    pub meta: Meta,
    /// Its settings.
    pub spec: ClusterSpec,
    /// Its certificate authority.
    pub root_ca: RootCa,
    /// The pools that overlay subnets are cut from.
    pub default_addr_pool: Vec<String>,
    /// The length of the subnets' prefix.
    pub subnet_size: u32,
    /// UDP port of the data path; 0 means 4789.
    pub data_path_port: u32,
    /// Nodes that were removed, and until when a certificate of theirs may still be valid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blacklist: BTreeMap<NodeId, Timestamp>,
    /// What the keys on managers' disks are sealed with (`SWMKEY-1-…`); absent: they are not. Never shown with the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock_keys: Option<String>,
    /// The authority that takes the place of [`Self::root_ca`], while nodes change over to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_rotation: Option<Arc<RootRotation>>,
}

/// The certificate authority of the cluster. Never shown whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// The root certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// What a worker joins with.
    pub worker_token: String,
    /// What a manager joins with.
    pub manager_token: String,
}

/// A change of the certificate authority that is under way. Never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// The new root certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The new authority as the old one vouches for it, PEM: nodes that still trust the old root follow it.
    pub cross_signed_pem: String,
}

impl Meta {
    /// Whether a client that has seen `version` has seen all that users wanted since: what the cluster itself writes
    /// (that a node is ready, how far an update is) does not get in the way of people.
    pub fn is_current(&self, version: u64) -> bool {
        (self.wanted..=self.version).contains(&version)
    }
}

impl Task {
    /// Whether it counts against a node: wanted, and not ended.
    pub fn is_active(&self) -> bool {
        self.desired_state <= TaskState::Complete && self.status.state <= TaskState::Running
    }
}
