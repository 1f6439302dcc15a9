//! A container's place in a network: what is asked for, what it got, and Docker's view of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use shoal_rules::{Mac, Protocol, Publication};

/// Which of the three networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The default bridge.
    Bridge,
    /// The daemon's own namespace.
    Host,
    /// A namespace with loopback only.
    None,
}

/// What a container asks for.
#[derive(Clone, Debug)]
pub struct EndpointRequest {
    /// Container id: names the namespace's mount and appears in errors and `network inspect`.
    pub container_id: String,
    /// Container name without the leading slash, for errors and `network inspect`.
    pub container_name: String,
    /// The network.
    pub mode: NetworkMode,
    /// Ports to publish; only on the bridge, ignored by Docker elsewhere and so here.
    pub ports: Vec<PortRequest>,
    /// A fixed address on the bridge.
    pub ipv4: Option<Ipv4Addr>,
    /// A fixed Ethernet address.
    pub mac: Option<Mac>,
}

/// One port to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// Protocol of both sides.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Host address; `None` is [`Config::publish_address`](crate::Config::publish_address).
    pub host_ip: Option<IpAddr>,
    /// Host ports to choose from.
    pub host_ports: HostPorts,
}

/// Host ports to choose from. Text form as in Docker's `HostPort`: empty or `0`, `8080`, `8000-8010`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPorts {
    /// Any free port of the kernel's ephemeral range.
    Ephemeral,
    /// The first free one from the first to the last, both included.
    Range(u16, u16),
}

/// One published port as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Protocol of both sides.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Host address; unspecified for every address of that family.
    pub host_ip: IpAddr,
    /// Host port.
    pub host_port: u16,
}

/// A container's place in a network. The engine keeps it (JSON) with the container while it runs and hands it back to
/// [`NodeNetwork::open`](crate::NodeNetwork::open).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits; empty for `host` and `none` never: they have one too.
    pub id: String,
    /// 64 hexadecimal digits, Docker's `SandboxID`.
    pub sandbox_id: String,
    /// The container.
    pub container_id: String,
    /// Its name.
    pub container_name: String,
    /// The network.
    pub mode: NetworkMode,
    /// File by which the namespace is entered; `None` for `host`.
    pub netns: Option<PathBuf>,
    /// Its place on the bridge; `None` for `host` and `none`.
    pub bridge: Option<BridgePlace>,
}

/// A container's addresses and ports on the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePlace {
    /// Name of the pair's end on the bridge.
    pub host_link: String,
    /// Ethernet address.
    pub mac: Mac,
    /// IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Length of the IPv6 network's prefix.
    pub prefix6: u8,
    /// The bridge's IPv6 address.
    pub gateway6: Option<Ipv6Addr>,
    /// Published ports with the host ports that were chosen.
    pub ports: Vec<PortBinding>,
}

/// An endpoint whose container still lives, for [`NodeNetwork::open`](crate::NodeNetwork::open).
#[derive(Clone, Debug)]
pub struct LiveEndpoint {
    /// What [`NodeNetwork::create_endpoint`](crate::NodeNetwork::create_endpoint) returned.
    pub endpoint: Endpoint,
    /// A process in the namespace, by which its mount is made again if it is gone (a daemon in a mount namespace of
    /// its own loses its mounts with it).
    pub pid: Option<i32>,
}

/// Docker's `NetworkSettings.Ports`: `80/tcp` to its host addresses and ports.
pub type PortMap = BTreeMap<String, Vec<HostBinding>>;

/// Docker's `PortBinding`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostBinding {
    /// Address.
    pub host_ip: String,
    /// Port.
    pub host_port: String,
}

/// Docker's `EndpointSettings`: an entry of `NetworkSettings.Networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSettings {
    /// Always null on the three networks.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<BTreeMap<String, String>>,
    /// Always null.
    #[serde(rename = "Links")]
    pub links: Option<Vec<String>>,
    /// Always null on the three networks.
    #[serde(rename = "Aliases")]
    pub aliases: Option<Vec<String>>,
    /// Ethernet address, or empty.
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
    /// Options of the driver: none.
    #[serde(rename = "DriverOpts")]
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Which of several networks gives the default route.
    #[serde(rename = "GwPriority")]
    pub gw_priority: i64,
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// The endpoint, or empty when the container does not run.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway, or empty.
    #[serde(rename = "Gateway")]
    pub gateway: String,
    /// IPv4 address, or empty.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Its prefix length, or 0.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    /// IPv6 gateway, or empty.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// IPv6 address, or empty.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Its prefix length, or 0.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    /// Names the network's DNS answers to; none on the three networks.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

impl NetworkMode {
    /// The network's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

impl FromStr for HostPorts {
    type Err = String;

    /// The error is Docker's sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |part: &str| part.parse::<u16>().map_err(|_| format!("invalid port specification: \"{text}\""));
        match text.split_once('-') {
            None if text.is_empty() => Ok(Self::Ephemeral),
            None => Ok(match port(text)? {
                0 => Self::Ephemeral,
                one => Self::Range(one, one),
            }),
            Some((first, last)) => match (port(first)?, port(last)?) {
                (first, last) if 0 < first && first <= last => Ok(Self::Range(first, last)),
                _ => Err(format!("invalid port specification: \"{text}\"")),
            },
        }
    }
}

impl Endpoint {
    /// Docker's `NetworkSettings.Ports` for what is published. The engine adds the exposed ports that are not (null).
    pub fn port_map(&self) -> PortMap {
        let mut map = PortMap::new();
        for port in self.bridge.iter().flat_map(|place| &place.ports) {
            let binding = HostBinding { host_ip: port.host_ip.to_string(), host_port: port.host_port.to_string() };
            map.entry(format!("{}/{}", port.container_port, port.protocol)).or_default().push(binding);
        }
        map
    }

    /// Docker's `EndpointSettings`; `network_id` as in [`NetworkInfo`](crate::NetworkInfo).
    pub fn settings(&self, network_id: &str) -> EndpointSettings {
        let mut settings = EndpointSettings {
            network_id: network_id.to_owned(),
            endpoint_id: self.id.clone(),
            ..EndpointSettings::default()
        };
        if let Some(place) = &self.bridge {
            settings.mac_address = place.mac.to_string();
            settings.gateway = place.gateway.to_string();
            settings.ip_address = place.ipv4.to_string();
            settings.ip_prefix_len = place.prefix.into();
            settings.ipv6_gateway = place.gateway6.map(|ip| ip.to_string()).unwrap_or_default();
            settings.global_ipv6_address = place.ipv6.map(|ip| ip.to_string()).unwrap_or_default();
            settings.global_ipv6_prefix_len = place.ipv6.map_or(0, |_| place.prefix6.into());
        }
        settings
    }
}

impl BridgePlace {
    /// Where connections to this published port go: IPv6 where both sides have it, else IPv4.
    pub(crate) fn publication(&self, port: &PortBinding) -> Publication {
        let target = match (port.host_ip, self.ipv6) {
            (IpAddr::V6(_), Some(ip)) => IpAddr::V6(ip),
            _ => IpAddr::V4(self.ipv4),
        };
        Publication {
            protocol: port.protocol,
            host: SocketAddr::new(port.host_ip, port.host_port),
            container: SocketAddr::new(target, port.container_port),
        }
    }
}
