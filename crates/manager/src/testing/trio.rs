//! Three managers in one process. Links between them can be cut; what is under way over them hangs then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use shoal_raft::{Config, DataKey, Member, Raft, Transport, TransportError};
use shoal_types::spec::{ClusterSpec, NodeRole};
use shoal_types::{Change, ClusterId, NodeId, Object, View};
use shoal_wire::{Dial, UplinkError};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};

use super::{first_node, new_cluster};
use crate::ca::Subject;
use crate::ids::RandomIds;
use crate::peer::Peer;
use crate::{Control, Manager, begin};

/// Three managers; the first one began the cluster.
pub struct Trio {
    pub managers: Vec<One>,
    net: Arc<Net>,
}

/// One of them.
pub struct One {
    pub raft: Raft,
    pub manager: Manager,
    pub control: Control,
    pub node: NodeId,
    pub addr: String,
    port: Arc<Port>,
    _dir: TempDir,
}

struct Net {
    places: Mutex<BTreeMap<String, Place>>,
    /// Who is cut off from all others.
    cut: watch::Sender<BTreeSet<String>>,
}

struct Place {
    raft: Raft,
    door: mpsc::UnboundedSender<io::Result<Conn>>,
}

/// The network as one manager sees it.
#[derive(Clone)]
struct Port {
    net: Arc<Net>,
    peer: Peer,
    addr: String,
}

/// The end of a connection at the one that was called.
struct Conn(DuplexStream, Peer);

impl Trio {
    pub async fn new() -> Self {
        let net = Arc::new(Net { places: Mutex::default(), cut: watch::channel(BTreeSet::new()).0 });
        let cluster = ClusterId::new(&mut RandomIds);
        let mut managers = Vec::new();
        for number in 1..=3 {
            managers.push(One::new(&net, cluster, format!("10.0.0.{number}:2377")).await);
        }
        let this = Self { managers, net };
        let first = &this.managers[0];
        let member = |one: &One| Member { node_id: Some(one.node), addr: one.addr.clone(), ..Member::default() };
        first.raft.begin(member(first)).await.unwrap();
        let object = new_cluster(cluster, ClusterSpec::initial());
        begin(&first.raft, object, first_node(first.node, &first.addr)).await.unwrap();
        for one in &this.managers[1..] {
            let node = first_node(one.node, &one.addr);
            let put = Change::Put(Object::Node(node.into()));
            first.raft.write(|tx: &mut shoal_raft::Tx| tx.change(put)).await.unwrap();
            first.raft.admit(one.raft.number(), member(one)).await.unwrap();
        }
        this
    }

