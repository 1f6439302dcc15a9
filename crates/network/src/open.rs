//! Taking over: from what is in the kernel and on disk to a running network, without a packet lost that need not be.

use std::{
    collections::BTreeSet,
    fs, io,
    net::Ipv6Addr,
    sync::{Condvar, Mutex},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shoal_rules::{BridgeSpec, Change, Guarded, HostSpec, LinkKind, LinkState, plan_links};

use crate::{
    addresses::{Addresses, default_pools, with_gateway},
    config::Config,
    endpoint::{BridgePlace, LiveEndpoint},
    error::{KernelError, OpenError},
    firewall::Firewall,
    kernel::{
        links::{self, Indexes},
        nft,
        observe::{Observed, observe},
        socket::Netlink,
    },
    netns::{self, Namespace, Pool},
    node::{Attached, Inner, State, attachment, host_socket, netns_of, remove_link},
    ports::{Hold, Ports},
    reaper::Reaper,
    record::Record,
    sysctl,
};

/// Interfaces of ours begin so; the rest is from the endpoint's id.
pub(crate) const LINK_PREFIX: &str = "shv";
/// Beside the namespaces: the interfaces between which nothing was forwarded before us, since the last boot.
const GUARDED: &str = "guarded.json";

/// Brings everything up.
pub(crate) fn open(config: Config, live: Vec<LiveEndpoint>) -> Result<Inner, OpenError> {
    for dir in [&config.data_dir, &config.netns_dir] {
        fs::create_dir_all(dir).map_err(|source| OpenError::State { path: dir.clone(), source })?;
    }
    let name = config.bridge.clone();
    let refused = |source| OpenError::Bridge { bridge: name.clone(), source };
    let mut warnings = Vec::new();
    let socket = host_socket().map_err(refused)?;
    let observed = observe(&socket).map_err(refused)?;
    refuse_other_kinds(&config.bridge, &observed)?;
    let mut record = Record::load(&config.data_dir)?;
    let subnet = choose_subnet(&config, &record, &observed, &live)?;
    if record.subnet != Some(subnet) {
        record.subnet = Some(subnet);
        record.save(&config.data_dir)?;
    }
    let bridge = BridgeSpec {
        name: config.bridge.clone(),
        ipv4: subnet,
        ipv6: config.subnet6.map(with_gateway6),
        mtu: config.mtu,
    };
    sweep_namespaces(&config, &live).map_err(|source| OpenError::State { path: config.netns_dir.clone(), source })?;
    let missing = ensure_host_links(&socket, &bridge, &observed, &live).map_err(refused)?;
    let guarded = read_guarded(&config, &observed)?;
    ensure_bridge_parameters(&bridge, &mut warnings);
    let state = adopt(&config, &bridge, live, &mut warnings);
    let threads = |source| refused(KernelError::Refused { step: "start a thread".to_owned(), source });
    let pool = Pool::new(bridge.ipv6.is_some()).map_err(threads)?;
    let reaper = Reaper::new().map_err(threads)?;
    let mut inner = Inner {
        firewall: Firewall::new(guarded),
        state: Mutex::new(state),
        settled: Condvar::new(),
        indexes: Mutex::new(Indexes::new()),
        warnings,
        config,
        record,
        bridge,
        pool,
        reaper,
    };
    repair(&inner, &missing);
    load_firewall(&mut inner)?;
    enable_forwarding(&inner.config, &observed, &mut inner.warnings);
    Ok(inner)
}

/// An interface that only has the bridge's name is somebody else's.
fn refuse_other_kinds(bridge: &str, observed: &Observed) -> Result<(), OpenError> {
    let is_bridge = observed.state.links.get(bridge).map(|link| link.kind == LinkKind::Bridge);
    match is_bridge {
        Some(false) => Err(OpenError::NotABridge(bridge.to_owned())),
        None if observed.indexes.contains_key(bridge) => Err(OpenError::NotABridge(bridge.to_owned())),
        _ => Ok(()),
    }
}

/// What is configured; else what live containers have; else what was chosen before or is free now.
fn choose_subnet(
    config: &Config,
    record: &Record,
    observed: &Observed,
    live: &[LiveEndpoint],
) -> Result<Ipv4Net, OpenError> {
    if let Some(subnet) = config.subnet {
        return with_gateway(subnet).ok_or(OpenError::SubnetTooSmall(subnet));
    }
    let in_use = live.iter().find_map(|live| live.endpoint.bridge.as_ref());
    if let Some(subnet) = in_use.and_then(|place| Ipv4Net::new(place.gateway, place.prefix).ok()) {
        return Ok(subnet);
    }
    let foreign: Vec<IpNet> =
        observed.routed.iter().filter(|(_, link)| *link != config.bridge).map(|(net, _)| *net).collect();
    let overlaps = |one: &Ipv4Net, other: &IpNet| match other {
        IpNet::V4(other) => one.contains(&other.network()) || other.contains(&one.network()),
        IpNet::V6(_) => false,
    };
    let free = |subnet: &Ipv4Net| !foreign.iter().any(|net| overlaps(subnet, net));
    let before = record.subnet.into_iter();
    before.chain(default_pools().filter_map(with_gateway)).find(free).ok_or(OpenError::NoFreeSubnet)
}

fn with_gateway6(net: Ipv6Net) -> Ipv6Net {
    let first = Ipv6Addr::from(u128::from(net.network()) + 1);
    let gateway = if net.addr() == net.network() { Ipv6Net::new(first, net.prefix_len()) } else { Ok(net) };
    gateway.unwrap_or(net)
}

/// Removes mounts of containers that are gone; makes those of live ones again where they are missing. What fails costs
/// only its own container.
fn sweep_namespaces(config: &Config, live: &[LiveEndpoint]) -> io::Result<()> {
    let kept: BTreeSet<_> = netns_of(live).into_iter().collect();
    for entry in fs::read_dir(&config.netns_dir)? {
        let path = entry?.path();
        if !kept.contains(&path)
            && path.file_name().is_some_and(|name| name != GUARDED)
            && let Err(error) = netns::unmount(&path)
        {
            tracing::warn!(%error, "a network namespace of an earlier container remains");
        }
    }
    for LiveEndpoint { endpoint, pid } in live {
        if let (Some(path), Some(pid)) = (&endpoint.netns, pid)
            && !netns::is_mounted(path)
            && let Err(error) = netns::mount_of_process(*pid, path)
        {
            tracing::warn!(%error, container = endpoint.container_id, "the container's network cannot be entered");
        }
    }
    Ok(())
}

/// The bridge, its addresses, and its ports as far as they are there. Returns live ports that are not.
fn ensure_host_links(
    socket: &Netlink,
    bridge: &BridgeSpec,
    observed: &Observed,
    live: &[LiveEndpoint],
) -> Result<Vec<String>, KernelError> {
    let places = live.iter().filter_map(|live| Some((live.endpoint.id.clone(), live.endpoint.bridge.as_ref()?)));
    let spec = HostSpec {
        table: bridge.name.clone(),
        guarded: Guarded::default(),
        bridge: bridge.clone(),
        attachments: places.map(|(id, place)| (id, attachment(place))).collect(),
    };
    let wanted = spec.links();
    let mut indexes = Indexes::new();
    let (ports, changes): (Vec<_>, Vec<_>) = plan_links(&ours(observed, bridge, &wanted), &wanted)
        .into_iter()
        .partition(|change| matches!(change, Change::AddLink { link, .. } if link.kind == LinkKind::Veth));
    for change in changes {
        match change {
            Change::DeleteLink { name } => remove_link(socket, &name)?,
            change => links::apply(socket, &[change], None, &mut indexes)?,
        }
    }
    let name = |change| match change {
        Change::AddLink { name, .. } => Some(name),
        _ => None,
    };
    Ok(ports.into_iter().filter_map(name).collect())
}

/// Of what the kernel has, what is ours: the bridge and its ports with our names.
fn ours(observed: &Observed, bridge: &BridgeSpec, wanted: &LinkState) -> LinkState {
    let mut state = observed.state.clone();
    state.links.retain(|name, link| {
        let port = name.starts_with(LINK_PREFIX) && link.master.as_ref() == Some(&bridge.name);
        *name == bridge.name || port || wanted.links.contains_key(name)
    });
    // the kernel gives every interface a link-local address of its own
    let own = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
    state.addresses.retain(|address| address.link == bridge.name && !own(&address.net));
    state
}

/// Ports of live containers that somebody removed: made again. What cannot be repaired costs only its own container.
fn repair(inner: &Inner, missing: &[String]) {
    let state = inner.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let places: Vec<_> = state
        .attached
        .values()
        .filter_map(|attached| Some((attached.endpoint.clone(), attached.endpoint.bridge.clone()?)))
        .filter(|(_, place)| missing.contains(&place.host_link))
        .collect();
    drop(state);
    for (endpoint, place) in places {
        let Some(path) = &endpoint.netns else { continue };
        let joined = Namespace::enter(path).and_then(|namespace| inner.join_bridge(&namespace, &attachment(&place)));
        match joined {
            Ok(()) => tracing::info!(container = endpoint.container_id, "the container's interface was made again"),
            Err(error) => {
                tracing::warn!(%error, container = endpoint.container_id, "a running container has lost its interface");
            }
        }
    }
}

/// The interfaces between which forwarding is, or was before an earlier daemon, off; written down before it is on.
fn read_guarded(config: &Config, observed: &Observed) -> Result<Guarded, OpenError> {
    let path = config.netns_dir.join(GUARDED);
    let failed = |source| OpenError::State { path: path.clone(), source };
    let before: Guarded = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Guarded::default(),
        Err(error) => return Err(failed(error)),
    };
    let mut guarded = before.clone();
    let others = observed.indexes.keys().filter(|name| *name != "lo" && **name != config.bridge);
    let others: BTreeSet<String> = others.filter(|name| !name.starts_with(LINK_PREFIX)).cloned().collect();
    if sysctl::read("ipv4/ip_forward").as_deref() == Some("0") {
        guarded.ipv4 = others.clone();
    }
    if config.subnet6.is_some() && sysctl::read("ipv6/conf/all/forwarding").as_deref() == Some("0") {
        guarded.ipv6 = others;
    }
    if guarded != before {
        let bytes = serde_json::to_vec(&guarded).map_err(|error| failed(error.into()))?;
        fs::write(&path, bytes).map_err(failed)?;
    }
    Ok(guarded)
}

