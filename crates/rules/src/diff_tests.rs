use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use proptest::{collection, prelude::*};

use super::*;
use crate::{
    bridge::{Attachment, BridgeSpec, HostSpec},
    firewall::{Guarded, Map},
    link::LinkKind,
    mac::Mac,
    nft,
    publish::{Protocol, Publication},
};

/// What a kernel does with a change; it refuses what a kernel refuses.
fn apply_link(state: &mut LinkState, change: &Change) {
    match change {
        Change::AddLink { name, link } => {
            let master = link.master.as_ref().is_none_or(|master| state.links.contains_key(master));
            assert!(master, "{name} is made before its master");
            assert!(state.links.insert(name.clone(), link.clone()).is_none(), "{name} exists");
        }
        Change::SetLink { name, link } => {
            let old = state.links.insert(name.clone(), link.clone()).expect("a link that exists");
            assert_eq!(old.kind, link.kind, "the kind of {name} cannot change");
        }
        Change::DeleteLink { name } => {
            assert!(state.links.remove(name).is_some(), "{name} does not exist");
            state.addresses.retain(|address| address.link != *name);
            state.routes.retain(|route| route.link != *name);
            for link in state.links.values_mut().filter(|link| link.master.as_ref() == Some(name)) {
                link.master = None;
            }
        }
        Change::AddAddress(address) => {
            assert!(state.links.contains_key(&address.link));
            assert!(state.addresses.insert(address.clone()));
        }
        Change::DeleteAddress(address) => assert!(state.addresses.remove(address)),
        Change::AddRoute(route) => {
            assert!(state.links.contains_key(&route.link));
            assert!(state.routes.insert(route.clone()));
        }
        Change::DeleteRoute(route) => assert!(state.routes.remove(route)),
    }
}

fn apply_table(state: &mut Option<Table>, change: &TableChange) {
    match change {
        TableChange::Replace(table) => *state = Some(table.clone()),
        TableChange::Delete(name) => assert_eq!(state.take().expect("a table").name, *name),
        TableChange::AddElement { map, element } => {
            let map = map_of(state, map);
            assert!(map.elements.insert(element.key.clone(), element.data.clone()).is_none());
        }
        TableChange::DeleteElement { map, element } => {
            let map = map_of(state, map);
            assert_eq!(map.elements.remove(&element.key).as_ref(), Some(&element.data));
        }
    }
}

fn map_of<'a>(state: &'a mut Option<Table>, map: &str) -> &'a mut Map {
    state.as_mut().expect("a table").maps.get_mut(map).expect("a map")
}

/// Few names and addresses, so that two states often share some and disagree on others.
fn link_states() -> impl Strategy<Value = LinkState> {
    let bridges = collection::btree_map("b[01]", proptest::option::of(1400..1402u32), 0..3);
    let ports = collection::btree_map("v[0-3]", (any::<bool>(), 0..3usize, any::<bool>()), 0..4);
    let places = collection::btree_set(("[bv][0-3]", 0..4u8), 0..6);
    (bridges, ports, places.clone(), places).prop_map(|(bridges, ports, addresses, routes)| {
        let mut state = LinkState::default();
        for (name, mtu) in bridges {
            state.links.insert(name, Link { mtu, ..Link::new(LinkKind::Bridge) });
        }
        for (name, (veth, master, hairpin)) in ports {
            let kind = if veth { LinkKind::Veth } else { LinkKind::Given };
            let master = state.links.keys().filter(|name| name.starts_with('b')).nth(master).cloned();
            state.links.insert(name, Link { master, hairpin, ..Link::new(kind) });
        }
        let there = |link: &String| state.links.contains_key(link);
        let ip = |last| Ipv4Addr::new(10, 0, 0, last);
        let net = |last| IpNet::V4(Ipv4Net::new(ip(last), 24).expect("a prefix below 33"));
        let addresses = addresses.into_iter().filter(|(link, _)| there(link));
        let addresses: BTreeSet<_> = addresses.map(|(link, last)| Address { link, net: net(last) }).collect();
        let routes = routes.into_iter().filter(|(link, _)| there(link));
        let route = |(link, last)| Route { destination: net(last), via: IpAddr::V4(ip(9)), link };
        let routes: BTreeSet<_> = routes.map(route).collect();
        LinkState { addresses, routes, ..state }
    })
}

