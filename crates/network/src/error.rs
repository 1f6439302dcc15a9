//! What can go wrong, in Docker's words where clients match on them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::Ipv4Net;
use shoal_rules::{Mac, Protocol};
use thiserror::Error;

/// The networks of this machine cannot be brought up.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A directory or file of ours.
    #[error("cannot use {path} for network state: {source}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every default pool overlaps a route.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoFreeSubnet,
    /// The configured subnet cannot hold containers.
    #[error("the subnet {0} of the default bridge leaves no addresses for containers")]
    SubnetTooSmall(Ipv4Net),
    /// There is an interface of that name that is not a bridge.
    #[error("the interface {0} exists and is not a bridge: choose another bridge name or remove it")]
    NotABridge(String),
    /// A change of the host's interfaces was refused.
    #[error("cannot set up the bridge {bridge}: {source}")]
    Bridge {
        /// Which.
        bridge: String,
        /// Why.
        source: KernelError,
    },
    /// The firewall was refused.
    #[error("cannot load the firewall table {table}: {source}")]
    Firewall {
        /// Which.
        table: String,
        /// Why.
        source: KernelError,
    },
}

/// The kernel, or the tool that speaks to it, refused.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A step and the kernel's answer.
    #[error("{step}: {source}")]
    Refused {
        /// What was tried.
        step: String,
        /// The answer.
        source: io::Error,
    },
    /// `nft` ran and refused.
    #[error("nft: {0}")]
    Nft(String),
    /// `nft` could not be run.
    #[error("cannot run {program} (package nftables): {source}")]
    NoNft {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's message could not be read.
    #[error("{step}: unreadable answer from the kernel: {detail}")]
    Garbled {
        /// What was tried.
        step: String,
        /// What was wrong with it.
        detail: String,
    },
}

/// A container cannot be given its place in a network.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The container has one already.
    #[error("container {0} is already attached to a network")]
    Attached(String),
    /// All addresses are in use.
    #[error("no available IPv4 addresses on this network's address pools: bridge ({0})")]
    NoAddress(String),
    /// The requested address is in use.
    #[error("Address already in use")]
    AddressInUse(Ipv4Addr),
    /// The requested address is not the network's.
    #[error("no configured subnet contains IP address {0}")]
    AddressOutside(Ipv4Addr),
    /// A group address was requested.
    #[error("invalid MAC address: {0}")]
    BadMac(Mac),
    /// A published port cannot be had.
    #[error("driver failed programming external connectivity on endpoint {name} ({id}): {source}")]
    Port {
        /// Container name.
        name: String,
        /// Endpoint id.
        id: String,
        /// Why.
        source: Box<PortError>,
    },
    /// The namespace or interface cannot be made.
    #[error("cannot set up the network of container {name}: {source}")]
    Kernel {
        /// Container name.
        name: String,
        /// Why.
        source: KernelError,
    },
}

/// A host port cannot be had.
#[derive(Debug, Error)]
pub enum PortError {
    /// One of our containers has it.
    #[error("Bind for {0} failed: port is already allocated")]
    Allocated(SocketAddr),
    /// All ports of the range are taken.
    #[error("all ports are allocated")]
    Exhausted,
    /// Another program has it, or the host lacks the address.
    #[error("failed to bind host port for {}: {}", triple(host, container, protocol), lower(source))]
    Taken {
        /// The host's side.
        host: SocketAddr,
        /// The container's side.
        container: SocketAddr,
        /// The protocol.
        protocol: Protocol,
        /// Why.
        source: io::Error,
    },
    /// What address translation cannot do and no proxy does.
    #[error("publishing sctp ports on the IPv6 address {0} to a container without IPv6 is not supported")]
    Unsupported(IpAddr),
    /// The firewall refused.
    #[error("{0}")]
    Firewall(#[source] KernelError),
}

/// A container's network cannot be taken down completely. What could be removed is.
#[derive(Debug, Error)]
#[error("cannot remove the network of container {container}: {source}")]
pub struct ReleaseError {
    /// Container id.
    pub container: String,
    /// Why.
    pub source: KernelError,
}

fn triple(host: &SocketAddr, container: &SocketAddr, protocol: &Protocol) -> String {
    format!("{host}:{container}/{protocol}")
}

/// The kernel's text as Go prints it: lower case, without the number.
fn lower(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}
