//! The networks of this machine: endpoints made and released.
//!
//! Owns the order of steps and their undoing. Taking over from an earlier daemon is in [`open`](crate::open).

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use shoal_rules::{Attachment, BridgeSpec, Change, HostSpec, LinkState, Mac, Publication, isolated_links, plan_links};

use crate::{
    addresses::{Addresses, matching_ipv6},
    config::Config,
    endpoint::{BridgePlace, Endpoint, EndpointRequest, LiveEndpoint, NetworkMode, PortBinding},
    error::{EndpointError, KernelError, OpenError, PortError, ReleaseError},
    firewall::Firewall,
    inspect::NetworkInfo,
    kernel::{
        links::{self, Indexes},
        socket::{Family, Netlink},
    },
    netns::{self, Namespace, Pool},
    open,
    ports::{Hold, Ports},
    reaper::Reaper,
    record::{Record, random_id},
    sysctl,
    watch::Watch,
};

/// The networks of this machine. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct NodeNetwork {
    inner: Arc<Inner>,
    #[expect(dead_code, reason = "runs until the last clone is dropped")]
    watch: Arc<Watch>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub config: Config,
    pub record: Record,
    pub bridge: BridgeSpec,
    pub pool: Pool,
    pub reaper: Reaper,
    pub firewall: Firewall,
    pub warnings: Vec<String>,
    pub state: Mutex<State>,
    /// Some endpoint's setup has ended.
    pub settled: Condvar,
    /// Numbers of the host's interfaces, as last seen.
    pub indexes: Mutex<Indexes>,
}

/// Who has what.
pub(crate) struct State {
    pub attached: BTreeMap<String, Attached>,
    pub addresses: Addresses,
    pub ports: Ports,
}

/// An endpoint with what the daemon holds for it.
pub(crate) struct Attached {
    pub endpoint: Endpoint,
    #[expect(dead_code, reason = "held until the endpoint is released")]
    pub holds: Vec<Hold>,
    /// Being made or released: whoever wants something else of it waits.
    pub busy: bool,
    /// Its ports are, or are to be, in the firewall.
    pub published: bool,
}

impl NodeNetwork {
    /// Brings the networks up, or takes over what an earlier daemon left: `live` keep their addresses, ports and
    /// connections; namespaces, interfaces and ports of containers that are not in `live` are removed.
    pub async fn open(config: Config, live: Vec<LiveEndpoint>) -> Result<Self, OpenError> {
        let inner = Arc::new(blocking(move || open::open(config, live)).await?);
        let watch = Watch::start(Arc::downgrade(&inner)).map_err(|source| OpenError::Firewall {
            table: inner.bridge.name.clone(),
            source: KernelError::Refused { step: "watch the firewall".to_owned(), source },
        })?;
        Ok(Self { inner, watch: Arc::new(watch) })
    }

    /// What an administrator should know: `docker info` shows these (forwarding is off, another firewall drops ours …).
    pub fn warnings(&self) -> Vec<String> {
        self.inner.warnings.clone()
    }

