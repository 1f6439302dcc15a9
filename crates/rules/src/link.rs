//! Interfaces, addresses and routes of one network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::mac::Mac;

/// The interfaces, addresses and routes of one namespace that are ours, or a part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Interfaces by name.
    pub links: BTreeMap<String, Link>,
    /// Addresses on them.
    pub addresses: BTreeSet<Address>,
    /// Routes through them.
    pub routes: BTreeSet<Route>,
}

/// One interface, up. `None` leaves the choice to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// A port sends frames back out where they came in. Wanted where the host lets bridged frames pass its IP rules.
    pub hairpin: bool,
    /// The pair's other end, which is in another namespace, made with this one and gone with it.
    pub peer: Option<Peer>,
}

/// The other end of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Loopback, or the other end of a pair: it is there, we bring it up.
    Given,
    /// A bridge.
    Bridge,
    /// One end of a pair.
    Veth,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub link: String,
    /// The address and the length of its network's prefix.
    pub net: IpNet,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Next hop.
    pub via: IpAddr,
    /// The interface.
    pub link: String,
}

impl LinkState {
    /// Adds what `other` holds.
    pub fn merge(&mut self, other: Self) {
        self.links.extend(other.links);
        self.addresses.extend(other.addresses);
        self.routes.extend(other.routes);
    }
}

impl Link {
    /// An interface of this kind with nothing else asked of it.
    pub fn new(kind: LinkKind) -> Self {
        Self { kind, master: None, mtu: None, mac: None, hairpin: false, peer: None }
    }

    /// Whether this one, as it is, is all that `wanted` asks for. A peer cannot be seen from here and is not compared.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        self.kind == wanted.kind
            && self.master == wanted.master
            && self.hairpin == wanted.hairpin
            && (wanted.mtu.is_none() || self.mtu == wanted.mtu)
            && (wanted.mac.is_none() || self.mac == wanted.mac)
    }
}
