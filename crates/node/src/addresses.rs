//! Where this node listens and what it calls itself: from what the user said and what the machine has
//! (swarm-semantics 13.3; the texts are Docker's, since clients match on them). The interfaces come in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where managers listen when nothing else is said.
pub const DEFAULT_PORT: u16 = 2377;

/// A network interface and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Left out when an address is looked for: loopback, and bridges that engines made.
    pub internal: bool,
}

/// What the user said.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Asked {
    /// `--listen-addr`: address or interface, with or without port.
    pub listen: String,
    /// `--advertise-addr`: the same; empty: found out.
    pub advertise: String,
    /// `--data-path-addr`: address or interface; empty: as advertised.
    pub data_path: String,
}

/// What applies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Addresses {
    /// Where the manager listens.
    pub listen: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Where the traffic of containers goes.
    pub data_path: IpAddr,
}

/// Why the addresses do not work out. All are the client's to mend (400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The listening address has no port number where one should be.
    #[error("invalid ListenAddr \"{0}\": {1}")]
    Listen(String, String),
    /// The listening address is neither an address nor an interface.
    #[error("listen address must be an IP address or network interface (with optional port number)")]
    ListenForm,
    /// The address to advertise is neither an address nor an interface.
    #[error("advertise address must be a non-zero IP address or network interface (with optional port number)")]
    AdvertiseForm,
    /// The address for container traffic is neither an address nor an interface.
    #[error("data path address must be a non-zero IP address or network interface (without a port number)")]
    DataPathForm,
    /// The machine has none that others could reach.
    #[error("could not find the system's IP address")]
    NoAddress,
    /// An interface has several, and none was named.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on interface {interface} ({first} and {second})"
    )]
    SeveralOnOne {
        /// The interface.
        interface: String,
        /// One candidate.
        first: IpAddr,
        /// Another.
        second: IpAddr,
    },
    /// Several interfaces have one, and none was named.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({first} on {on_first} and {second} on {on_second})"
    )]
    SeveralOnDifferent {
        /// One candidate.
        first: IpAddr,
        /// Its interface.
        on_first: String,
        /// Another candidate.
        second: IpAddr,
        /// Its interface.
        on_second: String,
    },
    /// The interface that was named has several.
    #[error("interface {interface} has more than one IPv{version} address ({first} and {second})")]
    AmbiguousInterface {
        /// The interface.
        interface: String,
        /// 4 or 6.
        version: u8,
        /// One candidate.
        first: IpAddr,
        /// Another.
        second: IpAddr,
    },
    /// The interface that was named has none.
    #[error("interface {0} has no usable IPv4 or IPv6 address")]
    BareInterface(String),
}

/// Works out where to listen and what to advertise. Where nothing is said, the address that the machine uses `toward` a
/// manager is advertised; where there is no manager yet, the only one that it has.
///
/// # Errors
/// What the user said is no address, or what the machine has leaves a choice.
pub fn resolve(asked: &Asked, interfaces: &[Interface], toward: Option<SocketAddr>) -> Result<Addresses, AddressError> {
    let listen = listen_addr(&asked.listen, interfaces)?;
    let advertise = match asked.advertise.as_str() {
        "" => {
            let used = toward.filter(|_| listen.ip().is_unspecified()).and_then(used_toward);
            let ip = used.map_or_else(|| found(listen.ip(), interfaces), Ok)?;
            SocketAddr::new(ip, listen.port())
        }
        text => host_or_interface(text, interfaces, listen.port())?
            .filter(|a| !a.ip().is_unspecified())
            .ok_or(AddressError::AdvertiseForm)?,
    };
    let data_path = match asked.data_path.as_str() {
        "" => advertise.ip(),
        text => data_path_addr(text, interfaces)?,
    };
    Ok(Addresses { listen, advertise, data_path })
}