/// Turns forwarding on; the firewall is in place by now.
fn enable_forwarding(config: &Config, observed: &Observed, warnings: &mut Vec<String>) {
    let off = |family: &str, error: io::Error| {
        format!("{family} forwarding is disabled and cannot be enabled ({error}): containers reach this machine only")
    };
    if let Err(error) = sysctl::ensure("ipv4/ip_forward", "1") {
        warnings.push(off("IPv4", error));
    }
    if config.subnet6.is_none() {
        return;
    }
    // a kernel that forwards IPv6 no longer listens to routers, unless told to
    let listens = |name: &&String| sysctl::read(&format!("ipv6/conf/{name}/accept_ra")).as_deref() == Some("1");
    let listening = observed.indexes.keys().filter(listens);
    let listened = listening.map(|name| sysctl::ensure(&format!("ipv6/conf/{name}/accept_ra"), "2"));
    if let Err(error) = listened.chain([sysctl::ensure("ipv6/conf/all/forwarding", "1")]).collect::<io::Result<()>>() {
        warnings.push(off("IPv6", error));
    }
}

/// So that the host's loopback reaches published ports; the firewall keeps others from doing so.
fn ensure_bridge_parameters(bridge: &BridgeSpec, warnings: &mut Vec<String>) {
    if let Err(error) = sysctl::ensure(&format!("ipv4/conf/{}/route_localnet", bridge.name), "1") {
        warnings.push(format!("published ports cannot be reached on 127.0.0.1: {error}"));
    }
}

