//! Which addresses of the bridge's subnet are free. Nothing is stored: the set is filled from live endpoints.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::EndpointError;

/// Addresses of a subnet.
#[derive(Debug)]
pub struct Addresses {
    subnet: Ipv4Net,
    used: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// All free but the gateway's, which is `subnet`'s own address.
    pub fn new(subnet: Ipv4Net) -> Self {
        Self { subnet, used: BTreeSet::from([subnet.addr()]) }
    }

    /// Takes this address for a container that has it already.
    pub fn adopt(&mut self, ip: Ipv4Addr) {
        self.used.insert(ip);
    }

    /// Takes the wanted address, or the lowest free one.
    pub fn take(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, EndpointError> {
        let ip = match wanted {
            Some(ip) if !self.usable(ip) => return Err(EndpointError::AddressOutside(ip)),
            Some(ip) if self.used.contains(&ip) => return Err(EndpointError::AddressInUse(ip)),
            Some(ip) => ip,
            None => self.lowest().ok_or_else(|| EndpointError::NoAddress(self.subnet.trunc().to_string()))?,
        };
        self.used.insert(ip);
        Ok(ip)
    }

    /// Gives an address back.
    pub fn release(&mut self, ip: Ipv4Addr) {
        if ip != self.subnet.addr() {
            self.used.remove(&ip);
        }
    }

    fn usable(&self, ip: Ipv4Addr) -> bool {
        self.subnet.contains(&ip) && ip != self.subnet.network() && ip != self.subnet.broadcast()
    }

    /// Walks the used addresses, not the free ones: a /8 with ten containers takes ten steps.
    fn lowest(&self) -> Option<Ipv4Addr> {
        let mut candidate = u32::from(self.subnet.network()) + 1;
        for used in self.used.range(Ipv4Addr::from(candidate)..).map(|ip| u32::from(*ip)) {
            if used != candidate {
                break;
            }
            candidate += 1;
        }
        Some(Ipv4Addr::from(candidate)).filter(|ip| self.usable(*ip))
    }
}

/// The IPv6 address that goes with an IPv4 one: its place in its subnet, in the IPv6 subnet. So one table is enough.
pub fn matching_ipv6(ip: Ipv4Addr, subnet: Ipv4Net, subnet6: Ipv6Net) -> std::net::Ipv6Addr {
    let place = u32::from(ip) - u32::from(subnet.network());
    (u128::from(subnet6.network()) + u128::from(place)).into()
}

/// The networks that Docker chooses from for a bridge, in its order.
pub fn default_pools() -> impl Iterator<Item = Ipv4Net> {
    let class_b = (17..32).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let class_c = (0..16).map(|sixteenth| (Ipv4Addr::new(192, 168, sixteenth * 16, 0), 20));
    class_b.chain(class_c).filter_map(|(ip, prefix)| Ipv4Net::new(ip, prefix).ok())
}

/// The network with its first address where it has none of its own: the gateway.
pub fn with_gateway(net: Ipv4Net) -> Option<Ipv4Net> {
    if net.prefix_len() > 30 {
        return None;
    }
    let first = Ipv4Addr::from(u32::from(net.network()) + 1);
    if net.addr() == net.network() { Ipv4Net::new(first, net.prefix_len()).ok() } else { Some(net) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn the_lowest_free_address_is_taken_and_a_released_one_comes_back() {
        let mut addresses = Addresses::new("10.0.0.1/29".parse().expect("a network"));
        let taken: Vec<_> = (0..5).map(|_| addresses.take(None).expect("an address")).collect();
        assert_eq!(taken, [2, 3, 4, 5, 6].map(ip));
        assert!(matches!(addresses.take(None), Err(EndpointError::NoAddress(_))));
        addresses.release(ip(4));
        addresses.release(ip(1));
        assert_eq!(addresses.take(None).ok(), Some(ip(4)));
        assert!(addresses.take(None).is_err(), "the gateway is never given out");
    }

    #[test]
    fn a_wanted_address_must_be_of_the_subnet_and_free() {
        let mut addresses = Addresses::new("10.0.0.1/24".parse().expect("a network"));
        addresses.adopt(ip(9));
        assert!(matches!(addresses.take(Some(ip(9))), Err(EndpointError::AddressInUse(_))));
        for outside in [ip(0), ip(255), Ipv4Addr::new(10, 0, 1, 7)] {
            assert!(matches!(addresses.take(Some(outside)), Err(EndpointError::AddressOutside(_))));
        }
        assert_eq!(addresses.take(Some(ip(2))).ok(), Some(ip(2)));
        assert_eq!(addresses.take(None).ok(), Some(ip(3)));
    }

    #[test]
    fn the_ipv6_address_has_the_same_place_in_its_subnet() {
        let (subnet, subnet6) = ("10.0.0.1/16".parse().expect("v4"), "fd00:1::1/64".parse().expect("v6"));
        assert_eq!(matching_ipv6(Ipv4Addr::new(10, 0, 1, 2), subnet, subnet6).to_string(), "fd00:1::102");
    }

    #[test]
    fn a_bare_network_gets_its_first_address_as_the_gateway() {
        let gateway = |text: &str| with_gateway(text.parse().expect("a network")).map(|net| net.to_string());
        assert_eq!(gateway("172.17.0.0/16").as_deref(), Some("172.17.0.1/16"));
        assert_eq!(gateway("172.17.9.9/16").as_deref(), Some("172.17.9.9/16"));
        assert_eq!(gateway("172.17.0.0/31"), None);
    }
}
