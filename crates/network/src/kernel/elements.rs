//! Entries of firewall maps, in one transaction of one system call: no process is started to publish a port.

use shoal_rules::{Element, Protocol, TableChange, Value};

use crate::{
    error::KernelError,
    kernel::{
        attributes::{attribute, nested, string},
        socket::{Netlink, Request},
    },
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const TABLE_NAME: u16 = 1;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
/// `NFPROTO_INET`.
const INET: u8 = 1;

/// Applies the changes to the maps of `table`, all or none. Changes of the table itself are not for here.
pub fn apply(socket: &Netlink, table: &str, changes: &[TableChange]) -> Result<(), KernelError> {
    let mut requests = vec![bracket(BATCH_BEGIN)];
    requests.extend(changes.iter().filter_map(|change| element_request(table, change)));
    requests.push(bracket(BATCH_END));
    socket.exchange(&requests).map(drop)
}

/// Whether the table is there.
pub fn has_table(socket: &Netlink, table: &str) -> Result<bool, KernelError> {
    let payload = [family_header(INET, 0), string(TABLE_NAME, table)].concat();
    match socket.exchange(&[Request::new(format!("find firewall table {table}"), GET_TABLE, 0, payload)]) {
        Ok(_) => Ok(true),
        Err(KernelError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn bracket(kind: u16) -> Request {
    let payload = family_header(0, SUBSYSTEM);
    Request { answered: false, ..Request::new("change the firewall", kind, 0, payload) }
}

/// `struct nfgenmsg`: family, version, and a number in network order.
pub fn family_header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

fn element_request(table: &str, change: &TableChange) -> Option<Request> {
    let (verb, kind, flags, map, parts) = match change {
        TableChange::AddElement { map, element } => {
            ("publish", NEW_ELEMENT, libc::NLM_F_CREATE | libc::NLM_F_EXCL, map, key_and_data(element))
        }
        TableChange::DeleteElement { map, element } => {
            ("unpublish", DELETE_ELEMENT, 0, map, vec![data(ELEMENT_KEY, &element.key)])
        }
        TableChange::Replace(_) | TableChange::Delete(_) => return None,
    };
    let mut payload = family_header(INET, 0);
    payload.extend(string(LIST_TABLE, table));
    payload.extend(string(LIST_SET, map));
    payload.extend(nested(LIST_ELEMENTS, &[nested(LIST_ITEM, &parts)]));
    Some(Request::new(format!("{verb} in firewall map {map}"), kind, flags, payload))
}

fn key_and_data(element: &Element) -> Vec<Vec<u8>> {
    vec![data(ELEMENT_KEY, &element.key), data(ELEMENT_DATA, &element.data)]
}

fn data(kind: u16, values: &[Value]) -> Vec<u8> {
    nested(kind, &[attribute(DATA_VALUE, &registers(values))])
}

/// Each part of a key or value fills whole registers of four bytes.
fn registers(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            Value::Ipv4(ip) => bytes.extend(ip.octets()),
            Value::Ipv6(ip) => bytes.extend(ip.octets()),
            Value::Protocol(protocol) => bytes.push(Protocol::number(*protocol)),
            Value::Port(port) => bytes.extend(port.to_be_bytes()),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
