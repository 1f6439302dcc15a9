//! The difference between two states, as changes in the order in which the kernel takes them.

use crate::{
    firewall::{Element, Table},
    link::{Address, Link, LinkKind, LinkState, Route},
};

/// One change of interfaces, addresses or routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it, with all its properties, up. What the kernel makes itself (loopback, a pair's other end) is brought up.
    AddLink {
        /// Its name.
        name: String,
        /// What it is.
        link: Link,
    },
    /// It exists; give it these properties.
    SetLink {
        /// Its name.
        name: String,
        /// What it is to be.
        link: Link,
    },
    /// Remove it, its addresses and its routes.
    DeleteLink {
        /// Its name.
        name: String,
        /// What it was.
        link: Link,
    },
    /// Add an address.
    AddAddress(Address),
    /// Remove an address.
    DeleteAddress(Address),
    /// Add a route.
    AddRoute(Route),
    /// Remove a route.
    DeleteRoute(Route),
}

/// One change of the firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// Put this table in the place of whatever has its name, in one transaction: no packet meets half of it.
    Replace(Table),
    /// Remove the table of this name.
    Delete(String),
    /// Add an entry to a map.
    AddElement {
        /// The map.
        map: String,
        /// The entry.
        element: Element,
    },
    /// Remove an entry from a map.
    DeleteElement {
        /// The map.
        map: String,
        /// The entry.
        element: Element,
    },
}

/// What turns `from` into `to`. Empty when they are equal.
pub fn plan_links(from: &LinkState, to: &LinkState) -> Vec<Change> {
    let remade = |name: &str| match (from.links.get(name), to.links.get(name)) {
        (Some(old), Some(new)) => old.kind != new.kind,
        (old, new) => old.is_some() != new.is_some(),
    };
    let mut changes = Vec::new();
    changes.extend(from.routes.difference(&to.routes).cloned().map(Change::DeleteRoute));
    changes.extend(from.addresses.difference(&to.addresses).cloned().map(Change::DeleteAddress));
    let gone = from.links.iter().filter(|(name, _)| remade(name));
    changes.extend(ports_last(gone).rev().map(|(name, link)| Change::DeleteLink { name, link }));
    for (name, link) in ports_last(to.links.iter()) {
        match from.links.get(&name) {
            Some(old) if *old == link => {}
            Some(_) if !remade(&name) => changes.push(Change::SetLink { name, link }),
            _ => changes.push(Change::AddLink { name, link }),
        }
    }
    // an interface that was made again has lost its addresses and routes
    let missing = |link: &str, had: bool| !had || (remade(link) && from.links.contains_key(link));
    let addresses = to.addresses.iter().filter(|a| missing(&a.link, from.addresses.contains(a)));
    changes.extend(addresses.cloned().map(Change::AddAddress));
    let routes = to.routes.iter().filter(|r| missing(&r.link, from.routes.contains(r)));
    changes.extend(routes.cloned().map(Change::AddRoute));
    changes
}

/// What turns `from` into `to`. Entries of maps change one by one; anything else replaces the table.
pub fn plan_table(from: Option<&Table>, to: Option<&Table>) -> Vec<TableChange> {
    match (from, to) {
        (None, None) => Vec::new(),
        (Some(old), None) => vec![TableChange::Delete(old.name.clone())],
        (Some(old), Some(new)) if old.skeleton() == new.skeleton() => plan_elements(old, new),
        (Some(old), Some(new)) if old.name != new.name => {
            vec![TableChange::Delete(old.name.clone()), TableChange::Replace(new.clone())]
        }
        (_, Some(new)) => vec![TableChange::Replace(new.clone())],
    }
}

/// All removals before all additions, since a key may be in both.
fn plan_elements(from: &Table, to: &Table) -> Vec<TableChange> {
    let lacking = |from: &Table, to: &Table| {
        let mut found = Vec::new();
        for (map, wanted) in &to.maps {
            for (key, data) in &wanted.elements {
                if from.maps.get(map).and_then(|map| map.elements.get(key)) != Some(data) {
                    found.push((map.clone(), Element { key: key.clone(), data: data.clone() }));
                }
            }
        }
        found
    };
    let removed = lacking(to, from).into_iter().map(|(map, element)| TableChange::DeleteElement { map, element });
    let added = lacking(from, to).into_iter().map(|(map, element)| TableChange::AddElement { map, element });
    removed.chain(added).collect()
}

/// Bridges before the ports that name them as their master.
fn ports_last<'a>(
    links: impl Iterator<Item = (&'a String, &'a Link)>,
) -> impl DoubleEndedIterator<Item = (String, Link)> {
    let mut links: Vec<_> = links.map(|(name, link)| (name.clone(), link.clone())).collect();
    links.sort_by_key(|(_, link)| (link.master.is_some(), matches!(link.kind, LinkKind::VethPeer)));
    links.into_iter()
}
