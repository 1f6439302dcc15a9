//! What a user wants of a service.

use serde::{Deserialize, Serialize};

use super::{Labels, NetworkAttachment, TaskSpec};
use crate::Nanos;
use crate::json::{is_zero, one_of};

/// A service as a user describes it (`docker service create`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// Unique in the cluster, in any case.
    pub name: String,
    /// Labels of the service (not of its containers).
    pub labels: Labels,
    /// What each task runs.
    pub task_template: TaskSpec,
    /// How many tasks.
    pub mode: ServiceMode,
    /// How updates roll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How rollbacks roll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// The deprecated place for networks; `task_template.networks` is the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachment>,
    /// How it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
}

/// How many tasks a service has: at most one member is set; none means one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceMode {
    /// A number of equal tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    /// One task on each node that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Empty>,
    /// A number of tasks run to their end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<ReplicatedJob>,
    /// One task on each node, run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Empty>,
}

/// `{}`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Empty {}

/// A number of equal tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    /// How many; absent means 1. Negative ones are refused by validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
}

/// A number of tasks run to their end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicatedJob {
    /// How many at a time; absent means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<i64>,
    /// How many in all; absent means `max_concurrent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<i64>,
}

/// How an update or a rollback rolls through the tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// Slots replaced at a time; 0 or absent means all.
    #[serde(default)]
    pub parallelism: u64,
    /// Nanoseconds of rest after each slot.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: Nanos,
    /// What a failed task leads to.
    pub failure_action: FailureAction,
    /// Nanoseconds that a new task is watched after it runs; absent means 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Nanos>,
    /// The share of failed tasks that is still good.
    #[serde(serialize_with = "short_ratio")]
    pub max_failure_ratio: f32,
    /// Which comes first, the stop or the start.
    pub order: UpdateOrder,
}

/// What a failed task leads to during an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// The update stops where it is.
    #[default]
    Pause,
    /// Nothing.
    Continue,
    /// The previous spec comes back.
    Rollback,
}

/// Which comes first when a task is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old one stops, then the new one starts.
    #[default]
    StopFirst,
    /// The new one runs, then the old one stops.
    StartFirst,
}

/// The phase of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// A failure stopped it.
    Paused,
    /// Done.
    Completed,
    /// Tasks are being replaced by those of the previous spec.
    RollbackStarted,
    /// A failure stopped the rollback.
    RollbackPaused,
    /// Rolled back.
    RollbackCompleted,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// How its name resolves.
    pub mode: ResolutionMode,
    /// Published ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

/// How a service's name resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ResolutionMode {
    /// To one virtual address.
    #[default]
    Vip,
    /// To the addresses of its tasks.
    Dnsrr,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortConfig {
    /// A name for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The port in the container.
    #[serde(skip_serializing_if = "is_zero")]
    pub target_port: u32,
    /// The port outside; 0: chosen.
    #[serde(skip_serializing_if = "is_zero")]
    pub published_port: u32,
    /// On every node, or on the task's own.
    pub publish_mode: PublishMode,
}

/// Where a published port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node.
    #[default]
    Ingress,
    /// On the node of the task.
    Host,
}

one_of!(FailureAction, "unrecognized update failure action {}",
    "" => Pause, "pause" => Pause, "continue" => Continue, "rollback" => Rollback);
one_of!(UpdateOrder, "unrecognized update order {}",
    "" => StopFirst, "stop-first" => StopFirst, "start-first" => StartFirst);
one_of!(ResolutionMode, "invalid resolution mode: {:?}", "" => Vip, "vip" => Vip, "dnsrr" => Dnsrr);

impl<'de> Deserialize<'de> for PublishMode {
    /// As in Docker, a text that is no mode means ingress.
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Ok(if text.eq_ignore_ascii_case("host") { Self::Host } else { Self::Ingress })
    }
}

// === impl ServiceMode ===

impl ServiceMode {
    /// The name that the `mode` filter takes.
    pub fn name(&self) -> &'static str {
        match self {
            Self { global: Some(_), .. } => "global",
            Self { replicated_job: Some(_), .. } => "replicated-job",
            Self { global_job: Some(_), .. } => "global-job",
            _ => "replicated",
        }
    }

    /// One task on each node.
    pub fn is_global(&self) -> bool {
        self.global.is_some()
    }

    /// Tasks that run to their end.
    pub fn is_job(&self) -> bool {
        self.replicated_job.is_some() || self.global_job.is_some()
    }

    /// One task on each node, whether it is to go on or to end.
    pub fn spans_nodes(&self) -> bool {
        self.global.is_some() || self.global_job.is_some()
    }

    /// The number of replicas of a replicated service; 0 for other modes.
    pub fn replicas(&self) -> u64 {
        match self {
            Self { replicated: Some(r), .. } => r.replicas.unwrap_or(1).max(0).unsigned_abs(),
            _ => 0,
        }
    }

    /// How many tasks of a replicated job run at a time, and how many are to end well; 0 for other modes.
    pub fn job_counts(&self) -> (u64, u64) {
        let Some(job) = &self.replicated_job else { return (0, 0) };
        let count = |n: i64| n.max(0).unsigned_abs();
        let concurrent = job.max_concurrent.map_or(1, count);
        (concurrent, job.total_completions.map_or(concurrent, count))
    }

    /// How many members are set.
    pub fn given(&self) -> usize {
        usize::from(self.replicated.is_some())
            + usize::from(self.global.is_some())
            + usize::from(self.replicated_job.is_some())
            + usize::from(self.global_job.is_some())
    }

    /// The members as they read back: absent counts filled in.
    #[must_use]
    pub fn filled(mut self) -> Self {
        if self.given() == 0 {
            self.replicated = Some(Replicated::default());
        }
        if let Some(r) = &mut self.replicated {
            r.replicas.get_or_insert(1);
        }
        if let Some(job) = &mut self.replicated_job {
            let concurrent = *job.max_concurrent.get_or_insert(1);
            job.total_completions.get_or_insert(concurrent);
        }
        self
    }
}

// === impl UpdateConfig ===

/// How long a new task is watched when the configuration does not say: 5 s.
pub const DEFAULT_MONITOR: Nanos = 5_000_000_000;

impl Default for UpdateConfig {
    /// What applies when a service has no configuration.
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: 0,
            failure_action: FailureAction::Pause,
            monitor: None,
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

impl UpdateConfig {
    /// Nanoseconds that a new task is watched.
    pub fn monitor(&self) -> Nanos {
        self.monitor.filter(|m| *m != 0).unwrap_or(DEFAULT_MONITOR)
    }
}

/// Whole numbers without a fraction, as Go writes them.
fn short_ratio<S: serde::Serializer>(ratio: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if ratio.fract() == 0.0 { serializer.serialize_i64(*ratio as i64) } else { serializer.serialize_f32(*ratio) }
}
