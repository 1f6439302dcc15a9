//! What users want, with Docker's field names (swarm-semantics 13, 19). Empty lists, maps and texts are the same
//! as absent ones.

mod cluster;
mod container;
mod node;
mod payload;
mod service;
mod task;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use cluster::{
    CaConfig, ClusterSpec, DispatcherConfig, EncryptionConfig, OrchestrationConfig, RaftConfig, TaskDefaults,
};
pub use container::{
    BindOptions, ContainerSpec, DnsConfig, HealthConfig, Mount, MountType, TmpfsOptions, Ulimit, VolumeDriver,
    VolumeOptions,
};
pub use node::{Availability, NodeRole, NodeSpec};
pub use payload::{ConfigReference, Data, FileTarget, PayloadDriver, PayloadSpec, Reference, SecretReference};
pub use service::{
    DEFAULT_MONITOR, Empty, EndpointSpec, FailureAction, PortConfig, PublishMode, Replicated, ReplicatedJob,
    ResolutionMode, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder, UpdateState,
};
pub use task::{
    Limits, LogDriver, NetworkAttachment, Placement, Preference, ResourceRequirements, Resources, RestartCondition,
    RestartPolicy, Spread, TaskSpec,
};

/// Labels: keys to values.
pub type Labels = BTreeMap<String, String>;

/// A name and labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Annotations {
    /// The name.
    pub name: String,
    /// The labels; always shown, `{}` when there are none.
    pub labels: Labels,
}
