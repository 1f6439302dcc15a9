//! The firewall of a machine: one nftables table of the `inet` family with everything of ours in it.
//!
//! The rules depend on the bridge alone; published ports are elements of maps. So publishing a port changes one
//! element, whatever the number of ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use crate::{
    bridge::BridgeSpec,
    publish::{Protocol, Publication},
};

/// A table of the `inet` family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Maps by name.
    pub maps: BTreeMap<String, Map>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// Interfaces between which nothing was forwarded before we turned forwarding on. So it stays: a machine does not become
/// a router for its neighbours by running containers. Interfaces that come later are not concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// For IPv4.
    pub ipv4: BTreeSet<String>,
    /// For IPv6.
    pub ipv6: BTreeSet<String>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain that others jump to.
    pub hook: Option<Hook>,
    /// Rules in nftables' own language, in order.
    pub rules: Vec<String>,
}

/// Where the kernel calls a chain. Packets that no rule decides are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `prerouting`, `forward`, `output`, `postrouting`.
    pub point: &'static str,
    /// Order among the chains of one point; lower is earlier.
    pub priority: i32,
}

/// A map from values to values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Kinds of a key's parts.
    pub key: &'static [ValueKind],
    /// Kinds of a value's parts.
    pub data: &'static [ValueKind],
    /// What it holds.
    pub elements: BTreeMap<Vec<Value>, Vec<Value>>,
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Looked up.
    pub key: Vec<Value>,
    /// Found.
    pub data: Vec<Value>,
}

/// The type of one part of a key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Transport protocol.
    Protocol,
    /// Port.
    Port,
}

/// One part of a key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// IPv4 address.
    Ipv4(Ipv4Addr),
    /// IPv6 address.
    Ipv6(Ipv6Addr),
    /// Transport protocol.
    Protocol(Protocol),
    /// Port.
    Port(u16),
}

const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

impl Table {
    /// The same table with no elements in its maps: what only a new bridge configuration changes.
    pub fn skeleton(&self) -> Self {
        let mut table = self.clone();
        table.maps.values_mut().for_each(|map| map.elements.clear());
        table
    }
}

impl From<IpAddr> for Value {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::Ipv4(ip),
            IpAddr::V6(ip) => Self::Ipv6(ip),
        }
    }
}

impl Value {
    /// The value's type.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::Ipv4(_) => ValueKind::Ipv4,
            Self::Ipv6(_) => ValueKind::Ipv6,
            Self::Protocol(_) => ValueKind::Protocol,
            Self::Port(_) => ValueKind::Port,
        }
    }
}

/// The table for a bridge and the published ports of its containers. Publications that address translation cannot
/// serve (IPv6 to IPv4) are left out: those are proxied.
pub fn bridge_table<'a>(
    name: &str,
    bridge: &BridgeSpec,
    guarded: &Guarded,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Table {
    let mut maps = publication_maps();
    for publication in publications.into_iter().filter(|publication| publication.is_translatable()) {
        let (map, element) = publication_element(publication);
        if let Some(map) = maps.get_mut(map) {
            map.elements.insert(element.key, element.data);
        }
    }
    let hook = |kind, point, priority| Some(Hook { kind, point, priority });
    let publish = || vec!["jump publish".to_owned()];
    let chains = [
        ("publish", None, publish_rules()),
        ("raw-prerouting", hook("filter", "prerouting", RAW), raw_rules()),
        ("prerouting", hook("nat", "prerouting", DSTNAT), publish()),
        ("output", hook("nat", "output", DSTNAT), publish()),
        ("postrouting", hook("nat", "postrouting", SRCNAT), masquerade_rules(bridge)),
        ("forward", hook("filter", "forward", FILTER), forward_rules(bridge, guarded)),
    ];
    Table {
        name: name.to_owned(),
        maps,
        chains: chains.into_iter().map(|(name, hook, rules)| (name.to_owned(), Chain { hook, rules })).collect(),
    }
}

