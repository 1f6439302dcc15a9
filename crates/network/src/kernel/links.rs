//! Changes of interfaces, addresses and routes, as few system calls as their order allows.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkSerializable, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage,
    },
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use shoal_rules::{Address, Change, Link, LinkKind, Peer, Route};

use crate::{
    error::KernelError,
    kernel::socket::{Answer, Netlink, Request},
};

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// Numbers of interfaces by name, as far as they are known.
pub type Indexes = BTreeMap<String, u32>;

/// Applies the changes in the namespace of `socket`. Pairs get their other end in `peers`. `indexes` is what is known
/// and is added to. On an error what was done before it stays done.
pub fn apply(
    socket: &Netlink,
    changes: &[Change],
    peers: Option<BorrowedFd<'_>>,
    indexes: &mut Indexes,
) -> Result<(), KernelError> {
    let mut batch = Vec::new();
    for change in changes {
        if let Some(name) = needs(change).filter(|name| !indexes.contains_key(*name)) {
            batch.push(find_request(name));
            let answers = socket.exchange(&std::mem::take(&mut batch))?;
            indexes.insert(name.to_owned(), index_in(name, answers.last())?);
        }
        if let Change::DeleteLink { name } = change {
            indexes.remove(name);
        }
        batch.extend(encode(change, peers, indexes));
    }
    socket.exchange(&batch).map(drop)
}

/// Takes an interface down; one that is gone is no error.
pub fn take_down(socket: &Netlink, name: &str) -> Result<(), KernelError> {
    let mut message = named(name);
    message.header.change_mask = LinkFlags::Up;
    let down = request(format!("take down interface {name}"), 0, RouteNetlinkMessage::NewLink(message));
    match socket.exchange(&[down]) {
        Err(KernelError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result.map(drop),
    }
}

/// The interface whose number the change's message must have.
fn needs(change: &Change) -> Option<&str> {
    match change {
        Change::AddLink { link, .. } | Change::SetLink { link, .. } => link.master.as_deref(),
        Change::DeleteLink { .. } => None,
        Change::AddAddress(address) | Change::DeleteAddress(address) => Some(&address.link),
        Change::AddRoute(route) | Change::DeleteRoute(route) => Some(&route.link),
    }
}

fn encode(change: &Change, peers: Option<BorrowedFd<'_>>, indexes: &Indexes) -> Vec<Request> {
    use RouteNetlinkMessage as M;
    let index = needs(change).and_then(|name| indexes.get(name)).copied().unwrap_or_default();
    match change {
        Change::AddLink { name, link } => {
            let (verb, flags) = match link.kind {
                LinkKind::Given => ("bring up", 0),
                LinkKind::Bridge | LinkKind::Veth => ("add", CREATE),
            };
            let message = M::NewLink(link_message(name, link, peers, index));
            let mut requests = vec![request(format!("{verb} interface {name}"), flags, message)];
            requests.extend(link.hairpin.then(|| port_request(name, true)));
            requests
        }
        Change::SetLink { name, link } => {
            let mut message = link_message(name, link, None, index);
            message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::LinkInfo(_)));
            let mut requests = vec![request(format!("change interface {name}"), 0, M::NewLink(message))];
            requests.extend(link.master.is_some().then(|| port_request(name, link.hairpin)));
            requests
        }
        Change::DeleteLink { name } => {
            vec![request(format!("remove interface {name}"), 0, M::DelLink(named(name)))]
        }
        Change::AddAddress(address) => {
            let Address { link, net } = address;
            vec![request(format!("add address {net} to {link}"), CREATE, M::NewAddress(address_message(net, index)))]
        }
        Change::DeleteAddress(address) => {
            let Address { link, net } = address;
            vec![request(format!("remove address {net} from {link}"), 0, M::DelAddress(address_message(net, index)))]
        }
        Change::AddRoute(route) => {
            let step = format!("add route to {} via {}", route.destination, route.via);
            vec![request(step, CREATE, M::NewRoute(route_message(route, index)))]
        }
        Change::DeleteRoute(route) => {
            let step = format!("remove route to {} via {}", route.destination, route.via);
            vec![request(step, 0, M::DelRoute(route_message(route, index)))]
        }
    }
}

/// Encodes a message of the library's.
pub fn request(step: String, flags: i32, message: RouteNetlinkMessage) -> Request {
    let mut payload = vec![0; message.buffer_len()];
    message.serialize(&mut payload);
    Request::new(step, message.message_type(), flags, payload)
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn find_request(name: &str) -> Request {
    request(format!("find interface {name}"), 0, RouteNetlinkMessage::GetLink(named(name)))
}

fn index_in(name: &str, answers: Option<&Vec<Answer>>) -> Result<u32, KernelError> {
    let wrong = |detail: String| KernelError::Garbled { step: format!("find interface {name}"), detail };
    let (_, payload) = answers.and_then(|answers| answers.first()).ok_or_else(|| wrong("no answer".to_owned()))?;
    LinkMessage::parse(payload.as_slice()).map(|message| message.header.index).map_err(|error| wrong(error.to_string()))
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn link_message(name: &str, link: &Link, peers: Option<BorrowedFd<'_>>, master: u32) -> LinkMessage {
    let mut message = up(named(name));
    let attributes = &mut message.attributes;
    attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(link.master.as_ref().map(|_| LinkAttribute::Controller(master)));
    let mut info = match link.kind {
        LinkKind::Given => return message,
        LinkKind::Bridge => vec![LinkInfo::Kind(InfoKind::Bridge)],
        LinkKind::Veth => vec![LinkInfo::Kind(InfoKind::Veth)],
    };
    if let Some(Peer { name, mac }) = &link.peer {
        // up it can go only once the pair is whole
        let mut peer = named(name);
        peer.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        peer.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
        peer.attributes.extend(peers.map(|namespace| LinkAttribute::NetNsFd(namespace.as_raw_fd())));
        info.push(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))));
    }
    attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// Properties of a bridge's port; the kernel takes them only once it is one.
fn port_request(name: &str, hairpin: bool) -> Request {
    let mut message = named(name);
    let data = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(hairpin)]);
    let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)];
    message.attributes.push(LinkAttribute::LinkInfo(info));
    request(format!("change bridge port {name}"), 0, RouteNetlinkMessage::NewLink(message))
}

fn address_message(net: &IpNet, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    match net {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            if net.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // nobody else gives out our addresses: no need to wait for the check that it is unique
            let flags = netlink_packet_route::address::AddressFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(flags));
        }
    }
    message
}

fn route_message(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = if route.via.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Static;
    header.scope = RouteScope::Universe;
    header.kind = RouteType::Unicast;
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    message.attributes.push(RouteAttribute::Gateway(route.via.into()));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}