fn publications() -> impl Strategy<Value = Publication> {
    let protocols = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let hosts = prop_oneof![Just("0.0.0.0"), Just("127.0.0.1"), Just("::"), Just("fd00::1")];
    (protocols, hosts, 80..83u16, 80..82u16).prop_map(|(protocol, host, port, target)| {
        let ip: IpAddr = host.parse().expect("an address");
        let container = if ip.is_ipv4() { "172.17.0.2" } else { "fd17::2" };
        let container = (container.parse::<IpAddr>().expect("an address"), target).into();
        Publication { protocol, host: (ip, port).into(), container }
    })
}

fn hosts() -> impl Strategy<Value = HostSpec> {
    let attachment = (any::<u8>(), collection::vec(publications(), 0..4));
    let attachments = collection::btree_map("[ab]", attachment, 0..3);
    (attachments, any::<bool>()).prop_map(|(attachments, guarded)| HostSpec {
        table: "shoal0".to_owned(),
        guarded: Guarded { ipv4: guarded.then(|| "eth0".to_owned()).into_iter().collect(), ..Guarded::default() },
        bridge: bridge(),
        attachments: attachments.into_iter().map(|(key, (last, ports))| (key, attachment_of(last, ports))).collect(),
    })
}

fn bridge() -> BridgeSpec {
    let ipv4 = "172.17.0.1/16".parse().expect("a network");
    BridgeSpec { name: "shoal0".to_owned(), ipv4, ipv6: None, mtu: 1500 }
}

fn attachment_of(last: u8, publications: Vec<Publication>) -> Attachment {
    let ipv4 = Ipv4Addr::new(172, 17, 1, last);
    let (mac, host_link) = (Mac::of_ipv4(ipv4), format!("shv{last}"));
    Attachment { host_link, mac, ipv4, ipv6: None, hairpin: false, publications }
}

proptest! {
    #[test]
    fn applying_the_difference_of_links_gives_the_target(from in link_states(), to in link_states()) {
        let mut state = from.clone();
        for change in plan_links(&from, &to) {
            apply_link(&mut state, &change);
        }
        prop_assert_eq!(plan_links(&state, &to), vec![]);
        prop_assert_eq!(state.addresses, to.addresses);
        prop_assert_eq!(state.routes, to.routes);
        prop_assert_eq!(state.links.keys().collect::<Vec<_>>(), to.links.keys().collect::<Vec<_>>());
    }

    #[test]
    fn applying_the_difference_of_tables_gives_the_target(from in hosts(), to in hosts()) {
        let (from, to) = (from.table(), to.table());
        let mut state = Some(from.clone());
        for change in plan_table(Some(&from), Some(&to)) {
            apply_table(&mut state, &change);
        }
        prop_assert_eq!(state, Some(to));
    }

    #[test]
    fn nothing_changed_is_no_difference(host in hosts()) {
        prop_assert_eq!(plan_links(&host.links(), &host.links()), vec![]);
        prop_assert_eq!(plan_table(Some(&host.table()), Some(&host.table())), vec![]);
    }
}

#[test]
fn publishing_a_port_adds_one_element_and_nothing_else() {
    let host = |ports| {
        let attachments = BTreeMap::from([("a".to_owned(), attachment_of(2, ports))]);
        HostSpec { table: "shoal0".to_owned(), guarded: Guarded::default(), bridge: bridge(), attachments }
    };
    let port = Publication {
        protocol: Protocol::Udp,
        host: "127.0.0.1:53".parse().expect("an address"),
        container: "172.17.1.2:5353".parse().expect("an address"),
    };
    let (without, with) = (host(vec![]).table(), host(vec![port]).table());
    let added = plan_table(Some(&without), Some(&with));
    let text = nft::script("shoal0", &added);
    assert_eq!(text, "add element inet shoal0 one4 { 127.0.0.1 . udp . 53 : 172.17.1.2 . 5353 }\n");
    let removed = plan_table(Some(&with), Some(&without));
    assert_eq!(nft::script("shoal0", &removed), "delete element inet shoal0 one4 { 127.0.0.1 . udp . 53 }\n");
}

#[test]
fn a_replaced_bridge_comes_before_its_ports_and_gets_its_address_again() {
    let host = HostSpec {
        table: "shoal0".to_owned(),
        guarded: Guarded::default(),
        bridge: bridge(),
        attachments: BTreeMap::from([("a".to_owned(), attachment_of(2, vec![]))]),
    };
    let changes = plan_links(&LinkState::default(), &host.links());
    let name = |change: &Change| match change {
        Change::AddLink { name, .. } => name.clone(),
        Change::AddAddress(address) => address.net.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(changes.iter().map(name).collect::<Vec<_>>(), ["shoal0", "shv2", "172.17.0.1/16"]);
}
