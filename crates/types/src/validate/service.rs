//! Service specs: Docker's rules in Docker's order and words (swarm-semantics 1.3, 5.1, 6.4, 10.3, 13.4).

use std::collections::BTreeSet;

use super::container;
use super::payload;
use super::unsupported;
use super::{Refusal, RefusalKind};
use crate::spec::{
    EndpointSpec, PublishMode, ResolutionMode, Resources, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec,
    UpdateConfig,
};
use crate::{GenericResource, constraint, template};

const MIN_NANO_CPUS: i64 = 1_000_000;
const MIN_MEMORY: i64 = 4 << 20;

/// Whether a service may be made from `spec`, its name and references to other objects aside.
///
/// # Errors
/// The first rule that it breaks; what Shoal does not have comes after everything that Docker would refuse.
pub fn service(spec: &ServiceSpec) -> Result<(), Refusal> {
    runtime(&spec.task_template)?;
    container::engine_rules(&spec.task_template)?;
    if spec.mode.given() > 1 {
        return Err(Refusal::engine(RefusalKind::InvalidArgument, "must specify only one service mode"));
    }
    name(&spec.name)?;
    task(spec)?;
    mode(spec)?;
    spec.update_config.as_ref().map_or(Ok(()), update)?;
    spec.endpoint_spec.as_ref().map_or(Ok(()), endpoint)?;
    unsupported::service(spec)
}

/// Whether a service with the spec `before` may get the spec `after`.
///
/// # Errors
/// What [`service`] refuses, and what cannot change.
pub fn service_update(before: &ServiceSpec, after: &ServiceSpec) -> Result<(), Refusal> {
    service(after)?;
    if before.mode.name() != after.mode.name() {
        return Err(Refusal::new(RefusalKind::Unimplemented, "service mode change is not allowed"));
    }
    if before.name != after.name {
        return Err(Refusal::new(RefusalKind::Unimplemented, "renaming services is not supported"));
    }
    Ok(())
}

/// `spec` as it is stored and reads back: what was left to defaults is written out (swarm-semantics 19).
pub fn normal_service(mut spec: ServiceSpec) -> ServiceSpec {
    spec.mode = spec.mode.filled();
    if spec.task_template.runtime.is_empty() {
        spec.task_template.runtime = "container".into();
    }
    if let Some(container) = &mut spec.task_template.container_spec
        && container.isolation.is_empty()
    {
        container.isolation = "default".into();
    }
    for port in spec.endpoint_spec.iter_mut().flat_map(|e| &mut e.ports) {
        let protocol = port.protocol.to_ascii_lowercase();
        port.protocol = if ["udp", "sctp"].contains(&&*protocol) { protocol } else { "tcp".into() };
    }
    spec
}

/// A name of a service.
///
/// # Errors
/// Names that no DNS name component can be.
pub fn name(name: &str) -> Result<(), Refusal> {
    let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if name.is_empty() {
        Err(Refusal::invalid("meta: name must be provided"))
    } else if !inner || name.starts_with(['-', '_']) || name.ends_with(['-', '_']) {
        Err(Refusal::invalid("name must be valid as a DNS name component"))
    } else if name.len() > 63 {
        Err(Refusal::invalid("name must be 63 characters or fewer"))
    } else {
        Ok(())
    }
}

/// What a task runs must be given once, and must be what `Runtime` says.
fn runtime(task: &TaskSpec) -> Result<(), Refusal> {
    let engine = |text: &str| Err(Refusal::engine(RefusalKind::InvalidArgument, text));
    match task.runtime.as_str() {
        "plugin" => Err(Refusal::unsupported("the runtime type \"plugin\"")),
        "" | "container" if task.network_attachment_spec.is_some() => engine("unsupported runtime"),
        "" | "container" if task.container_spec.is_some() && task.plugin_spec.is_none() => Ok(()),
        "" | "container" => engine("mismatched Runtime and *Spec fields"),
        _ => engine("unsupported runtime"),
    }
}