/// Fills the tables from the live endpoints.
fn adopt(config: &Config, bridge: &BridgeSpec, live: Vec<LiveEndpoint>, warnings: &mut Vec<String>) -> State {
    let ports = Ports::new(config.publish_address);
    let mut state = State { attached: Default::default(), addresses: Addresses::new(bridge.ipv4), ports };
    for LiveEndpoint { endpoint, .. } in live {
        let mut holds = Vec::new();
        if let Some(place) = &endpoint.bridge {
            state.addresses.adopt(place.ipv4);
            holds = hold_again(&mut state.ports, place, &endpoint.container_name, warnings);
        }
        let published = endpoint.bridge.as_ref().is_some_and(|place| !place.ports.is_empty());
        let attached = Attached { holds, busy: false, published, endpoint };
        state.attached.insert(attached.endpoint.container_id.clone(), attached);
    }
    state
}

fn hold_again(ports: &mut Ports, place: &BridgePlace, name: &str, warnings: &mut Vec<String>) -> Vec<Hold> {
    let mut holds = Vec::new();
    for binding in &place.ports {
        match ports.adopt(binding, place) {
            Ok(hold) => holds.push(hold),
            Err(error) => warnings.push(format!("another program listens on a port of container {name}: {error}")),
        }
    }
    holds
}

/// Loads the table with all published ports in one transaction in the place of an earlier daemon's.
fn load_firewall(inner: &mut Inner) -> Result<(), OpenError> {
    let table = inner.host_spec().table();
    let name = table.name.clone();
    let loaded = inner.firewall.apply(&inner.config.nft, || table);
    loaded.map_err(|source| OpenError::Firewall { table: name.clone(), source })?;
    match nft::dropping_chains(&inner.config.nft, &name) {
        Ok(chains) => inner.warnings.extend(chains.iter().map(|chain| {
            let bridge = &inner.bridge.name;
            format!("another firewall drops forwarded packets (chain {chain}): allow those of interface {bridge} there")
        })),
        Err(error) => tracing::debug!(%error, "other programs' firewall chains could not be listed"),
    }
    Ok(())
}
