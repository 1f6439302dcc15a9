//! `docker network`, as far as the node's own three networks go.

use std::collections::HashMap;

use bollard_stubs::models::{ConfigReference, EndpointResource, Ipam, IpamConfig, NetworkInspect};
use shoal_network::{NetworkInfo, NetworkMode};

use crate::container::filter::matches_label;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Filters;
use crate::volumes::api::{check_filters, flag};

const MODES: [NetworkMode; 3] = [NetworkMode::Bridge, NetworkMode::Host, NetworkMode::None];

impl Engine {
    /// The node's networks, without who is attached. Filters: dangling, driver, id, label, name, scope, type.
    pub fn list_networks(&self, filters: &Filters) -> Result<Vec<NetworkInspect>> {
        check_filters(filters, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = flag(filters, "dangling")?;
        let passes = |network: &NetworkInfo| {
            let any =
                |name: &str, test: &dyn Fn(&str) -> bool| filters.get(name).is_none_or(|v| v.iter().any(|v| test(v)));
            any("id", &|v| network.id.starts_with(v))
                && any("name", &|v| network.name.contains(v))
                && any("driver", &|v| network.driver == v)
                && any("scope", &|v| network.scope == v)
                && any("type", &|v| v == "builtin")
                && filters.get("label").is_none_or(|v| v.iter().all(|v| matches_label(Some(&network.labels), v)))
                // the three are never dangling
                && dangling != Some(true)
        };
        let listed = self.network.networks().into_iter().filter(passes);
        Ok(listed.map(|network| NetworkInspect { containers: None, ..body(network) }).collect())
    }

    /// One network by name, id or beginning of an id, with who is attached.
    pub fn inspect_network(&self, name: &str) -> Result<NetworkInspect> {
        let mode = self.network_mode_of(name)?;
        let found = self.network.networks().into_iter().find(|network| network.name == mode.name());
        found.map(body).ok_or_else(|| Error::NoSuchNetwork(name.to_owned()))
    }

    /// The network that a name or id means.
    pub(crate) fn network_mode_of(&self, name: &str) -> Result<NetworkMode> {
        let by_name = MODES.into_iter().find(|mode| mode.name() == name);
        by_name.or_else(|| self.network_by_id(name)).ok_or_else(|| Error::NoSuchNetwork(name.to_owned()))
    }

    /// The network that an id or the beginning of one means.
    pub(crate) fn network_by_id(&self, id: &str) -> Option<NetworkMode> {
        let mut fitting = MODES.into_iter().filter(|mode| !id.is_empty() && self.network.id(*mode).starts_with(id));
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

fn body(network: NetworkInfo) -> NetworkInspect {
    let containers = network.containers.into_iter().map(|(id, attached)| {
        let resource = EndpointResource {
            name: Some(attached.name),
            endpoint_id: Some(attached.endpoint_id),
            mac_address: Some(attached.mac_address),
            ipv4_address: Some(attached.ipv4_address),
            ipv6_address: Some(attached.ipv6_address),
        };
        (id, resource)
    });
    let pools = network.ipam.config.map(|pools| {
        let pools = pools.into_iter();
        let pools =
            pools.map(|p| IpamConfig { subnet: Some(p.subnet), gateway: Some(p.gateway), ..IpamConfig::default() });
        pools.collect()
    });
    NetworkInspect {
        name: Some(network.name),
        id: Some(network.id),
        created: Some(network.created.to_string()),
        scope: Some(network.scope),
        driver: Some(network.driver),
        enable_ipv4: Some(network.enable_ipv4),
        enable_ipv6: Some(network.enable_ipv6),
        ipam: Some(Ipam {
            driver: Some(network.ipam.driver),
            config: pools,
            options: network.ipam.options.map(HashMap::from_iter),
        }),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        ingress: Some(network.ingress),
        config_from: Some(ConfigReference { network: Some(network.config_from.network) }),
        config_only: Some(network.config_only),
        options: Some(network.options.into_iter().collect()),
        labels: Some(network.labels.into_iter().collect()),
        containers: Some(containers.collect()),
        ..NetworkInspect::default()
    }
}
