//! Exposed and published ports. Pure.

use std::collections::BTreeSet;

use bollard_stubs::models::{ContainerConfig, HostConfig, PortMap};
use shoal_network::{HostPorts, PortRequest, Protocol};

use crate::error::{Error, Result};

/// A container's port: `80/tcp`, `80` (tcp).
///
/// # Errors
/// 400 with Docker's text.
pub fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let invalid = || Error::invalid(format!("invalid port specification: \"{text}\""));
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = port.parse().map_err(|_| invalid())?;
    let protocol = protocol.to_ascii_lowercase().parse().map_err(|_| invalid())?;
    Ok((number, protocol))
}

/// Checks the ports of a request.
pub fn check(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    for port in config.exposed_ports.iter().flatten() {
        parse_port(port)?;
    }
    requests(config, host).map(drop)
}

/// What to publish: each binding, and with `-P` each exposed port that has none.
pub fn requests(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<PortRequest>> {
    let none = PortMap::new();
    let bindings = host.port_bindings.as_ref().unwrap_or(&none);
    let mut keys: Vec<_> = bindings.keys().collect();
    keys.sort();
    let mut requests = Vec::new();
    let mut bound = BTreeSet::new();
    for key in keys {
        let (container_port, protocol) = parse_port(key)?;
        let listed = bindings[key].as_deref().unwrap_or_default();
        for binding in listed {
            let ip = binding.host_ip.as_deref().unwrap_or_default();
            let host_ip = match ip {
                "" => None,
                text => Some(text.parse().map_err(|_| Error::invalid(format!("invalid host IP address: {text}")))?),
            };
            let host_ports: HostPorts =
                binding.host_port.as_deref().unwrap_or_default().parse().map_err(Error::InvalidParameter)?;
            requests.push(PortRequest { protocol, container_port, host_ip, host_ports });
            bound.insert((container_port, protocol));
        }
    }
    if host.publish_all_ports.unwrap_or_default() {
        for port in config.exposed_ports.iter().flatten() {
            let (container_port, protocol) = parse_port(port)?;
            if bound.insert((container_port, protocol)) {
                requests.push(PortRequest {
                    protocol,
                    container_port,
                    host_ip: None,
                    host_ports: HostPorts::Ephemeral,
                });
            }
        }
    }
    Ok(requests)
}

/// The exposed ports with those that are published, as `80/tcp` keys.
pub fn expose_bound(config: &mut ContainerConfig, host: &HostConfig) {
    let Some(bindings) = host.port_bindings.as_ref().filter(|b| !b.is_empty()) else { return };
    let exposed = config.exposed_ports.get_or_insert_default();
    for key in bindings.keys() {
        let key = if key.contains('/') { key.clone() } else { format!("{key}/tcp") };
        if !exposed.contains(&key) {
            exposed.push(key);
        }
    }
    exposed.sort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::PortBinding;

    fn host(key: &str, ip: &str, port: &str) -> HostConfig {
        let binding = PortBinding { host_ip: Some(ip.to_owned()), host_port: Some(port.to_owned()) };
        HostConfig {
            port_bindings: Some(PortMap::from([(key.to_owned(), Some(vec![binding]))])),
            ..HostConfig::default()
        }
    }

    #[test]
    fn bindings_become_requests_and_all_exposed_ports_get_one_with_publish_all() {
        let config =
            ContainerConfig { exposed_ports: Some(vec!["80/tcp".into(), "53/udp".into()]), ..Default::default() };
        let host = HostConfig { publish_all_ports: Some(true), ..host("80/tcp", "127.0.0.1", "8080-8090") };
        let requests = requests(&config, &host).unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!((requests[0].container_port, requests[0].host_ports), (80, HostPorts::Range(8080, 8090)));
        assert_eq!((requests[1].container_port, requests[1].host_ports), (53, HostPorts::Ephemeral));
    }

    #[test]
    fn malformed_ports_are_refused() {
        for (key, ip, port) in [("x/tcp", "", ""), ("80/foo", "", ""), ("80/tcp", "1.2.3", ""), ("80/tcp", "", "9-1")] {
            assert!(check(&ContainerConfig::default(), &host(key, ip, port)).is_err(), "{key} {ip} {port}");
        }
    }
}
