//! Docker's view of the three networks, for `network ls` and `network inspect`.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::IpNet;
use serde::Serialize;
use shoal_rules::BridgeSpec;

use crate::{
    config::Config,
    endpoint::{Endpoint, NetworkMode},
    record::Record,
};

/// Docker's network object; its JSON is the answer's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInfo {
    /// `bridge`, `host` or `none`.
    pub name: String,
    /// 64 hexadecimal digits, the same for the life of the data root.
    pub id: String,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Containers get IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Containers get IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Addresses.
    #[serde(rename = "IPAM")]
    pub ipam: IpamSettings,
    /// Without a way out.
    pub internal: bool,
    /// Of the cluster and open to plain containers.
    pub attachable: bool,
    /// The routing mesh.
    pub ingress: bool,
    /// The network whose configuration this one takes.
    pub config_from: ConfigFrom,
    /// Only a configuration for others.
    pub config_only: bool,
    /// Attached containers by id.
    pub containers: BTreeMap<String, AttachedContainer>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Docker's `IPAM`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamSettings {
    /// `default`.
    pub driver: String,
    /// Null.
    pub options: Option<BTreeMap<String, String>>,
    /// Subnets; null for `host` and `none`.
    pub config: Option<Vec<IpamPool>>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamPool {
    /// `172.17.0.0/16`.
    pub subnet: String,
    /// `172.17.0.1`.
    pub gateway: String,
}

/// Docker's `ConfigFrom`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// Empty.
    pub network: String,
}

/// A container in `network inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttachedContainer {
    /// Name without a slash.
    #[serde(rename = "Name")]
    pub name: String,
    /// Endpoint id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Ethernet address, or empty.
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
    /// `172.17.0.2/16`, or empty.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// With its prefix length, or empty.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

impl NetworkInfo {
    /// One of the three, with those of the endpoints that are on it.
    pub(crate) fn of(
        mode: NetworkMode,
        config: &Config,
        record: &Record,
        bridge: &BridgeSpec,
        endpoints: &[&Endpoint],
    ) -> Self {
        let is_bridge = mode == NetworkMode::Bridge;
        let pool = |net: IpNet| IpamPool { subnet: net.trunc().to_string(), gateway: net.addr().to_string() };
        let pools = [Some(IpNet::V4(bridge.ipv4)), bridge.ipv6.map(IpNet::V6)].into_iter().flatten().map(pool);
        let attached = endpoints.iter().filter(|endpoint| endpoint.mode == mode);
        Self {
            name: mode.name().to_owned(),
            id: record.id(mode).to_owned(),
            created: record.created,
            scope: "local".to_owned(),
            driver: if mode == NetworkMode::None { "null" } else { mode.name() }.to_owned(),
            enable_ipv4: true,
            enable_ipv6: is_bridge && bridge.ipv6.is_some(),
            ipam: IpamSettings {
                driver: "default".to_owned(),
                options: None,
                config: is_bridge.then(|| pools.collect()),
            },
            internal: false,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: attached.map(|found| (found.container_id.clone(), AttachedContainer::of(found))).collect(),
            options: if is_bridge { bridge_options(config) } else { BTreeMap::new() },
            labels: BTreeMap::new(),
        }
    }
}

impl AttachedContainer {
    fn of(endpoint: &Endpoint) -> Self {
        let place = endpoint.bridge.as_ref();
        let ipv6 = place.and_then(|place| Some(format!("{}/{}", place.ipv6?, place.prefix6)));
        Self {
            name: endpoint.container_name.clone(),
            endpoint_id: endpoint.id.clone(),
            mac_address: place.map(|place| place.mac.to_string()).unwrap_or_default(),
            ipv4_address: place.map(|place| format!("{}/{}", place.ipv4, place.prefix)).unwrap_or_default(),
            ipv6_address: ipv6.unwrap_or_default(),
        }
    }
}

fn bridge_options(config: &Config) -> BTreeMap<String, String> {
    let address = config.publish_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let options = [
        ("bridge.default_bridge", "true".to_owned()),
        ("bridge.enable_icc", "true".to_owned()),
        ("bridge.enable_ip_masquerade", "true".to_owned()),
        ("bridge.host_binding_ipv4", address.to_string()),
        ("bridge.name", config.bridge.clone()),
        ("driver.mtu", config.mtu.to_string()),
    ];
    options.map(|(key, value)| (format!("com.docker.network.{key}"), value)).into()
}
