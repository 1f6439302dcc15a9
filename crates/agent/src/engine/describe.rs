//! What this node tells the managers about itself.

use bollard_stubs::models::GenericResourcesInner;
use shoal_engine::Engine;
use shoal_types::GenericResource;
use shoal_types::object::{EngineDescription, NodeDescription, Platform, PluginDescription, TlsInfo};
use shoal_types::spec::{Labels, Resources};

/// What every engine of ours brings, sorted as Docker sorts it.
const PLUGINS: [(&str, &str); 6] = [
    ("Log", "json-file"),
    ("Log", "none"),
    ("Network", "bridge"),
    ("Network", "host"),
    ("Network", "null"),
    ("Volume", "local"),
];

/// None of it but the authority changes while the daemon runs.
pub(super) fn describe(engine: &Engine, tls: TlsInfo) -> NodeDescription {
    let info = engine.info();
    NodeDescription {
        hostname: info.name.unwrap_or_default(),
        platform: Platform {
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_else(|| "linux".into()),
        },
        resources: Resources {
            nano_cpus: info.ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
            memory_bytes: info.mem_total.unwrap_or_default(),
            generic_resources: info.generic_resources.unwrap_or_default().into_iter().filter_map(generic).collect(),
        },
        engine: EngineDescription {
            engine_version: info.server_version.unwrap_or_default(),
            labels: labels(&info.labels.unwrap_or_default()),
            plugins: PLUGINS.map(|(r#type, name)| plugin(r#type, name)).into(),
        },
        tls_info: tls,
    }
}

fn generic(has: GenericResourcesInner) -> Option<GenericResource> {
    let named = has.named_resource_spec.map(|n| (n.kind.unwrap_or_default(), n.value.unwrap_or_default()));
    let discrete = has.discrete_resource_spec.map(|d| (d.kind.unwrap_or_default(), d.value.unwrap_or_default()));
    (named.map(|(kind, value)| GenericResource::Named { kind, value }))
        .or_else(|| discrete.map(|(kind, value)| GenericResource::Discrete { kind, value }))
}

fn plugin(r#type: &str, name: &str) -> PluginDescription {
    PluginDescription { r#type: r#type.into(), name: name.into() }
}

/// `KEY=VALUE`; the last of equal keys counts.
fn labels(given: &[String]) -> Labels {
    given.iter().map(|l| l.split_once('=').unwrap_or((l, ""))).map(|(k, v)| (k.into(), v.into())).collect()
}
