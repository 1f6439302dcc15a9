//! The text form of firewall changes, for `nft -f -`.

use std::fmt::Write;

use crate::{
    diff::TableChange,
    firewall::{Chain, Element, Map, Table, Value, ValueKind},
};

/// One transaction of nftables' language. `table` is the table whose elements change.
pub fn script(table: &str, changes: &[TableChange]) -> String {
    let mut text = String::new();
    for change in changes {
        let written = match change {
            // "add" first makes the deletion valid where there is no such table yet
            TableChange::Replace(new) => {
                let name = &new.name;
                write!(text, "add table inet {name}\ndelete table inet {name}\n{}", table_text(new))
            }
            TableChange::Delete(name) => writeln!(text, "add table inet {name}\ndelete table inet {name}"),
            TableChange::AddElement { map, element } => {
                writeln!(text, "add element inet {table} {map} {{ {} }}", element_text(element))
            }
            TableChange::DeleteElement { map, element } => {
                writeln!(text, "delete element inet {table} {map} {{ {} }}", values_text(&element.key))
            }
        };
        written.expect("a String takes all that is written to it");
    }
    text
}

/// The table as `nft list table` would show it.
pub fn table_text(table: &Table) -> String {
    let maps = table.maps.iter().map(|(name, map)| map_text(name, map));
    let chains = table.chains.iter().map(|(name, chain)| chain_text(name, chain));
    format!("table inet {} {{\n{}}}\n", table.name, maps.chain(chains).collect::<String>())
}

fn map_text(name: &str, map: &Map) -> String {
    let kinds = |kinds: &[ValueKind]| kinds.iter().map(|kind| kind_name(*kind)).collect::<Vec<_>>().join(" . ");
    let mut text = format!("\tmap {name} {{\n\t\ttype {} : {}\n", kinds(map.key), kinds(map.data));
    let elements: Vec<_> = map
        .elements
        .iter()
        .map(|(key, data)| element_text(&Element { key: key.clone(), data: data.clone() }))
        .collect();
    if !elements.is_empty() {
        text += &format!("\t\telements = {{ {} }}\n", elements.join(",\n\t\t\t"));
    }
    text + "\t}\n"
}

fn chain_text(name: &str, chain: &Chain) -> String {
    let mut text = format!("\tchain {name} {{\n");
    if let Some(hook) = chain.hook {
        text += &format!("\t\ttype {} hook {} priority {}; policy accept;\n", hook.kind, hook.point, hook.priority);
    }
    for rule in &chain.rules {
        text += &format!("\t\t{rule}\n");
    }
    text + "\t}\n"
}

fn element_text(element: &Element) -> String {
    format!("{} : {}", values_text(&element.key), values_text(&element.data))
}

fn values_text(values: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::Ipv4(ip) => ip.to_string(),
        Value::Ipv6(ip) => ip.to_string(),
        Value::Protocol(protocol) => protocol.to_string(),
        Value::Port(port) => port.to_string(),
    };
    values.iter().map(text).collect::<Vec<_>>().join(" . ")
}

fn kind_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Ipv4 => "ipv4_addr",
        ValueKind::Ipv6 => "ipv6_addr",
        ValueKind::Protocol => "inet_proto",
        ValueKind::Port => "inet_service",
    }
}