/// The map that a publication belongs to and its element there.
pub fn publication_element(publication: &Publication) -> (&'static str, Element) {
    let v4 = publication.host.is_ipv4();
    let map = match (publication.is_any(), v4) {
        (true, true) => "any4",
        (true, false) => "any6",
        (false, true) => "one4",
        (false, false) => "one6",
    };
    let service = [Value::Protocol(publication.protocol), Value::Port(publication.host.port())];
    let address = (!publication.is_any()).then(|| Value::from(publication.host.ip()));
    let key = address.into_iter().chain(service).collect();
    let data = vec![publication.container.ip().into(), Value::Port(publication.container.port())];
    (map, Element { key, data })
}

fn publication_maps() -> BTreeMap<String, Map> {
    use ValueKind::{Ipv4, Ipv6, Port, Protocol};
    let maps: [(&str, &'static [ValueKind], &'static [ValueKind]); 4] = [
        ("any4", &[Protocol, Port], &[Ipv4, Port]),
        ("any6", &[Protocol, Port], &[Ipv6, Port]),
        ("one4", &[Ipv4, Protocol, Port], &[Ipv4, Port]),
        ("one6", &[Ipv6, Protocol, Port], &[Ipv6, Port]),
    ];
    let empty = |(name, key, data): (&str, _, _)| (name.to_owned(), Map { key, data, elements: BTreeMap::new() });
    maps.into_iter().map(empty).collect()
}

/// New connections to a published port of this machine; an address named by the user comes before "any".
fn publish_rules() -> Vec<String> {
    let rules = [
        "dnat ip to ip daddr . meta l4proto . th dport map @one4",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6",
        "meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any4",
        "ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @any6",
    ];
    rules.map(str::to_owned).to_vec()
}

/// The bridge routes loopback addresses (so that the host's own `127.0.0.1:PORT` reaches containers), and translation
/// comes before the kernel's own check: without this a neighbour on any wire could send to ports published on loopback.
fn raw_rules() -> Vec<String> {
    let rules = [r#"iifname != "lo" ip daddr 127.0.0.0/8 drop"#, r#"iifname != "lo" ip6 daddr ::1 drop"#];
    rules.map(str::to_owned).to_vec()
}

/// Containers leave with the host's address; so do the host's loopback and containers that reach a neighbour, or
/// themselves, through a published port: their answers must come back through us.
fn masquerade_rules(bridge: &BridgeSpec) -> Vec<String> {
    let name = &bridge.name;
    let mut rules = vec![format!(r#"oifname "{name}" ip saddr 127.0.0.0/8 masquerade"#)];
    let nets = [Some(("ip", bridge.ipv4.trunc().to_string())), bridge.ipv6.map(|net| ("ip6", net.trunc().to_string()))];
    for (family, net) in nets.into_iter().flatten() {
        rules.push(format!(r#"oifname != "{name}" {family} saddr {net} masquerade"#));
        rules.push(format!(r#"oifname "{name}" {family} saddr {net} ct status dnat masquerade"#));
    }
    rules
}

/// Into the bridge: answers, its own containers, and what came through a published port; nothing else, so a neighbour
/// that routes through this machine does not reach ports that were not published.
fn forward_rules(bridge: &BridgeSpec, guarded: &Guarded) -> Vec<String> {
    let name = &bridge.name;
    let mut rules = vec![
        format!(r#"iifname "{name}" accept"#),
        format!(r#"oifname "{name}" ct state established,related accept"#),
        format!(r#"oifname "{name}" ct status dnat accept"#),
        format!(r#"oifname "{name}" drop"#),
    ];
    for (family, links) in [("ipv4", &guarded.ipv4), ("ipv6", &guarded.ipv6)] {
        if !links.is_empty() {
            let names = links.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            rules.push(format!("meta nfproto {family} iifname {{ {names} }} oifname {{ {names} }} drop"));
        }
    }
    rules
}
