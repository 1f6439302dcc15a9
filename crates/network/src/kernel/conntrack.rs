//! Tracked connections: those that a change of published ports makes wrong are forgotten.
//!
//! Translation is decided by a connection's first packet. A client that keeps sending datagrams from one port would so
//! go on to a container that is gone, or past one that has just come.

use std::net::{IpAddr, SocketAddr};

use shoal_rules::Publication;

use crate::{
    error::KernelError,
    kernel::{
        attributes::attributes,
        elements::family_header,
        socket::{Netlink, Request},
    },
};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: IpAddr,
    destination: SocketAddr,
}

/// Forgets the connections to these published ports that do not go where the port now leads: all of them where `gone`.
pub fn forget(socket: &Netlink, publications: &[Publication], gone: bool) -> Result<(), KernelError> {
    let stale = |original: &Tuple, reply: &Tuple| {
        publications.iter().any(|publication| {
            let to_us = original.protocol == publication.protocol.number()
                && original.destination.port() == publication.host.port()
                && original.destination.is_ipv4() == publication.host.is_ipv4()
                && (publication.is_any() || original.destination.ip() == publication.host.ip());
            to_us && (reply.source == publication.container.ip()) == gone
        })
    };
    let list = Request::new("list tracked connections", GET, libc::NLM_F_DUMP, family_header(0, 0));
    let answers = socket.exchange(&[list])?;
    let mut deletions = Vec::new();
    for (_, payload) in answers.into_iter().flatten() {
        if let (Some(family), Some(rest)) = (payload.first(), payload.get(4..))
            && let (Some(original), Some(reply)) = (tuple(rest, TUPLE_ORIGINAL), tuple(rest, TUPLE_REPLY))
            && stale(&original, &reply)
        {
            deletions.push(deletion(*family, rest));
        }
    }
    // each on its own: one that ended meanwhile is no error and must not keep the others
    for deletion in deletions {
        match socket.exchange(&[deletion]) {
            Err(KernelError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// Names the connection by the tuple that the kernel told, byte for byte.
fn deletion(family: u8, listed: &[u8]) -> Request {
    let mut payload = family_header(family, 0);
    for (kind, value) in attributes(listed).filter(|(kind, _)| matches!(*kind, TUPLE_ORIGINAL | ZONE)) {
        payload.extend(match kind {
            ZONE => super::attributes::attribute(kind, value),
            _ => super::attributes::nested(kind, &[value.to_vec()]),
        });
    }
    Request::new("forget a tracked connection", DELETE, 0, payload)
}

fn tuple(listed: &[u8], direction: u16) -> Option<Tuple> {
    let find = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let parts = find(listed, direction)?;
    let (ip, protocol) = (find(parts, TUPLE_IP)?, find(parts, TUPLE_PROTOCOL)?);
    // the address attributes: 1 and 2 for IPv4, 3 and 4 for IPv6; source first
    let address = |v4, v6| match (find(ip, v4), find(ip, v6)) {
        (Some(bytes), _) => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        (_, Some(bytes)) => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    };
    // 1: protocol number, 3: destination port, where there are ports
    let port = find(protocol, 3).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
    let destination = SocketAddr::new(address(2, 4)?, port);
    Some(Tuple { protocol: *find(protocol, 1)?.first()?, source: address(1, 3)?, destination })
}
