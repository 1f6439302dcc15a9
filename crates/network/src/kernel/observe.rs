//! What the kernel has now.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use shoal_rules::{Address, Link, LinkKind, LinkState, Mac};

use crate::{
    error::KernelError,
    kernel::{
        links::{Indexes, request},
        socket::Netlink,
    },
};

/// Interfaces and addresses of a namespace.
#[derive(Debug, Default)]
pub struct Observed {
    /// Interfaces of the kinds that we make, and all addresses. One that is down has no MTU here, so that it differs from
    /// what is wanted and is set right.
    pub state: LinkState,
    /// Numbers of all interfaces.
    pub indexes: Indexes,
    /// Destinations of all routes but the default ones, with their interface's name.
    pub routed: Vec<(IpNet, String)>,
}

/// Reads interfaces, addresses and routes.
pub fn observe(socket: &Netlink) -> Result<Observed, KernelError> {
    let mut observed = Observed::default();
    let links = dump(socket, "list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links: Vec<LinkMessage> = parse_all("list interfaces", &links)?;
    observed.indexes = links.iter().filter_map(|link| Some((name_of(link)?, link.header.index))).collect();
    for message in &links {
        let Some(name) = name_of(message) else { continue };
        observed.state.links.extend(link_of(message, &observed.indexes).map(|link| (name, link)));
    }
    let addresses = dump(socket, "list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    for message in parse_all::<AddressMessage>("list addresses", &addresses)? {
        let (Some(link), Some(net)) = (name_at(&observed.indexes, message.header.index), net_of(&message)) else {
            continue;
        };
        observed.state.addresses.insert(Address { link, net });
    }
    let routes = dump(socket, "list routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    for message in parse_all::<RouteMessage>("list routes", &routes)? {
        observed.routed.extend(destination(&message, &observed.indexes));
    }
    Ok(observed)
}

fn dump(socket: &Netlink, step: &str, message: RouteNetlinkMessage) -> Result<Vec<Vec<u8>>, KernelError> {
    let answers = socket.exchange(&[request(step.to_owned(), libc::NLM_F_DUMP, message)])?;
    Ok(answers.into_iter().flatten().map(|(_, payload)| payload).collect())
}

fn parse_all<T: Parseable<[u8]>>(step: &str, payloads: &[Vec<u8>]) -> Result<Vec<T>, KernelError> {
    let wrong = |error: netlink_packet_core::DecodeError| KernelError::Garbled {
        step: step.to_owned(),
        detail: error.to_string(),
    };
    payloads.iter().map(|payload| T::parse(payload).map_err(wrong)).collect()
}

fn name_of(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn name_at(indexes: &Indexes, index: u32) -> Option<String> {
    indexes.iter().find(|(_, at)| **at == index).map(|(name, _)| name.clone())
}

fn link_of(message: &LinkMessage, indexes: &Indexes) -> Option<Link> {
    let infos = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    })?;
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Bridge) => Some(LinkKind::Bridge),
        LinkInfo::Kind(InfoKind::Veth) => Some(LinkKind::Veth),
        _ => None,
    })?;
    let mut link = Link::new(kind);
    link.hairpin = infos.iter().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.contains(&InfoBridgePort::HairpinMode(true)),
        _ => false,
    });
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) if message.header.flags.contains(LinkFlags::Up) => link.mtu = Some(*mtu),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(index) => link.master = name_at(indexes, *index),
            _ => {}
        }
    }
    Some(link)
}

fn net_of(message: &AddressMessage) -> Option<IpNet> {
    let pick = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    // IPv6 names only "address"; on a point-to-point link "local" is ours and "address" the other side's
    IpNet::new(pick(true).or_else(|| pick(false))?, message.header.prefix_len).ok()
}

fn destination(message: &RouteMessage, indexes: &Indexes) -> Option<(IpNet, String)> {
    let mut ip = None;
    let mut link = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(found)) => ip = Some(IpAddr::V4(*found)),
            RouteAttribute::Destination(RouteAddress::Inet6(found)) => ip = Some(IpAddr::V6(*found)),
            RouteAttribute::Oif(index) => link = name_at(indexes, *index),
            _ => {}
        }
    }
    let net = IpNet::new(ip?, message.header.destination_prefix_length).ok()?;
    Some((net, link.unwrap_or_default()))
}
