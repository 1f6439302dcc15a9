//! What the daemon says about its engine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bollard_stubs::models::GenericResources;
use ipnet::{Ipv4Net, Ipv6Net};

/// Configuration of an engine. Everything that it keeps lies under the two roots.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// What survives a reboot: containers, images, volumes. An absolute path.
    pub data_root: PathBuf,
    /// What does not: sockets, namespaces. An absolute path, best on a tmpfs.
    pub exec_root: PathBuf,
    /// The binary that acts as a supervisor when its first argument says so: the daemon's own.
    pub exe: PathBuf,
    /// Name of this node in `info` and in events; `None`: the host name.
    pub name: Option<String>,
    /// `KEY=VALUE` labels of this node.
    pub labels: Vec<String>,
    /// What this node has besides CPUs and memory, for services to reserve.
    pub generic_resources: GenericResources,
    /// URLs of mirrors of Docker's registry, tried in this order before it.
    pub registry_mirrors: Vec<String>,
    /// Registries (`HOST[:PORT]` or CIDR) that may be spoken to without TLS or with a certificate that nobody vouches for.
    pub insecure_registries: Vec<String>,
    /// The default bridge.
    pub bridge: BridgeConfig,
    /// Log driver of containers that name none: `json-file` or `none`.
    pub log_driver: String,
    /// Log options of containers that name no driver.
    pub log_opts: BTreeMap<String, String>,
    /// Control group under which containers lie when they name none. An absolute path; unique per daemon.
    pub cgroup_parent: String,
}

/// The default bridge.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Interface name. Unique per network namespace.
    pub name: String,
    /// Gateway and network; `None`: the first of Docker's default pools that is free.
    pub subnet: Option<Ipv4Net>,
    /// IPv6 gateway and network; `None`: IPv4 only.
    pub subnet6: Option<Ipv6Net>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Host address that a published port is bound to where none is named; `None`: all.
    pub publish_address: Option<IpAddr>,
}

impl EngineConfig {
    /// The defaults for these roots and this binary.
    pub fn new(data_root: impl Into<PathBuf>, exec_root: impl Into<PathBuf>, exe: impl Into<PathBuf>) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            exe: exe.into(),
            name: None,
            labels: Vec::new(),
            generic_resources: Vec::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            bridge: BridgeConfig::default(),
            log_driver: "json-file".to_owned(),
            log_opts: BTreeMap::new(),
            cgroup_parent: "/shoal".to_owned(),
        }
    }
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self { name: "shoal0".to_owned(), subnet: None, subnet6: None, mtu: 1500, publish_address: None }
    }
}
