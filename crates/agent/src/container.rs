//! A task's container as the engine is asked for it (swarm-semantics 2.5): pure.

use std::collections::HashMap;

use bollard_stubs::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigIsolationEnum, HostConfigLogConfig, Mount, PortBinding,
    PortMap, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_types::spec::{ContainerSpec, Labels, LogDriver, MountType, PublishMode, ResourceRequirements, TaskSpec};
use shoal_types::{NodeId, Task, generic, name};

/// Why a task has no valid container. Docker's texts: they become the task's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// A path in the container that is not absolute.
    #[error("invalid mount target, must be an absolute path: {0}")]
    MountTarget(String),
    /// A path of the node that is not absolute.
    #[error("invalid bind mount source, must be an absolute path: {0}")]
    BindSource(String),
    /// A path where the name of a volume should be.
    #[error("invalid volume mount source, must not be an absolute path: {0}")]
    VolumeSource(String),
    /// A source where there is nothing to take it from.
    #[error("invalid tmpfs source, source must be empty")]
    TmpfsSource,
    /// What the engine does not have; named.
    #[error("{0} is not supported by Shoal yet")]
    Unsupported(&'static str),
    /// A part that the engine's body cannot say.
    #[error("cannot carry {what} over to the engine: {reason}")]
    Form {
        /// The part.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// The container for `task` on `node`, whose container spec `spec` has its templates expanded.
///
/// # Errors
/// Mounts that break Docker's rules, and what the engine does not have.
pub fn plan_container(task: &Task, spec: &ContainerSpec, node: NodeId) -> Result<ContainerCreateBody, ContainerError> {
    check_mounts(spec)?;
    Ok(ContainerCreateBody {
        image: Some(familiar(&spec.image)),
        hostname: text(&spec.hostname),
        user: text(&spec.user),
        env: list(&environment(task, spec)),
        entrypoint: list(&spec.command),
        cmd: list(&spec.args),
        working_dir: text(&spec.dir),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        stop_signal: text(&spec.stop_signal),
        stop_timeout: spec.stop_grace_period.map(|grace| grace / 1_000_000_000),
        labels: Some(labels(task, spec, node)),
        healthcheck: spec.healthcheck.as_ref().map(|h| carry::<_, HealthConfig>("the health check", h)).transpose()?,
        exposed_ports: list(&host_ports(task).map(|p| format!("{}/{}", p.0, p.1)).collect::<Vec<_>>()),
        host_config: Some(host_config(task, spec)?),
        ..ContainerCreateBody::default()
    })
}

/// That of the spec, and what the task was given of its node's generic resources.
fn environment(task: &Task, spec: &ContainerSpec) -> Vec<String> {
    let given = generic::environment("DOCKER_RESOURCE", &task.assigned_generic);
    spec.env.iter().cloned().chain(given).collect()
}

fn host_config(task: &Task, spec: &ContainerSpec) -> Result<HostConfig, ContainerError> {
    let dns = spec.dns_config.clone().unwrap_or_default();
    let mut config = HostConfig {
        network_mode: Some(network_mode(&task.spec)?),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        mounts: list(&spec.mounts.iter().map(|m| carry::<_, Mount>("a mount", m)).collect::<Result<Vec<_>, _>>()?),
        init: spec.init,
        readonly_rootfs: Some(spec.read_only),
        cap_add: list(&spec.capability_add),
        cap_drop: list(&spec.capability_drop),
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        group_add: list(&spec.groups),
        oom_score_adj: Some(spec.oom_score_adj),
        dns: list(&dns.nameservers),
        dns_search: list(&dns.search),
        dns_options: list(&dns.options),
        extra_hosts: list(&spec.hosts.iter().filter_map(|line| extra_host(line)).collect::<Vec<_>>()),
        ulimits: list(
            &spec.ulimits.iter().map(|u| carry::<_, ResourcesUlimits>("a ulimit", u)).collect::<Result<Vec<_>, _>>()?,
        ),
        isolation: text(&spec.isolation).map(|_| HostConfigIsolationEnum::DEFAULT),
        security_opt: security_options(spec)?,
        port_bindings: Some(port_bindings(task)),
        log_config: task.spec.log_driver.as_ref().map(log_config),
        ..HostConfig::default()
    };
    limit(&mut config, task.spec.resources.as_ref());
    Ok(config)
}

/// Only limits reach the container; reservations are the scheduler's.
fn limit(config: &mut HostConfig, resources: Option<&ResourceRequirements>) {
    let Some(resources) = resources else { return };
    if let Some(limits) = &resources.limits {
        config.nano_cpus = Some(limits.nano_cpus);
        config.memory = Some(limits.memory_bytes);
        config.pids_limit = (limits.pids > 0).then_some(limits.pids);
    }
    config.memory_swappiness = resources.memory_swappiness;
    config.memory_swap = match resources.swap_bytes {
        Some(-1) => Some(-1),
        Some(swap) => Some(config.memory.unwrap_or_default().saturating_add(swap)),
        None => None,
    };
}

/// Services without a network run on the default bridge; `host` and `none` are the node's own.
fn network_mode(spec: &TaskSpec) -> Result<String, ContainerError> {
    match &spec.networks[..] {
        [] => Ok("bridge".into()),
        [one] if matches!(one.target.as_str(), "bridge" | "host" | "none") => Ok(one.target.clone()),
        _ => Err(ContainerError::Unsupported("a service network other than bridge, host and none")),
    }
}

fn security_options(spec: &ContainerSpec) -> Result<Option<Vec<String>>, ContainerError> {
    let Some(serde_json::Value::Object(given)) = &spec.privileges else { return Ok(None) };
    let mut options = Vec::new();
    for (name, value) in given {
        match (name.as_str(), value) {
            (_, serde_json::Value::Null | serde_json::Value::Bool(false)) => {}
            ("NoNewPrivileges", serde_json::Value::Bool(true)) => options.push("no-new-privileges".into()),
            _ => return Err(ContainerError::Unsupported("a service privilege other than no-new-privileges")),
        }
    }
    Ok(Some(options))
}

fn check_mounts(spec: &ContainerSpec) -> Result<(), ContainerError> {
    for mount in &spec.mounts {
        if !mount.target.starts_with('/') {
            return Err(ContainerError::MountTarget(mount.target.clone()));
        }
        let absolute = mount.source.starts_with('/');
        match mount.r#type {
            MountType::Bind if !absolute => return Err(ContainerError::BindSource(mount.source.clone())),
            MountType::Volume if absolute => return Err(ContainerError::VolumeSource(mount.source.clone())),
            MountType::Tmpfs if !mount.source.is_empty() => return Err(ContainerError::TmpfsSource),
            MountType::Npipe | MountType::Cluster => return Err(ContainerError::Unsupported("this type of mount")),
            _ => {}
        }
    }
    Ok(())
}

/// The six system labels win over those of the spec. Service labels are not put on containers.
fn labels(task: &Task, spec: &ContainerSpec, node: NodeId) -> HashMap<String, String> {
    let mut labels: Labels = spec.labels.clone();
    for (key, value) in [("", String::new()), (".id", task.id.to_string()), (".name", name::task_name(task))] {
        labels.insert(format!("com.docker.swarm.task{key}"), value);
    }
    labels.insert("com.docker.swarm.node.id".into(), node.to_string());
    labels.insert("com.docker.swarm.service.id".into(), task.service_id.to_string());
    labels.insert("com.docker.swarm.service.name".into(), task.annotations.name.clone());
    labels.into_iter().collect()
}

/// (target, protocol, published; 0: any) of each port published on the task's own node.
fn host_ports(task: &Task) -> impl Iterator<Item = (u32, &str, u32)> {
    let ports = task.endpoint.iter().flat_map(|e| &e.ports).filter(|p| p.publish_mode == PublishMode::Host);
    ports.map(|p| (p.target_port, if p.protocol.is_empty() { "tcp" } else { &p.protocol }, p.published_port))
}

fn port_bindings(task: &Task) -> PortMap {
    let mut bindings = PortMap::new();
    for (target, protocol, published) in host_ports(task) {
        let host_port = if published == 0 { String::new() } else { published.to_string() };
        let binding = PortBinding { host_ip: None, host_port: Some(host_port) };
        bindings.entry(format!("{target}/{protocol}")).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn log_config(driver: &LogDriver) -> HostConfigLogConfig {
    HostConfigLogConfig { typ: text(&driver.name), config: Some(driver.options.clone().into_iter().collect()) }
}

/// `IP host [alias…]` → `host:IP`; as in Swarm, only the first name counts.
fn extra_host(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (ip, host) = (words.next()?, words.next()?);
    Some(format!("{host}:{ip}"))
}

/// `name` → `name:latest`; what has a tag or a digest stays. A tag's colon comes after the last slash.
fn familiar(image: &str) -> String {
    let short = image.strip_prefix("docker.io/library/").or_else(|| image.strip_prefix("docker.io/")).unwrap_or(image);
    let last = short.rsplit('/').next().unwrap_or(short);
    if last.contains(':') || short.contains('@') { short.to_owned() } else { format!("{short}:latest") }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn list<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    (!values.is_empty()).then(|| values.to_vec())
}

/// Both sides have Docker's field names, so the JSON of one is the JSON of the other.
fn carry<A: Serialize, B: DeserializeOwned>(what: &'static str, value: &A) -> Result<B, ContainerError> {
    serde_json::to_value(value)
        .and_then(serde_json::from_value)
        .map_err(|e| ContainerError::Form { what, reason: e.to_string() })
}
