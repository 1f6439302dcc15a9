//! What a bridge and the containers on it need, in the host's namespace and in theirs.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    firewall::{Guarded, Table, bridge_table},
    link::{Address, Link, LinkKind, LinkState, Peer, Route},
    mac::Mac,
    publish::Publication,
};

/// Name of the interface in a container, as Docker's.
pub const CONTAINER_LINK: &str = "eth0";

/// A bridge of this machine. The addresses are the bridge's own (the containers' gateways) with their networks' prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Interface name.
    pub name: String,
    /// IPv4 gateway and network.
    pub ipv4: Ipv4Net,
    /// IPv6 gateway and network, for a bridge with both.
    pub ipv6: Option<Ipv6Net>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// A container on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the pair's end that is a port of the bridge.
    pub host_link: String,
    /// Ethernet address of the container's end.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where the bridge has IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The bridge port sends frames back where they came from.
    pub hairpin: bool,
    /// Its published ports.
    pub publications: Vec<Publication>,
}

/// All that is ours in the host's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Name of our firewall table; no other program may use it.
    pub table: String,
    /// Interfaces between which nothing was forwarded before we turned forwarding on: so it stays.
    pub guarded: Guarded,
    /// The bridge.
    pub bridge: BridgeSpec,
    /// Containers on it, by any unique key.
    pub attachments: BTreeMap<String, Attachment>,
}

impl BridgeSpec {
    /// The bridge itself with its addresses.
    pub fn links(&self) -> LinkState {
        let mut state = LinkState::default();
        // without an address of its own a bridge takes its lowest port's, and changes it as ports come and go
        let mac = Some(Mac::of_ipv4(self.ipv4.addr()));
        let link = Link { mtu: Some(self.mtu), mac, ..Link::new(LinkKind::Bridge) };
        state.links.insert(self.name.clone(), link);
        for net in [Some(IpNet::V4(self.ipv4)), self.ipv6.map(IpNet::V6)].into_iter().flatten() {
            state.addresses.insert(Address { link: self.name.clone(), net });
        }
        state
    }

    /// The host's end of a container's pair.
    pub fn port_links(&self, attachment: &Attachment) -> LinkState {
        let link = Link {
            master: Some(self.name.clone()),
            mtu: Some(self.mtu),
            hairpin: attachment.hairpin,
            peer: Some(Peer { name: CONTAINER_LINK.to_owned(), mac: attachment.mac }),
            ..Link::new(LinkKind::Veth)
        };
        LinkState { links: BTreeMap::from([(attachment.host_link.clone(), link)]), ..LinkState::default() }
    }

    /// What the container's namespace holds.
    pub fn container_links(&self, attachment: &Attachment) -> LinkState {
        let mut state = isolated_links();
        state.links.insert(CONTAINER_LINK.to_owned(), Link::new(LinkKind::Given));
        let mut join = |own: IpNet, via, everywhere: IpNet| {
            let link = CONTAINER_LINK.to_owned();
            state.addresses.insert(Address { link: link.clone(), net: own });
            state.routes.insert(Route { destination: everywhere, via, link });
        };
        if let Ok(own) = Ipv4Net::new(attachment.ipv4, self.ipv4.prefix_len()) {
            join(own.into(), self.ipv4.addr().into(), Ipv4Net::default().into());
        }
        if let (Some(ip), Some(bridge)) = (attachment.ipv6, self.ipv6)
            && let Ok(own) = Ipv6Net::new(ip, bridge.prefix_len())
        {
            join(own.into(), bridge.addr().into(), Ipv6Net::default().into());
        }
        state
    }
}

impl HostSpec {
    /// Interfaces, addresses and routes.
    pub fn links(&self) -> LinkState {
        let mut state = self.bridge.links();
        for attachment in self.attachments.values() {
            state.merge(self.bridge.port_links(attachment));
        }
        state
    }

    /// The firewall.
    pub fn table(&self) -> Table {
        let publications = self.attachments.values().flat_map(|attachment| &attachment.publications);
        bridge_table(&self.table, &self.bridge, &self.guarded, publications)
    }
}

/// A namespace with nothing but loopback: the `none` network.
pub fn isolated_links() -> LinkState {
    LinkState { links: BTreeMap::from([("lo".to_owned(), Link::new(LinkKind::Given))]), ..LinkState::default() }
}