/// Where a node is to be found that was at `current`, if that is no more: an address that was this machine's `own` has gone,
/// or one that was named is back. What was named and has gone is found out as if nothing had been said; an address that
/// never was the machine's own (a translated one) stays.
///
/// # Errors
/// What the machine has leaves a choice, or nothing.
pub fn moved(
    asked: &Asked,
    own: &[IpAddr],
    current: &Addresses,
    interfaces: &[Interface],
    toward: Option<SocketAddr>,
) -> Result<Option<Addresses>, AddressError> {
    let gone = |ip: IpAddr| own.contains(&ip) && !is_here(ip, interfaces);
    let has_gone = |text: &str| named(text).is_some_and(|(ip, _)| gone(ip));
    let is_back = named(&asked.advertise).is_some_and(|(ip, _)| ip != current.advertise.ip() && !gone(ip));
    if !is_back && ![current.advertise.ip(), current.listen.ip(), current.data_path].into_iter().any(gone) {
        return Ok(None);
    }
    let keep = |text: &str| if has_gone(text) { String::new() } else { text.to_owned() };
    let mut left =
        Asked { listen: keep(&asked.listen), advertise: keep(&asked.advertise), data_path: keep(&asked.data_path) };
    if let Some((_, Some(port))) = named(&asked.listen).filter(|_| has_gone(&asked.listen)) {
        left.listen = format!("0.0.0.0:{port}");
    }
    let mut new = resolve(&left, interfaces, toward)?;
    if let Some((_, Some(port))) = named(&asked.advertise).filter(|_| has_gone(&asked.advertise)) {
        new.advertise.set_port(port);
    }
    Ok((new != *current).then_some(new))
}

