//! The difference between two states, as changes in the order in which the kernel takes them.

use crate::{
    firewall::{Element, Table},
    link::{Address, Link, LinkState, Route},
};

/// One change of interfaces, addresses or routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it, with all its properties, up. One that is [given](crate::LinkKind::Given) is brought up.
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
    /// Remove it with its addresses, routes and peer.
    DeleteLink {
        /// Its name.
        name: String,
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

/// What turns `from` into `to`. Empty when `from` is all that `to` asks for.
pub fn plan_links(from: &LinkState, to: &LinkState) -> Vec<Change> {
    let kind = |state: &LinkState, name: &str| state.links.get(name).map(|link| link.kind);
    // what is on an interface that goes, or is made again as another kind, goes with it
    let goes = |name: &str| kind(from, name).is_some() && kind(from, name) != kind(to, name);
    let kept_route = |route: &&Route| from.routes.contains(*route) && !goes(&route.link);
    let kept_address = |address: &&Address| from.addresses.contains(*address) && !goes(&address.link);
    let mut changes = Vec::new();
    let routes = from.routes.iter().filter(|route| !to.routes.contains(*route) && !goes(&route.link));
    changes.extend(routes.cloned().map(Change::DeleteRoute));
    let addresses = from.addresses.iter().filter(|address| !to.addresses.contains(*address) && !goes(&address.link));
    changes.extend(addresses.cloned().map(Change::DeleteAddress));
    let gone = bridges_first(from).filter(|(name, _)| goes(name)).rev();
    changes.extend(gone.map(|(name, _)| Change::DeleteLink { name }));
    for (name, link) in bridges_first(to) {
        match from.links.get(&name) {
            Some(old) if old.satisfies(&link) => {}
            Some(_) if !goes(&name) => changes.push(Change::SetLink { name, link }),
            _ => changes.push(Change::AddLink { name, link }),
        }
    }
    changes.extend(to.addresses.iter().filter(|a| !kept_address(a)).cloned().map(Change::AddAddress));
    changes.extend(to.routes.iter().filter(|r| !kept_route(r)).cloned().map(Change::AddRoute));
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
fn bridges_first(state: &LinkState) -> impl DoubleEndedIterator<Item = (String, Link)> {
    let mut links: Vec<_> = state.links.iter().map(|(name, link)| (name.clone(), link.clone())).collect();
    links.sort_by_key(|(_, link)| link.master.is_some());
    links.into_iter()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
