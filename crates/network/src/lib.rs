//! Networks of one machine: the default bridge, `host`, `none`, published ports, and the files by which a container
//! knows names.
//!
//! Owns addresses, host ports, network namespaces and interfaces of containers, and applies `shoal-rules` to the
//! kernel. Leaves to the engine: the durable record of each [`Endpoint`], and when one is made and released. All of
//! the state here is recomputed from the endpoints that the engine names at [`NodeNetwork::open`].
//!
//! A machine may run several daemons, each in a network namespace of its own: "the host" is the daemon's namespace.
//!
//! # Beside another firewall
//!
//! All our rules are in one table, named after the bridge; we never touch another's, and load ours again when a reload
//! of the host's firewall removes it. The kernel asks every table: what ours accepts another may still drop, and no table
//! can overrule that. So where the host's firewall drops forwarded packets unless told otherwise (a Docker engine on
//! the same machine does), it must allow those from and to the bridge; [`NodeNetwork::warnings`] names the
//! chain. A published port never passes the host's `input` chains: to keep some clients out, filter
//! forwarded packets in a chain of your own with a priority below 0, by `ct original proto-dst`.

mod addresses;
mod config;
mod endpoint;
mod error;
mod files;
mod firewall;
mod inspect;
mod kernel;
mod netns;
mod node;
mod open;
mod ports;
mod proxy;
mod reaper;
mod record;
mod sysctl;
mod watch;

pub use config::Config;
pub use endpoint::{
    BridgePlace, Endpoint, EndpointRequest, EndpointSettings, HostBinding, HostPorts, LiveEndpoint, NetworkMode,
    PortBinding, PortMap, PortRequest,
};
pub use error::{EndpointError, KernelError, OpenError, PortError, ReleaseError};
pub use files::{DnsOptions, ExtraHost, RESOLVED_FILE, hosts_file, names_only_the_stub, parse_extra_host, resolv_conf};
pub use inspect::{AttachedContainer, ConfigFrom, IpamPool, IpamSettings, NetworkInfo};
pub use netns::{Namespace, is_mounted as is_namespace, unmount as unmount_namespace, within as within_namespace};
pub use node::NodeNetwork;
pub use shoal_rules::{Mac, MacParseError, Protocol};
