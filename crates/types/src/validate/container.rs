//! The container part of a service spec.

use std::collections::BTreeSet;

use super::image::is_image_reference;
use super::payload;
use super::{Refusal, RefusalKind};
use crate::Nanos;
use crate::spec::{ContainerSpec, HealthConfig, TaskSpec};

const PROPAGATIONS: [&str; 7] = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
const MIN_HEALTH_SPAN: Nanos = 1_000_000;

/// What the engine refuses before it asks the manager.
pub(super) fn engine_rules(task: &TaskSpec) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::engine(RefusalKind::InvalidArgument, text));
    task.container_spec.as_ref().map_or(Ok(()), payload::engine_rules)?;
    for mount in task.container_spec.iter().flat_map(|c| &c.mounts) {
        let propagation = mount.bind_options.as_ref().map_or("", |b| &b.propagation);
        if !PROPAGATIONS.contains(&propagation) {
            return refuse(format!("invalid MountPropagation: {propagation:?}"));
        }
    }
    if let Some(resources) = &task.resources
        && resources.swap_bytes.is_some()
        && resources.limits.as_ref().is_none_or(|l| l.memory_bytes == 0)
    {
        return refuse("memory swap provided, but no memory-limit was set".into());
    }
    Ok(())
}

/// What the manager refuses, of a spec whose templates are expanded.
pub(super) fn manager_rules(container: &ContainerSpec) -> Result<(), Refusal> {
    if container.image.is_empty() {
        return Err(Refusal::invalid("ContainerSpec: image reference must be provided"));
    }
    if !is_image_reference(&container.image) {
        let text = format!("ContainerSpec: {:?} is not a valid repository/tag", container.image);
        return Err(Refusal::invalid(text));
    }
    let mut targets = BTreeSet::new();
    if let Some(twice) = container.mounts.iter().find(|m| !targets.insert(&m.target)) {
        return Err(Refusal::invalid(format!("ContainerSpec: duplicate mount point: {}", twice.target)));
    }
    container.healthcheck.as_ref().map_or(Ok(()), health)
}

fn health(config: &HealthConfig) -> Result<(), Refusal> {
    for (name, span) in [
        ("Interval", config.interval),
        ("Timeout", config.timeout),
        ("StartPeriod", config.start_period),
        ("StartInterval", config.start_interval),
    ] {
        if span != 0 && span < MIN_HEALTH_SPAN {
            return Err(Refusal::invalid(format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms")));
        }
    }
    if config.retries < 0 {
        return Err(Refusal::invalid("ContainerSpec: Retries in HealthConfig cannot be negative"));
    }
    Ok(())
}
