//! The switch, the nodes' namespaces and the cables between them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};
use shoal_network::{Mac, Namespace, unmount_namespace};
use shoal_rules::{Address, Change, Link, LinkKind, Peer};

use crate::error::LabError;
use crate::record::{Lab, Node};

/// The bridge, in the switch's namespace.
const SWITCH: &str = "switch";
/// A node's only interface.
const INTERFACE: &str = "eth0";

/// Makes the switch, and each node's namespace with its cable.
pub fn make(lab: &Lab) -> Result<(), LabError> {
    if let Some(directory) = lab.switch().parent() {
        fs::create_dir_all(directory).map_err(LabError::file(directory))?;
    }
    let switch = Namespace::make(true)?;
    switch.mount(&lab.switch())?;
    switch.apply(&[bring_up("lo"), add(SWITCH, Link::new(LinkKind::Bridge))], None)?;
    for node in &lab.nodes {
        let namespace = Namespace::make(true)?;
        namespace.mount(&lab.namespace(node.number))?;
        switch.apply(&[add(&port(node), cable(node))], Some(&namespace))?;
        let net = Ipv4Net::new(node.address, lab.subnet.prefix_len()).expect("the subnet's own prefix length");
        let address = Address { link: INTERFACE.to_owned(), net: IpNet::V4(net) };
        namespace.apply(&[bring_up("lo"), bring_up(INTERFACE), Change::AddAddress(address)], None)?;
    }
    Ok(())
}

/// Removes all of it; what is not there is no error.
pub fn remove(lab: &Lab) -> Result<(), LabError> {
    for node in &lab.nodes {
        unmount_namespace(&lab.namespace(node.number))?;
    }
    Ok(unmount_namespace(&lab.switch())?)
}

/// Takes the switch's end of the node's cable down.
pub fn cut(lab: &Lab, node: &Node) -> Result<(), LabError> {
    Ok(Namespace::enter(&lab.switch())?.take_down(&port(node))?)
}

/// Brings the switch's end of the node's cable up.
pub fn mend(lab: &Lab, node: &Node) -> Result<(), LabError> {
    Ok(Namespace::enter(&lab.switch())?.apply(&[bring_up(&port(node))], None)?)
}

/// The numbers of the nodes whose cable is in.
pub fn connected(lab: &Lab) -> Result<BTreeSet<u32>, LabError> {
    let up = Namespace::enter(&lab.switch())?.links_up()?;
    Ok(lab.nodes.iter().filter(|node| up.contains(&port(node))).map(|node| node.number).collect())
}

/// Whether it is there at all.
pub fn is_made(path: &Path) -> bool {
    shoal_network::is_namespace(path)
}

fn port(node: &Node) -> String {
    format!("n{}", node.number)
}

fn cable(node: &Node) -> Link {
    let mut link = Link::new(LinkKind::Veth);
    link.master = Some(SWITCH.to_owned());
    link.peer = Some(Peer { name: INTERFACE.to_owned(), mac: Mac::of_ipv4(node.address) });
    link
}

fn add(name: &str, link: Link) -> Change {
    Change::AddLink { name: name.to_owned(), link }
}

fn bring_up(name: &str) -> Change {
    add(name, Link::new(LinkKind::Given))
}