/// Those addresses, of the ones that were named and the ones that apply, that this machine has.
pub fn own(asked: &Asked, current: &Addresses, interfaces: &[Interface]) -> Vec<IpAddr> {
    let named = [&asked.listen, &asked.advertise, &asked.data_path].into_iter().filter_map(|text| named(text));
    let all = named.map(|(ip, _)| ip).chain([current.advertise.ip(), current.listen.ip(), current.data_path]);
    let mut own: Vec<IpAddr> = all.filter(|ip| is_here(*ip, interfaces)).collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// Whether an address that a user named, and that was this machine's own, has gone.
pub fn lacks_named(asked: &Asked, own: &[IpAddr], interfaces: &[Interface]) -> bool {
    let named = [&asked.listen, &asked.advertise, &asked.data_path].into_iter().filter_map(|text| named(text));
    named.map(|(ip, _)| ip).any(|ip| own.contains(&ip) && !is_here(ip, interfaces))
}

fn is_here(ip: IpAddr, interfaces: &[Interface]) -> bool {
    interfaces.iter().any(|i| i.addresses.contains(&ip))
}

/// The address that a user named, with the port where there is one; no interface.
fn named(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse() {
        return Some((ip, None));
    }
    text.parse::<SocketAddr>().ok().map(|addr| (addr.ip(), Some(addr.port())))
}

fn listen_addr(text: &str, interfaces: &[Interface]) -> Result<SocketAddr, AddressError> {
    let text = if text.is_empty() { "0.0.0.0" } else { text };
    if let Some((_, port)) = split_port(text)
        && port.parse::<u16>().is_err()
    {
        return Err(AddressError::Listen(text.to_owned(), format!("invalid port \"{port}\"")));
    }
    host_or_interface(text, interfaces, DEFAULT_PORT)?.ok_or(AddressError::ListenForm)
}

fn data_path_addr(text: &str, interfaces: &[Interface]) -> Result<IpAddr, AddressError> {
    let ip = match text.parse() {
        Ok(ip) => Some(ip),
        Err(_) => interfaces.iter().find(|i| i.name == text).map(of_interface).transpose()?,
    };
    ip.filter(|ip: &IpAddr| !ip.is_unspecified()).ok_or(AddressError::DataPathForm)
}

/// `IP`, `IP:port`, `[IP]:port`, `interface` or `interface:port`.
fn host_or_interface(text: &str, interfaces: &[Interface], port: u16) -> Result<Option<SocketAddr>, AddressError> {
    let (host, port) = match split_port(text) {
        Some((host, given)) => match given.parse() {
            Ok(port) => (host, port),
            Err(_) => return Ok(None),
        },
        None => (text, port),
    };
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    match interfaces.iter().find(|i| i.name == host) {
        Some(interface) => Ok(Some(SocketAddr::new(of_interface(interface)?, port))),
        None => Ok(None),
    }
}

/// Host and port, where there is a port: a lone IPv6 address has colons of its own.
fn split_port(text: &str) -> Option<(&str, &str)> {
    if text.parse::<IpAddr>().is_ok() {
        return None;
    }
    text.rsplit_once(':')
}

/// The one address of a named interface, IPv4 first.
fn of_interface(interface: &Interface) -> Result<IpAddr, AddressError> {
    for (version, is_version) in [(4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (6, IpAddr::is_ipv6)] {
        let mut usable = interface.addresses.iter().filter(|a| is_version(a) && usable(a));
        match (usable.next(), usable.next()) {
            (Some(&first), Some(&second)) => {
                let interface = interface.name.clone();
                return Err(AddressError::AmbiguousInterface { interface, version, first, second });
            }
            (Some(address), None) => return Ok(*address),
            _ => {}
        }
    }
    Err(AddressError::BareInterface(interface.name.clone()))
}

/// The address to advertise when none was named: the one listened on, or the only one that the machine has.
fn found(listen: IpAddr, interfaces: &[Interface]) -> Result<IpAddr, AddressError> {
    if !listen.is_unspecified() {
        return Ok(listen);
    }
    for is_version in [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6] {
        let mut candidates = interfaces
            .iter()
            .filter(|i| !i.internal)
            .flat_map(|i| i.addresses.iter().map(move |a| (i, *a)))
            .filter(|(_, a)| is_version(a) && usable(a));
        match (candidates.next(), candidates.next()) {
            (Some((_, address)), None) => return Ok(address),
            (Some((on_first, first)), Some((on_second, second))) if on_first == on_second => {
                return Err(AddressError::SeveralOnOne { interface: on_first.name.clone(), first, second });
            }
            (Some((on_first, first)), Some((on_second, second))) => {
                let (on_first, on_second) = (on_first.name.clone(), on_second.name.clone());
                return Err(AddressError::SeveralOnDifferent { first, on_first, second, on_second });
            }
            (None, _) => {}
        }
    }
    Err(AddressError::NoAddress)
}

/// Neither loopback nor link-local: others can reach it.
fn usable(address: &IpAddr) -> bool {
    !address.is_loopback()
        && match address {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

/// The address that this machine uses towards another one. Sends nothing.
fn used_toward(other: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if other.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(other).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// The interfaces of this machine, in the daemon's network namespace.
///
/// # Errors
/// The kernel does not say.
pub fn interfaces() -> std::io::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let name = entry.interface_name;
        match found.iter_mut().find(|i| i.name == name) {
            Some(interface) => interface.addresses.push(address),
            None => found.push(Interface { internal: internal(&name), name, addresses: vec![address] }),
        }
    }
    Ok(found)
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}

/// Loopback, and the bridges and links that engines make for containers.
fn internal(name: &str) -> bool {
    name == "lo" || ["docker", "br-", "veth", "shoal"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        Interface { name: name.into(), addresses, internal: internal(name) }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("lo", &["127.0.0.1", "::1"]),
            interface("eth0", &["192.0.2.7", "fe80::1"]),
            interface("shoal0", &["172.17.0.1"]),
        ]
    }

    fn asked(listen: &str, advertise: &str, data_path: &str) -> Asked {
        Asked { listen: listen.into(), advertise: advertise.into(), data_path: data_path.into() }
    }

    fn advertised(asked: &Asked, interfaces: &[Interface]) -> String {
        match resolve(asked, interfaces, None) {
            Ok(addresses) => addresses.advertise.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_only_address_of_the_machine_is_advertised() {
        let addresses = resolve(&asked("0.0.0.0:2377", "", ""), &machine(), None).unwrap();
        assert_eq!(addresses.listen.to_string(), "0.0.0.0:2377");
        assert_eq!(addresses.advertise.to_string(), "192.0.2.7:2377");
        assert_eq!(addresses.data_path.to_string(), "192.0.2.7");
    }

    #[test]
    fn where_nothing_is_said_the_address_towards_a_manager_is_advertised() {
        let (two, manager) = ([interface("a", &["192.0.2.7"]), interface("b", &["192.0.2.8"])], "127.0.0.9:2377");
        let addresses = resolve(&asked("", "", ""), &two, Some(manager.parse().unwrap())).unwrap();
        assert_eq!(addresses.advertise.to_string(), "127.0.0.1:2377");
        let said = resolve(&asked("", "192.0.2.8", ""), &two, Some(manager.parse().unwrap())).unwrap();
        assert_eq!(said.advertise.to_string(), "192.0.2.8:2377");
    }

    #[test]
    fn what_is_named_applies() {
        for (listen, advertise, want) in [
            ("", "127.0.0.1", "127.0.0.1:2377"),
            ("127.0.0.1:3000", "", "127.0.0.1:3000"),
            ("0.0.0.0:3000", "eth0", "192.0.2.7:3000"),
            ("", "eth0:4000", "192.0.2.7:4000"),
            ("eth0", "", "192.0.2.7:2377"),
            ("[::]:2377", "[2001:db8::1]:5000", "[2001:db8::1]:5000"),
            ("", "2001:db8::1", "[2001:db8::1]:2377"),
        ] {
            assert_eq!(advertised(&asked(listen, advertise, ""), &machine()), want, "{listen} {advertise}");
        }
    }

    #[test]
    fn a_choice_is_refused_with_both_candidates() {
        let one = [interface("eth0", &["192.0.2.7", "192.0.2.8"])];
        let text = "multiple addresses on interface eth0 (192.0.2.7 and 192.0.2.8)";
        assert!(advertised(&asked("", "", ""), &one).ends_with(text));
        let two = [interface("eth0", &["192.0.2.7"]), interface("eth1", &["192.0.2.8"])];
        let text = "multiple addresses on different interfaces (192.0.2.7 on eth0 and 192.0.2.8 on eth1)";
        assert!(advertised(&asked("", "", ""), &two).ends_with(text));
        let text = "interface eth0 has more than one IPv4 address (192.0.2.7 and 192.0.2.8)";
        assert_eq!(advertised(&asked("", "eth0", ""), &one), text);
    }

    #[test]
    fn nonsense_is_named() {
        let wrong = |listen, advertise, data_path| resolve(&asked(listen, advertise, data_path), &machine(), None);
        assert_eq!(wrong("nowhere", "", ""), Err(AddressError::ListenForm));
        assert!(matches!(wrong("0.0.0.0:x", "", ""), Err(AddressError::Listen(..))));
        assert_eq!(wrong("", "0.0.0.0", ""), Err(AddressError::AdvertiseForm));
        assert_eq!(wrong("", "nowhere", ""), Err(AddressError::AdvertiseForm));
        assert_eq!(wrong("", "", "192.0.2.7:1"), Err(AddressError::DataPathForm));
        assert_eq!(resolve(&asked("", "", ""), &machine()[..1], None), Err(AddressError::NoAddress));
    }

    fn moved_to(asked: &Asked, current: &str, own: &[&str], interfaces: &[Interface]) -> String {
        let current: SocketAddr = current.parse().unwrap();
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 2377);
        let current = Addresses { listen, advertise: current, data_path: current.ip() };
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        match moved(asked, &own, &current, interfaces, None) {
            Ok(Some(new)) => format!("{} {}", new.advertise, new.data_path),
            Ok(None) => "stays".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_address_that_has_gone_is_replaced_and_counts_again_once_it_is_back() {
        let (before, after) = ([interface("eth0", &["192.0.2.7"])], [interface("eth0", &["192.0.2.8"])]);
        let named = asked("", "192.0.2.7:4000", "");
        assert_eq!(
            own(&named, &resolve(&named, &before, None).unwrap(), &before),
            ["192.0.2.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(moved_to(&named, "192.0.2.7:4000", &["192.0.2.7"], &before), "stays");
        assert_eq!(moved_to(&named, "192.0.2.7:4000", &["192.0.2.7"], &after), "192.0.2.8:4000 192.0.2.8");
        assert_eq!(moved_to(&named, "192.0.2.8:4000", &["192.0.2.7", "192.0.2.8"], &after), "stays");
        assert_eq!(
            moved_to(&named, "192.0.2.8:4000", &["192.0.2.7", "192.0.2.8"], &before),
            "192.0.2.7:4000 192.0.2.7"
        );
        assert!(lacks_named(&named, &["192.0.2.7".parse().unwrap()], &after));
        // Where it was found out, only that it has gone is a reason to look for another.
        let both = [interface("eth0", &["192.0.2.7"]), interface("eth1", &["192.0.2.9"])];
        assert_eq!(moved_to(&asked("", "", ""), "192.0.2.7:2377", &["192.0.2.7"], &both), "stays");
        assert_eq!(moved_to(&asked("", "", ""), "192.0.2.7:2377", &["192.0.2.7"], &after), "192.0.2.8:2377 192.0.2.8");
        assert!(moved_to(&asked("", "", ""), "192.0.2.6:2377", &["192.0.2.6"], &both).starts_with("could not choose"));
        // One that others translate never was the machine's own.
        assert_eq!(moved_to(&asked("", "203.0.113.1", ""), "203.0.113.1:2377", &[], &after), "stays");
    }
}