fn task(spec: &ServiceSpec) -> Result<(), Refusal> {
    let task = &spec.task_template;
    if let Some(required) = &task.resources {
        let limits = required.limits.as_ref().map(|l| (l.nano_cpus, l.memory_bytes));
        let reserved =
            required.reservations.as_ref().map(|Resources { nano_cpus, memory_bytes, .. }| (*nano_cpus, *memory_bytes));
        limits.into_iter().chain(reserved).try_for_each(|(cpus, memory)| amounts(cpus, memory))?;
        required.reservations.iter().flat_map(|r| &r.generic_resources).try_for_each(generic)?;
    }
    task.restart_policy.as_ref().map_or(Ok(()), restart)?;
    if let Some(placement) = &task.placement {
        // Docker gives these no class, so they arrive as 500
        constraint::parse(&placement.constraints).map_err(|e| Refusal::new(RefusalKind::Unknown, e.to_string()))?;
    }
    let Some(given) = &task.container_spec else { return Err(Refusal::invalid("TaskSpec: missing runtime")) };
    payload::references(given)?;
    let expanded = template::expand(given, &template::Context::sample(spec));
    container::manager_rules(&expanded.map_err(|e| Refusal::invalid(e.to_string()))?)
}

fn amounts(nano_cpus: i64, memory: i64) -> Result<(), Refusal> {
    if nano_cpus != 0 && nano_cpus < MIN_NANO_CPUS {
        let given = short(nano_cpus as f64 / 1e9);
        return Err(Refusal::invalid(format!("invalid cpu value {given}: Must be at least 0.001")));
    }
    if memory != 0 && memory < MIN_MEMORY {
        return Err(Refusal::invalid(format!("invalid memory value {memory}: Must be at least 4MiB")));
    }
    Ok(())
}

fn generic(wanted: &GenericResource) -> Result<(), Refusal> {
    match wanted {
        _ if wanted.kind().is_empty() => Err(Refusal::invalid("a generic resource must have a kind")),
        GenericResource::Discrete { kind, value } if *value < 0 => {
            Err(Refusal::invalid(format!("cannot ask for negative resource {kind}")))
        }
        _ => Ok(()),
    }
}

/// A number as Go's `%g` prints it.
fn short(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(e) if (-4..6).contains(&e) => format!("{number}"),
        Ok(e) => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
        Err(_) => scientific,
    }
}

fn restart(policy: &RestartPolicy) -> Result<(), Refusal> {
    not_negative("restart-delay", policy.delay)?;
    not_negative("restart-window", policy.window)
}

fn update(config: &UpdateConfig) -> Result<(), Refusal> {
    not_negative("update-delay", Some(config.delay))?;
    not_negative("update-monitor", config.monitor)?;
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(Refusal::invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"));
    }
    Ok(())
}

fn not_negative(what: &str, span: Option<crate::Nanos>) -> Result<(), Refusal> {
    match span {
        Some(span) if span < 0 => Err(Refusal::invalid(format!("TaskSpec: {what} cannot be negative"))),
        _ => Ok(()),
    }
}

fn mode(spec: &ServiceSpec) -> Result<(), Refusal> {
    let negative = |n: Option<i64>| n.is_some_and(|n| n < 0);
    let ServiceMode { replicated, replicated_job, global_job, .. } = &spec.mode;
    if replicated.as_ref().is_some_and(|r| negative(r.replicas)) {
        return Err(Refusal::invalid("Number of replicas must be non-negative"));
    }
    if let Some(job) = replicated_job {
        if negative(job.max_concurrent) {
            return Err(Refusal::invalid("Maximum concurrent jobs must not be negative"));
        }
        if negative(job.total_completions) {
            return Err(Refusal::invalid("Total completed jobs must not be negative"));
        }
    }
    if (replicated_job.is_some() || global_job.is_some()) && spec.update_config.is_some() {
        return Err(Refusal::invalid("Jobs may not have an update config"));
    }
    Ok(())
}

fn endpoint(endpoint: &EndpointSpec) -> Result<(), Refusal> {
    let mut taken = BTreeSet::new();
    for port in &endpoint.ports {
        if endpoint.mode == ResolutionMode::Dnsrr && port.publish_mode == PublishMode::Ingress {
            return Err(Refusal::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.published_port != 0 && !taken.insert((&port.protocol, port.published_port)) {
            return Err(Refusal::invalid("EndpointSpec: duplicate published ports provided"));
        }
        for (what, number, least) in [("target", port.target_port, 1), ("published", port.published_port, 0)] {
            if !(least..=65535).contains(&number) {
                return Err(Refusal::invalid(format!("EndpointSpec: {what} port {number} is not between 1 and 65535")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
