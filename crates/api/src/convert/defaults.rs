//! `insertDefaults=true`: what is not set in a service's current spec, filled in for reading (swarm-semantics 19).

use shoal_types::spec::{
    DEFAULT_MONITOR, DnsConfig, Placement, ResourceRequirements, RestartPolicy, ServiceSpec, UpdateConfig,
};

const GRACE: i64 = 10_000_000_000;
const RESTART_DELAY: i64 = 5_000_000_000;

/// Fills in Docker's defaults.
pub fn insert_defaults(spec: &mut ServiceSpec) {
    if let Some(container) = &mut spec.task_template.container_spec {
        container.stop_grace_period.get_or_insert(GRACE);
        container.dns_config.get_or_insert_with(DnsConfig::default);
    }
    let task = &mut spec.task_template;
    task.resources.get_or_insert_with(ResourceRequirements::default);
    task.placement.get_or_insert_with(Placement::default);
    task.restart_policy.get_or_insert_with(RestartPolicy::default).delay.get_or_insert(RESTART_DELAY);
    if spec.mode.is_job() {
        return; // jobs have none, and are refused with any
    }
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        config.get_or_insert_with(UpdateConfig::default).monitor.get_or_insert(DEFAULT_MONITOR);
    }
}
