//! Which network a container is to be in, from the two places of a request that say so.

use std::sync::Arc;

use bollard_stubs::models::{EndpointSettings, HostConfig, NetworkingConfig};
use shoal_network::{Mac, NetworkMode};

use super::Container;
use super::spec::NetworkSpec;
use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// Reads `NetworkMode` and `EndpointsConfig`; makes the mode the name that `inspect` shows.
    pub(super) fn network_spec(&self, host: &mut HostConfig, networking: &NetworkingConfig) -> Result<NetworkSpec> {
        let asked = host.network_mode.clone().unwrap_or_default();
        if let Some(target) = asked.strip_prefix("container:") {
            let target = self.donor(target)?;
            host.network_mode = Some(format!("container:{}", target.id));
            return Ok(NetworkSpec::Container(target.id.clone()));
        }
        let mode = match asked.as_str() {
            "" | "default" => NetworkMode::Bridge,
            name => self.network_named(name)?,
        };
        let mut mac = None;
        for (name, settings) in networking.endpoints_config.iter().flatten() {
            let same = match name.as_str() {
                "default" => mode == NetworkMode::Bridge,
                name => self.network_named(name)? == mode,
            };
            if !same {
                return Err(Error::unsupported("more than one network of a container"));
            }
            mac = check_endpoint(settings, mode)?.or(mac);
        }
        host.network_mode = Some(mode.name().to_owned());
        Ok(NetworkSpec::Own { mode, mac })
    }

    /// A network that a new container names. Not 404 where there is none: from a creation, clients take that for a missing
    /// image and pull it.
    fn network_named(&self, name: &str) -> Result<NetworkMode> {
        self.network_mode_of(name).map_err(|error| Error::InvalidParameter(error.to_string()))
    }

    /// A container that a new one names, for its namespaces or volumes. Not 404, for the same reason.
    pub(super) fn donor(&self, name: &str) -> Result<Arc<Container>> {
        self.containers.find(name).map_err(|error| Error::InvalidParameter(error.to_string()))
    }
}

/// Refuses what the node's own networks do not have; returns the Ethernet address that is asked for.
fn check_endpoint(settings: &EndpointSettings, mode: NetworkMode) -> Result<Option<String>> {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if some(&settings.aliases) {
        return Err(Error::invalid("network-scoped aliases are only supported for user-defined networks"));
    }
    if some(&settings.links) {
        return Err(Error::unsupported("links between containers (--link)"));
    }
    if settings.driver_opts.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(Error::unsupported("driver options of a network endpoint"));
    }
    let fixed = settings.ipam_config.as_ref().is_some_and(|ipam| {
        let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        set(&ipam.ipv4_address) || set(&ipam.ipv6_address) || some(&ipam.link_local_ips)
    });
    if fixed {
        return Err(Error::invalid("user specified IP address is supported on user defined networks only"));
    }
    let Some(mac) = settings.mac_address.clone().filter(|text| !text.is_empty()) else { return Ok(None) };
    mac.parse::<Mac>().map_err(|_| Error::invalid(format!("invalid MAC address: {mac}")))?;
    if mode != NetworkMode::Bridge {
        return Err(Error::invalid("conflicting options: mac-address and the network mode"));
    }
    Ok(Some(mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::EndpointIpamConfig;

    #[test]
    fn what_the_three_networks_do_not_have_is_refused() {
        let refused =
            |settings: EndpointSettings| check_endpoint(&settings, NetworkMode::Bridge).unwrap_err().to_string();
        let ipam = EndpointIpamConfig { ipv4_address: Some("1.2.3.4".into()), ..Default::default() };
        assert!(
            refused(EndpointSettings { aliases: Some(vec!["a".into()]), ..Default::default() }).contains("aliases")
        );
        assert!(refused(EndpointSettings { ipam_config: Some(ipam), ..Default::default() }).contains("IP address"));
        assert!(refused(EndpointSettings { mac_address: Some("xx".into()), ..Default::default() }).contains("MAC"));
        let mac = EndpointSettings { mac_address: Some("02:42:ac:11:00:09".into()), ..Default::default() };
        assert!(check_endpoint(&mac, NetworkMode::Bridge).unwrap().is_some());
        assert!(check_endpoint(&mac, NetworkMode::Host).is_err());
    }
}