    /// Waits until a manager other than `but` leads; its place.
    pub async fn leader(&self, but: Option<usize>) -> usize {
        loop {
            let mut others = (0..3).filter(|place| Some(*place) != but);
            if let Some(place) = others.find(|place| self.managers[*place].manager.active().now().is_some()) {
                return place;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cuts one manager off, or mends all.
    pub fn cut(&self, place: Option<usize>) {
        self.net.cut.send_modify(|cut| match place {
            Some(place) => drop(cut.insert(self.managers[place].addr.clone())),
            None => cut.clear(),
        });
    }

    /// The way of another node to the managers. It does not listen itself.
    pub fn visitor(&self, node: NodeId, role: NodeRole) -> Arc<dyn Dial> {
        let cluster = self.managers[0].raft.snapshot().cluster().unwrap().id;
        let peer = Peer { subject: Subject { node, role, cluster }, addr: "10.0.0.9".to_owned() };
        Arc::new(Port { net: self.net.clone(), peer, addr: "10.0.0.9:2377".to_owned() })
    }

    /// Ends one manager: whoever calls it is refused.
    pub async fn stop(&self, place: usize) {
        self.net.places().remove(&self.managers[place].addr);
        self.managers[place].raft.stop().await;
    }
}

impl One {
    async fn new(net: &Arc<Net>, cluster: ClusterId, addr: String) -> Self {
        let (dir, node) = (TempDir::new().unwrap(), NodeId::new(&mut RandomIds));
        let subject = Subject { node, role: NodeRole::Manager, cluster };
        let peer = Peer { subject, addr: addr.split(':').next().unwrap().to_owned() };
        let port = Arc::new(Port { net: net.clone(), peer, addr: addr.clone() });
        let key = DataKey::new(&[1; 32]);
        let limits = ClusterSpec::initial().raft;
        let config = Config { dir: dir.path().to_owned(), key, limits, force_new: false };
        let raft = Raft::open(&config, port.clone()).await.unwrap();
        let manager = Manager::start(raft.clone(), cluster, port.clone());
        let (door, incoming) = mpsc::unbounded_channel();
        let routes = Server::builder().add_routes(manager.routes());
        tokio::spawn(routes.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        net.places().insert(addr.clone(), Place { raft: raft.clone(), door });
        Self { control: manager.control(), raft, manager, node, addr, port, _dir: dir }
    }

    /// A connection of this manager's node to the manager on `addr`.
    pub async fn dial(&self, addr: &str) -> Channel {
        self.port.dial(addr).await.unwrap()
    }
}

impl Net {
    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap()
    }

    /// Waits while the way between two managers is cut.
    async fn open(&self, ends: [&str; 2]) {
        let whole = |cut: &BTreeSet<String>| ends.iter().all(|end| !cut.contains(*end));
        self.cut.subscribe().wait_for(whole).await.unwrap();
    }

    async fn connect(self: Arc<Self>, from: String, peer: Peer, to: String) -> io::Result<TokioIo<DuplexStream>> {
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(Duration::from_secs(2), self.open([&from, &to])).await.map_err(timed_out)?;
        let (near, near_far) = duplex(1 << 16);
        let (far, far_near) = duplex(1 << 16);
        let door = self.places().get(&to).map(|place| place.door.clone()).ok_or(io::ErrorKind::ConnectionRefused)?;
        door.send(Ok(Conn(far, peer))).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let ((read, write), (back_read, back_write)) = (split(near_far), split(far_near));
        tokio::spawn(self.clone().pump(from.clone(), to.clone(), read, back_write));
        tokio::spawn(self.pump(from, to, back_read, write));
        Ok(TokioIo::new(near))
    }

    async fn pump(
        self: Arc<Self>,
        a: String,
        b: String,
        mut read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
    ) {
        let mut chunk = vec![0; 1 << 14];
        while let Ok(len @ 1..) = read.read(&mut chunk).await {
            self.open([&a, &b]).await;
            if !self.places().contains_key(&b) || write.write_all(&chunk[..len]).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Transport for Port {
    async fn call(&self, _to: u64, member: &Member, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let unreachable =
            |reason: &str| TransportError::Unreachable { addr: member.addr.clone(), reason: reason.into() };
        let open = self.net.open([&self.addr, &member.addr]);
        if tokio::time::timeout(Duration::from_millis(300), open).await.is_err() {
            return Err(unreachable("cut"));
        }
        let raft = self.net.places().get(&member.addr).map(|place| place.raft.clone());
        let raft = raft.ok_or_else(|| unreachable("stopped"))?;
        let refused = |e: shoal_raft::ServeError| unreachable(&e.to_string());
        raft.serve(body).await.map_err(refused)
    }
}

#[tonic::async_trait]
impl Dial for Port {
    async fn dial(&self, addr: &str) -> Result<Channel, UplinkError> {
        let (port, to) = (self.clone(), addr.to_owned());
        let connector =
            tower::service_fn(move |_| port.net.clone().connect(port.addr.clone(), port.peer.clone(), to.clone()));
        Ok(Endpoint::from_static("http://manager").connect_with_connector_lazy(connector))
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.1.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
