//! What Docker has and Shoal does not have yet: refused by name, so that nothing is accepted and then ignored.

use serde_json::Value;

use super::Refusal;
use crate::spec::{ClusterSpec, ContainerSpec, MountType, NetworkAttachment, PublishMode, ServiceSpec, TaskSpec};

/// The first thing in `spec` that Shoal does not have.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), Refusal> {
    let ports = spec.endpoint_spec.iter().flat_map(|e| &e.ports);
    first(&[
        ("the deprecated list of networks outside of the task template", !spec.networks.is_empty()),
        (
            "publishing a service's port in ingress mode (rather than mode=host)",
            ports.map(|p| p.publish_mode).any(|m| m == PublishMode::Ingress),
        ),
    ])?;
    task(&spec.task_template)?;
    spec.task_template.container_spec.as_ref().map_or(Ok(()), container)
}

fn task(task: &TaskSpec) -> Result<(), Refusal> {
    networks(&task.networks)?;
    for preference in task.placement.iter().flat_map(|p| &p.preferences) {
        let over = preference.spread.as_ref().map_or("", |s| &s.spread_descriptor);
        let label = |prefix: &str| over.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix));
        if !label("node.labels.") && !label("engine.labels.") {
            return Err(Refusal::unsupported(format!("the placement preference \"spread={over}\"")));
        }
    }
    Ok(())
}

/// One of the networks that each node has by itself.
fn networks(networks: &[NetworkAttachment]) -> Result<(), Refusal> {
    for network in networks {
        if !["bridge", "host", "none"].contains(&&*network.target) {
            return Err(Refusal::unsupported(format!("attaching a service to the network {:?}", network.target)));
        }
    }
    first(&[
        ("attaching a service to more than one network", networks.len() > 1),
        ("giving driver options to a service's network", networks.iter().any(|n| !n.driver_opts.is_empty())),
    ])
}

fn container(spec: &ContainerSpec) -> Result<(), Refusal> {
    let mount = |kind| spec.mounts.iter().any(|m| m.r#type == kind);
    first(&[
        ("a config with a runtime target", spec.configs.iter().any(|c| c.runtime.is_some())),
        ("a cluster volume", mount(MountType::Cluster)),
        ("a named pipe mount", mount(MountType::Npipe)),
    ])?;
    if !["", "default"].contains(&&*spec.isolation) {
        return Err(Refusal::unsupported(format!("the isolation {:?}", spec.isolation)));
    }
    let Some(Value::Object(privileges)) = &spec.privileges else { return Ok(()) };
    let given = |(name, value): &(&String, &Value)| *name != "NoNewPrivileges" && !value.is_null();
    match privileges.iter().find(given) {
        Some((name, _)) => Err(Refusal::unsupported(format!("the service privilege {name}"))),
        None => Ok(()),
    }
}

/// The first thing in `spec` that Shoal does not have.
pub(super) fn cluster(spec: &ClusterSpec) -> Result<(), Refusal> {
    let ca = &spec.ca_config;
    first(&[
        ("an external certificate authority", !ca.external_cas.is_empty()),
        ("a default log driver for the cluster", spec.task_defaults.log_driver.is_some()),
    ])
}

fn first(things: &[(&str, bool)]) -> Result<(), Refusal> {
    things.iter().find(|(_, given)| *given).map_or(Ok(()), |(what, _)| Err(Refusal::unsupported(what)))
}
