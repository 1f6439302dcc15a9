//! Host ports: which are ours, which are free, and how others are kept from taking them.
//!
//! Packets for a published port never reach a socket, since their address is translated first. Still a socket is bound
//! to each: so a port that another program uses is found out before the container starts, and no other program
//! can take a port later and wait for connections that never come. When the daemon is down nobody holds the ports, but the
//! translation goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    },
};
use shoal_rules::{Protocol, Publication};

use crate::{
    endpoint::{BridgePlace, HostPorts, PortBinding, PortRequest},
    error::PortError,
    proxy::Proxy,
    sysctl,
};

const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Host ports of all containers.
#[derive(Debug)]
pub struct Ports {
    taken: BTreeMap<(Protocol, u16), BTreeSet<IpAddr>>,
    /// Where the search for an ephemeral port goes on, so that one that was just freed rests for a while.
    next: u16,
    /// Every address of the host, where a request names none.
    everywhere: Vec<IpAddr>,
}

/// What keeps others from a host port; dropping it gives the port up.
#[derive(Debug)]
pub enum Hold {
    /// A bound socket on which nothing arrives.
    Socket(#[expect(dead_code, reason = "held, not used")] OwnedFd),
    /// IPv6 clients that address translation cannot serve.
    Proxy(#[expect(dead_code, reason = "runs until it is dropped")] Proxy),
    /// The kernel has no sockets of the protocol: nobody else can take the port either.
    Nothing,
}

impl Ports {
    /// None taken. A request without an address means `address`, or every address of the host.
    pub fn new(address: Option<IpAddr>) -> Self {
        let everywhere = match address {
            Some(ip) => vec![ip],
            None if ipv6_works() => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            None => vec![Ipv4Addr::UNSPECIFIED.into()],
        };
        Self { taken: BTreeMap::new(), next: 0, everywhere }
    }

    /// Takes what a container asks for: all or nothing.
    pub fn take_all(
        &mut self,
        requests: &[PortRequest],
        place: &BridgePlace,
    ) -> Result<Vec<(PortBinding, Hold)>, PortError> {
        let mut got = Vec::new();
        for request in requests {
            match self.take(request, place) {
                Ok(found) => got.extend(found),
                Err(error) => {
                    got.iter().for_each(|(binding, _)| self.release(binding));
                    return Err(error);
                }
            }
        }
        Ok(got)
    }

    /// Takes a binding that a live container has already. A failed hold is returned: the container keeps its port.
    pub fn adopt(&mut self, binding: &PortBinding, place: &BridgePlace) -> Result<Hold, PortError> {
        self.taken.entry((binding.protocol, binding.host_port)).or_default().insert(binding.host_ip);
        hold(binding, place, true)
    }

    /// Gives a binding back.
    pub fn release(&mut self, binding: &PortBinding) {
        let key = (binding.protocol, binding.host_port);
        if let Some(addresses) = self.taken.get_mut(&key) {
            addresses.remove(&binding.host_ip);
            if addresses.is_empty() {
                self.taken.remove(&key);
            }
        }
    }

    fn take(&mut self, request: &PortRequest, place: &BridgePlace) -> Result<Vec<(PortBinding, Hold)>, PortError> {
        let (first, last) = match request.host_ports {
            HostPorts::Range(first, last) => (first, last),
            HostPorts::Ephemeral => sysctl::ephemeral_ports(),
        };
        let ephemeral = request.host_ports == HostPorts::Ephemeral;
        let start = if ephemeral && (first..=last).contains(&self.next) { self.next } else { first };
        let mut failure = PortError::Exhausted;
        for port in (start..=last).chain(first..start) {
            match self.take_port(request, port, place) {
                Ok(found) => {
                    if ephemeral {
                        self.next = port.saturating_add(1);
                    }
                    return Ok(found);
                }
                // another port would not help
                Err(error @ PortError::Unsupported(_)) => return Err(error),
                Err(error) => failure = error,
            }
        }
        if first == last { Err(failure) } else { Err(PortError::Exhausted) }
    }

    /// One port on all the addresses that are asked for.
    fn take_port(
        &mut self,
        request: &PortRequest,
        host_port: u16,
        place: &BridgePlace,
    ) -> Result<Vec<(PortBinding, Hold)>, PortError> {
        let addresses = request.host_ip.map_or_else(|| self.everywhere.clone(), |ip| vec![ip]);
        let mut found = Vec::new();
        for host_ip in addresses {
            let PortRequest { protocol, container_port, .. } = *request;
            let binding = PortBinding { protocol, container_port, host_ip, host_port };
            // without an address named, what cannot be served on IPv6 is served on IPv4 alone
            if request.host_ip.is_none() && unsupported(&binding, place) {
                continue;
            }
            let patient = matches!(request.host_ports, HostPorts::Range(first, last) if first == last);
            let held = self
                .claim(&binding)
                .and_then(|()| hold(&binding, place, patient).inspect_err(|_| self.release(&binding)));
            match held {
                Ok(hold) => found.push((binding, hold)),
                Err(error) => {
                    found.iter().for_each(|(binding, _)| self.release(binding));
                    return Err(error);
                }
            }
        }
        Ok(found)
    }

    fn claim(&mut self, binding: &PortBinding) -> Result<(), PortError> {
        let addresses = self.taken.entry((binding.protocol, binding.host_port)).or_default();
        if addresses.iter().any(|taken| overlap(*taken, binding.host_ip)) {
            return Err(PortError::Allocated(SocketAddr::new(binding.host_ip, binding.host_port)));
        }
        addresses.insert(binding.host_ip);
        Ok(())
    }
}

/// Whether both mean a common address.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

fn unsupported(binding: &PortBinding, place: &BridgePlace) -> bool {
    binding.protocol == Protocol::Sctp && !place.publication(binding).is_translatable()
}

/// Where one certain port is wanted, `patient` waits a little for it: a socket that we have just closed is still open in
/// a child process of ours that has not yet become another program, or in a proxy that is about to end.
fn hold(binding: &PortBinding, place: &BridgePlace, patient: bool) -> Result<Hold, PortError> {
    if unsupported(binding, place) {
        return Err(PortError::Unsupported(binding.host_ip));
    }
    let publication = place.publication(binding);
    let mut tries = if patient { TRIES } else { 1 };
    loop {
        tries -= 1;
        match hold_now(&publication) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => thread::sleep(PAUSE),
            result => {
                let Publication { protocol, host, container } = publication;
                return result.map_err(|source| PortError::Taken { host, container, protocol, source });
            }
        }
    }
}

fn hold_now(publication: &Publication) -> io::Result<Hold> {
    let Publication { protocol, host, .. } = *publication;
    let proxied = !publication.is_translatable() || host.ip() == Ipv6Addr::UNSPECIFIED;
    if !proxied || protocol == Protocol::Sctp {
        return Ok(bound_socket(protocol, host, false)?.map_or(Hold::Nothing, Hold::Socket));
    }
    Proxy::start(publication).map(Hold::Proxy)
}

/// A socket bound to this address, listening if asked; `None` where the kernel has none of the protocol.
pub fn bound_socket(protocol: Protocol, host: SocketAddr, listening: bool) -> io::Result<Option<OwnedFd>> {
    let family = if host.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let fd = match socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, number) {
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        result => result?,
    };
    if host.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    // reuse lets us pass connections of an earlier program that the kernel still remembers; taken back, it keeps others
    // from listening beside us
    let stream = protocol == Protocol::Tcp;
    if stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(host))?;
    match (stream, listening) {
        (true, true) => listen(&fd, Backlog::MAXCONN)?,
        (true, false) => setsockopt(&fd, sockopt::ReuseAddr, &false)?,
        (false, _) => {}
    }
    Ok(Some(fd))
}

fn ipv6_works() -> bool {
    bound_socket(Protocol::Udp, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0), false).is_ok()
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
