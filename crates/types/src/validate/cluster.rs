//! Settings of the cluster, and of nodes.

use super::{Refusal, RefusalKind, unsupported};
use crate::object::Node;
use crate::spec::{ClusterSpec, NodeRole, NodeSpec};
use crate::{Nanos, View};

const MIN_CERT_EXPIRY: Nanos = 3600 * 1_000_000_000;

/// Whether a cluster may be made with `spec`. The name may be left out.
///
/// # Errors
/// The first rule that it breaks.
pub fn new_cluster(spec: &ClusterSpec) -> Result<(), Refusal> {
    if !["", "default"].contains(&&*spec.name) {
        return Err(Refusal::engine(RefusalKind::InvalidArgument, "swarm spec must be named \"default\""));
    }
    if !spec.ca_config.signing_ca_cert.is_empty() || !spec.ca_config.signing_ca_key.is_empty() {
        return Err(Refusal::unsupported("beginning a swarm with a given root certificate (change to it afterwards)"));
    }
    settings(spec)
}

/// Whether the cluster may get `spec`.
///
/// # Errors
/// The first rule that it breaks.
pub fn cluster_update(spec: &ClusterSpec) -> Result<(), Refusal> {
    settings(spec).and(match spec.name.as_str() {
        "default" => Ok(()),
        _ => Err(Refusal::invalid("modification of cluster name is not allowed")),
    })
}

fn settings(spec: &ClusterSpec) -> Result<(), Refusal> {
    if spec.ca_config.node_cert_expiry != 0 && spec.ca_config.node_cert_expiry < MIN_CERT_EXPIRY {
        return Err(Refusal::invalid("minimum certificate expiry time is: 1h0m0s"));
    }
    if spec.dispatcher.heartbeat_period < 0 {
        return Err(Refusal::invalid("heartbeat time period cannot be a negative duration"));
    }
    unsupported::cluster(spec)
}

/// Whether `node` may get `spec`.
///
/// # Errors
/// The last manager must stay one. Whether the managers that are left reach each other is for the leader to say.
pub fn node_update(view: &dyn View, node: &Node, spec: &NodeSpec) -> Result<(), Refusal> {
    let managers = view.nodes().filter(|n| n.spec.role == NodeRole::Manager).count();
    match (node.spec.role, spec.role) {
        (NodeRole::Manager, NodeRole::Worker) if managers <= 1 => {
            Err(Refusal::new(RefusalKind::FailedPrecondition, "attempting to demote the last manager of the swarm"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CaConfig, DispatcherConfig};

    #[test]
    fn a_new_cluster_is_named_default_or_not_at_all() {
        let named = |name: &str| ClusterSpec { name: name.into(), ..ClusterSpec::initial() };
        assert_eq!(new_cluster(&named("")), Ok(()));
        assert_eq!(new_cluster(&named("x")).unwrap_err().to_string(), "swarm spec must be named \"default\"");
        assert_eq!(cluster_update(&named("default")), Ok(()));
        let text = "rpc error: code = InvalidArgument desc = modification of cluster name is not allowed";
        assert_eq!(cluster_update(&named("")).unwrap_err().to_string(), text);
    }

    #[test]
    fn settings_out_of_bounds_and_those_that_shoal_lacks_are_refused() {
        let refused = |change: fn(&mut ClusterSpec)| {
            let mut spec = ClusterSpec::initial();
            change(&mut spec);
            cluster_update(&spec).unwrap_err().message
        };
        let hour = |s: &mut ClusterSpec| s.ca_config.node_cert_expiry = 3_599_999_999_999;
        assert_eq!(refused(hour), "minimum certificate expiry time is: 1h0m0s");
        let beat = |s: &mut ClusterSpec| s.dispatcher = DispatcherConfig { heartbeat_period: -1 };
        assert_eq!(refused(beat), "heartbeat time period cannot be a negative duration");
        let external = |s: &mut ClusterSpec| {
            s.ca_config = CaConfig { external_cas: vec!["https://ca".into()], ..CaConfig::default() };
        };
        assert_eq!(refused(external), "an external certificate authority is not supported by Shoal yet");
    }
}
