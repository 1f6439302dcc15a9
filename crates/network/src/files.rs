//! `/etc/hosts` and `/etc/resolv.conf` of a container, as text computed from text.
//!
//! Leaves to the engine: reading the host's files, writing and mounting the container's.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::endpoint::{Endpoint, NetworkMode};

/// Options `--dns`, `--dns-search`, `--dns-opt`; an empty list leaves the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsOptions {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; a single `.` means none.
    pub search: Vec<String>,
    /// Resolver options such as `ndots:2`.
    pub options: Vec<String>,
}

/// Option `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; `None` is `host-gateway`, the host as the container sees it.
    pub ip: Option<IpAddr>,
}

/// Path of the file with systemd-resolved's real servers, which Docker reads when the host's own file names only the
/// local stub.
pub const RESOLVED_FILE: &str = "/run/systemd/resolve/resolv.conf";

const STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const FALLBACK4: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];
const FALLBACK6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844),
];

const LOCALHOST: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// Reads `NAME:IP` or `NAME=IP`; the address may be in brackets, or `host-gateway`. The error is Docker's sentence.
pub fn parse_extra_host(text: &str) -> Result<ExtraHost, String> {
    let separator = text.find(['=', ':']).filter(|at| *at > 0);
    let Some((name, address)) = separator.map(|at| (&text[..at], &text[at + 1..])) else {
        return Err(format!("bad format for add-host: \"{text}\""));
    };
    if address == "host-gateway" {
        return Ok(ExtraHost { name: name.to_owned(), ip: None });
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse() {
        Ok(ip) => Ok(ExtraHost { name: name.to_owned(), ip: Some(ip) }),
        Err(_) => Err(format!("invalid IP address in add-host: \"{address}\"")),
    }
}

/// The hosts file. On the host's network it is the host's own (`host`) and the extra ones; elsewhere the loopback
/// names, the extra ones, and the container's own addresses under `hostname` (with its domain first, if it has one).
/// `gateway` is what `host-gateway` stands for; an extra host that needs it where there is none is an error.
pub fn hosts_file(
    host: &str,
    endpoint: &Endpoint,
    hostname: &str,
    domain: &str,
    extra: &[ExtraHost],
    gateway: Option<IpAddr>,
) -> Result<String, String> {
    let mut text = match endpoint.mode {
        NetworkMode::Host => host.to_owned(),
        _ => LOCALHOST.to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for ExtraHost { name, ip } in extra {
        let ip = ip.or(gateway).ok_or("unable to derive the IP value for host-gateway")?;
        text += &format!("{ip}\t{name}\n");
    }
    let names = match domain {
        "" => hostname.to_owned(),
        _ => format!("{hostname}.{domain} {hostname}"),
    };
    if let Some(place) = &endpoint.bridge {
        for ip in [Some(IpAddr::V4(place.ipv4)), place.ipv6.map(IpAddr::V6)].into_iter().flatten() {
            text += &format!("{ip}\t{names}\n");
        }
    }
    Ok(text)
}

/// Whether the host's resolver file names only the local stub, so that [`RESOLVED_FILE`] is to be read instead.
pub fn names_only_the_stub(host: &str) -> bool {
    let servers: Vec<_> = servers(host).collect();
    !servers.is_empty() && servers.iter().all(|server| *server == IpAddr::V4(STUB))
}

/// The resolver's configuration, from the host's. Without `--dns`, servers that a namespace of its own cannot reach
/// (loopback, and IPv6 where the container has none) are left out, and where none remain public ones are named, as
/// Docker does.
pub fn resolv_conf(host: &str, dns: &DnsOptions, endpoint: &Endpoint) -> String {
    let ipv6 = endpoint.bridge.as_ref().is_some_and(|place| place.ipv6.is_some());
    let shared = endpoint.mode == NetworkMode::Host;
    let reachable = |ip: &IpAddr| shared || (!ip.is_loopback() && (ipv6 || ip.is_ipv4()));
    let mut nameservers = dns.servers.clone();
    if nameservers.is_empty() {
        nameservers = servers(host).filter(reachable).collect();
        if nameservers.is_empty() && !shared {
            nameservers.extend(FALLBACK4.map(IpAddr::V4));
            nameservers.extend(FALLBACK6.map(IpAddr::V6).into_iter().filter(|_| ipv6));
        }
    }
    let search = chosen(&dns.search, last_words(host, &["search", "domain"]));
    let options = chosen(&dns.options, last_words(host, &["options"]));
    let mut text = String::new();
    for server in nameservers {
        writeln!(text, "nameserver {server}").expect("a String takes all that is written to it");
    }
    if !search.is_empty() && search != ["."] {
        text += &format!("search {}\n", search.join(" "));
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

fn chosen(ours: &[String], hosts: Vec<String>) -> Vec<String> {
    if ours.is_empty() { hosts } else { ours.to_vec() }
}

fn statements(host: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = host.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    lines.map(|line| line.split_whitespace().collect())
}

fn servers(host: &str) -> impl Iterator<Item = IpAddr> {
    statements(host).filter_map(|words| match words[..] {
        // an address may name the interface it is reached by: "fe80::1%eth0" means nothing in a container
        ["nameserver", ip, ..] => ip.parse().ok(),
        _ => None,
    })
}

/// The resolver library takes the last statement of a kind.
fn last_words(host: &str, kinds: &[&str]) -> Vec<String> {
    let found = statements(host).filter(|words| words.first().is_some_and(|kind| kinds.contains(kind))).last();
    found.unwrap_or_default().iter().skip(1).map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
