//! What the daemon says about its network.

use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};

/// Configuration of a machine's networks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory under the data root for what survives a reboot: the networks' ids and the chosen subnet.
    pub data_dir: PathBuf,
    /// Directory under the exec root where each container's namespace is mounted as a file.
    pub netns_dir: PathBuf,
    /// Interface name of the default bridge, also the name of our firewall table. Unique per network namespace.
    pub bridge: String,
    /// Gateway and network of the default bridge (`172.17.0.1/16`; a bare network means its first address). `None`: what
    /// was chosen before, else the first of Docker's default pools that no route of this machine overlaps.
    pub subnet: Option<Ipv4Net>,
    /// IPv6 gateway and network of the default bridge; `None`: containers on it have IPv4 only, as with Docker.
    pub subnet6: Option<Ipv6Net>,
    /// Largest packet in bytes on the bridge and in its containers.
    pub mtu: u32,
    /// Host address that a published port is bound to where none is named; `None`: every IPv4 and IPv6 address.
    pub publish_address: Option<std::net::IpAddr>,
    /// Program that loads the firewall table at start; looked up in `PATH` if not absolute.
    pub nft: PathBuf,
}

impl Config {
    /// The defaults, under these two directories.
    pub fn new(data_dir: impl Into<PathBuf>, netns_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            netns_dir: netns_dir.into(),
            bridge: "shoal0".to_owned(),
            subnet: None,
            subnet6: None,
            mtu: 1500,
            publish_address: None,
            nft: PathBuf::from("nft"),
        }
    }
}