    /// Gives a container its place in a network: namespace, interface, address, published ports. Nothing remains of a
    /// failed one. It runs to its end even if the caller no longer waits; releasing it then waits for that end.
    pub async fn create_endpoint(&self, request: EndpointRequest) -> Result<Endpoint, EndpointError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.create(&request)).await
    }

    /// Takes it away again; of a container that has none, nothing. A namespace lives on while processes are in it, but
    /// without its interface. The address and ports are free afterwards even if there was an error.
    pub async fn release_endpoint(&self, container_id: &str) -> Result<(), ReleaseError> {
        let (inner, container) = (Arc::clone(&self.inner), container_id.to_owned());
        blocking(move || inner.release(&container)).await
    }

    /// A container was renamed: `network inspect` shows the new name.
    pub fn rename(&self, container_id: &str, name: &str) {
        if let Some(attached) = self.inner.lock().attached.get_mut(container_id) {
            attached.endpoint.container_name = name.to_owned();
        }
    }

    /// The networks in the order `bridge`, `host`, `none`, with who is attached.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        let state = self.inner.lock();
        let endpoints: Vec<_> = state.attached.values().map(|attached| &attached.endpoint).collect();
        let Inner { config, record, bridge, .. } = &*self.inner;
        [NetworkMode::Bridge, NetworkMode::Host, NetworkMode::None]
            .map(|mode| NetworkInfo::of(mode, config, record, bridge, &endpoints))
            .into()
    }

    /// The id of one of the three networks.
    pub fn id(&self, mode: NetworkMode) -> &str {
        self.inner.record.id(mode)
    }

    /// The host's address on the default bridge: the containers' gateway, and what `host-gateway` stands for.
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.bridge.ipv4.addr()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // work that has begun is never cancelled
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, request: &EndpointRequest) -> Result<Endpoint, EndpointError> {
        let endpoint = self.reserve(request)?;
        let made = self.set_up(&endpoint).inspect_err(|_| {
            // what was not made cannot be removed; the first error is the one that matters
            if let Err(error) = self.tear_down(&endpoint) {
                tracing::debug!(%error, container = endpoint.container_id, "a failed setup was not undone completely");
            }
            self.forget(&endpoint.container_id);
        });
        if let Some(attached) = self.lock().attached.get_mut(&endpoint.container_id) {
            attached.busy = false;
        }
        self.settled.notify_all();
        made.map(|()| endpoint)
    }

    fn release(&self, container: &str) -> Result<(), ReleaseError> {
        let Some(endpoint) = self.begin_release(container) else { return Ok(()) };
        let done = self.tear_down(&endpoint);
        self.forget(container);
        self.settled.notify_all();
        done.map_err(|source| ReleaseError { container: container.to_owned(), source })
    }

    fn begin_release(&self, container: &str) -> Option<Endpoint> {
        let mut state = self.lock();
        loop {
            let attached = state.attached.get_mut(container)?;
            if !attached.busy {
                attached.busy = true;
                return Some(attached.endpoint.clone());
            }
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Decides on everything and writes it down, before anything is made.
    fn reserve(&self, request: &EndpointRequest) -> Result<Endpoint, EndpointError> {
        if let Some(mac) = request.mac.filter(|mac| !mac.is_unicast()) {
            return Err(EndpointError::BadMac(mac));
        }
        let (id, sandbox_id) = (random_id(), random_id());
        let mut state = self.lock();
        if state.attached.contains_key(&request.container_id) {
            return Err(EndpointError::Attached(request.container_id.clone()));
        }
        let mut holds = Vec::new();
        let bridge = match request.mode {
            NetworkMode::Bridge => Some(self.reserve_place(&mut state, request, &id, &mut holds)?),
            NetworkMode::Host | NetworkMode::None => None,
        };
        let netns = (request.mode != NetworkMode::Host).then(|| self.config.netns_dir.join(&sandbox_id[..12]));
        let endpoint = Endpoint {
            id,
            sandbox_id,
            container_id: request.container_id.clone(),
            container_name: request.container_name.clone(),
            mode: request.mode,
            netns,
            bridge,
        };
        let attached = Attached { endpoint: endpoint.clone(), holds, busy: true, published: false };
        state.attached.insert(request.container_id.clone(), attached);
        Ok(endpoint)
    }

    fn reserve_place(
        &self,
        state: &mut State,
        request: &EndpointRequest,
        id: &str,
        holds: &mut Vec<Hold>,
    ) -> Result<BridgePlace, EndpointError> {
        let BridgeSpec { ipv4: subnet, ipv6: subnet6, .. } = self.bridge;
        let ipv4 = state.addresses.take(request.ipv4)?;
        let mut place = BridgePlace {
            host_link: format!("{}{}", open::LINK_PREFIX, &id[..10]),
            mac: request.mac.unwrap_or(Mac::of_ipv4(ipv4)),
            ipv4,
            prefix: subnet.prefix_len(),
            gateway: subnet.addr(),
            ipv6: subnet6.map(|subnet6| matching_ipv6(ipv4, subnet, subnet6)),
            prefix6: subnet6.map_or(0, |subnet6| subnet6.prefix_len()),
            gateway6: subnet6.map(|subnet6| subnet6.addr()),
            ports: Vec::new(),
        };
        let taken = state.ports.take_all(&request.ports, &place).map_err(|source| {
            state.addresses.release(ipv4);
            EndpointError::Port { name: request.container_name.clone(), id: id.to_owned(), source: Box::new(source) }
        })?;
        for (binding, hold) in taken {
            place.ports.push(binding);
            holds.push(hold);
        }
        Ok(place)
    }

    fn forget(&self, container: &str) {
        let mut state = self.lock();
        let Some(attached) = state.attached.remove(container) else { return };
        if let Some(place) = &attached.endpoint.bridge {
            state.addresses.release(place.ipv4);
            place.ports.iter().for_each(|binding| state.ports.release(binding));
        }
    }

    fn set_up(&self, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let kernel = |source| EndpointError::Kernel { name: endpoint.container_name.clone(), source };
        let Some(path) = &endpoint.netns else { return Ok(()) };
        let namespace = self.pool.take().map_err(kernel)?;
        namespace.mount(path).map_err(kernel)?;
        let Some(place) = &endpoint.bridge else {
            let changes = plan_links(&LinkState::default(), &isolated_links());
            return links::apply(&namespace.route, &changes, None, &mut Indexes::new()).map_err(kernel);
        };
        self.join_bridge(&namespace, &attachment(place)).map_err(kernel)?;
        if place.ports.is_empty() {
            return Ok(());
        }
        self.publish(endpoint, true).map_err(|source| EndpointError::Port {
            name: endpoint.container_name.clone(),
            id: endpoint.id.clone(),
            source: Box::new(PortError::Firewall(source)),
        })
    }

    /// Makes the pair with one end on the bridge and the other, configured, in the namespace.
    pub fn join_bridge(&self, namespace: &Namespace, attachment: &Attachment) -> Result<(), KernelError> {
        let nothing = LinkState::default();
        let host = plan_links(&nothing, &self.bridge.port_links(attachment));
        self.change_host(&host, Some(namespace))?;
        let inside = plan_links(&nothing, &self.bridge.container_links(attachment));
        links::apply(&namespace.route, &inside, None, &mut Indexes::new())
    }

    /// Changes the host's interfaces. The bridge's number is remembered; where it turns out wrong, it is asked again.
    fn change_host(&self, changes: &[Change], peers: Option<&Namespace>) -> Result<(), KernelError> {
        use std::os::fd::AsFd;
        let socket = host_socket()?;
        let known = || self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut indexes = known().clone();
        let fresh = indexes.is_empty();
        let result = links::apply(&socket, changes, peers.map(AsFd::as_fd), &mut indexes);
        let result = match result {
            Err(_) if !fresh => {
                indexes.clear();
                links::apply(&socket, changes, peers.map(AsFd::as_fd), &mut indexes)
            }
            result => result,
        };
        indexes.retain(|name, _| *name == self.bridge.name);
        *known() = indexes;
        result
    }

    /// Puts the endpoint's ports into the firewall, or takes them out.
    fn publish(&self, endpoint: &Endpoint, wanted: bool) -> Result<(), KernelError> {
        if let Some(attached) = self.lock().attached.get_mut(&endpoint.container_id) {
            attached.published = wanted;
        }
        let publications = publications(endpoint);
        self.firewall.apply(&self.config.nft, || self.host_spec().table())?;
        if let Err(error) = self.firewall.forget_connections(&publications, !wanted) {
            tracing::warn!(%error, container = endpoint.container_id, "datagrams of earlier clients may go astray for a while");
        }
        Ok(())
    }

    /// Loads our firewall table again if another program removed it.
    pub fn ensure_firewall(&self) -> Result<(), KernelError> {
        if self.firewall.ensure(&self.config.nft, || self.host_spec().table())? {
            tracing::warn!("another program removed the firewall table; it is loaded again");
        }
        Ok(())
    }

    /// All that is to be in the host's namespace now.
    pub fn host_spec(&self) -> HostSpec {
        let state = self.lock();
        let published = state.attached.values().filter(|attached| attached.published);
        let attachments = published.filter_map(|attached| {
            Some((attached.endpoint.container_id.clone(), attachment(attached.endpoint.bridge.as_ref()?)))
        });
        HostSpec {
            table: self.bridge.name.clone(),
            guarded: self.firewall.guarded.clone(),
            bridge: self.bridge.clone(),
            attachments: attachments.collect(),
        }
    }

    /// Removes what is there; goes on after an error and returns the first.
    fn tear_down(&self, endpoint: &Endpoint) -> Result<(), KernelError> {
        let mut first = Ok(());
        let mut note = |result: Result<(), KernelError>| {
            if first.is_ok() {
                first = result;
            }
        };
        let published = self.lock().attached.get(&endpoint.container_id).is_some_and(|attached| attached.published);
        if published {
            note(self.publish(endpoint, false));
        }
        if let Some(place) = &endpoint.bridge {
            note(self.reaper.remove(&place.host_link));
        }
        if let Some(path) = &endpoint.netns {
            note(netns::unmount(path));
        }
        first
    }
}

/// A socket in the daemon's own namespace.
pub(crate) fn host_socket() -> Result<Netlink, KernelError> {
    Netlink::open(Family::Route)
        .map_err(|source| KernelError::Refused { step: "open a netlink socket".to_owned(), source })
}

/// Removes an interface; one that is gone is no error.
pub(crate) fn remove_link(socket: &Netlink, name: &str) -> Result<(), KernelError> {
    let change = Change::DeleteLink { name: name.to_owned() };
    match links::apply(socket, &[change], None, &mut Indexes::new()) {
        Err(KernelError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// The rules' view of a place on the bridge.
pub(crate) fn attachment(place: &BridgePlace) -> Attachment {
    Attachment {
        host_link: place.host_link.clone(),
        mac: place.mac,
        ipv4: place.ipv4,
        ipv6: place.ipv6,
        hairpin: sysctl::read("bridge/bridge-nf-call-iptables").as_deref() == Some("1"),
        publications: place.ports.iter().map(|port: &PortBinding| place.publication(port)).collect(),
    }
}

pub(crate) fn publications(endpoint: &Endpoint) -> Vec<Publication> {
    endpoint.bridge.iter().flat_map(|place| place.ports.iter().map(|port| place.publication(port))).collect()
}

/// Where the namespaces of containers are mounted.
pub(crate) fn netns_of(live: &[LiveEndpoint]) -> Vec<PathBuf> {
    live.iter().filter_map(|live| live.endpoint.netns.clone()).collect()
}
