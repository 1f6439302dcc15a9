//! IPv6 clients of containers that have IPv4 only, and clients on `::1` of any.
//!
//! The kernel translates addresses within a family, not between them, and never takes IPv6 loopback elsewhere. So these
//! connections pass through the daemon: the container sees the bridge's address as the client's, and they end when the
//! daemon does. Clients on IPv4, and from outside on IPv6 where the bridge has it, never come here.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp},
    sync::Arc,
    time::Duration,
};

use shoal_rules::{Protocol, Publication};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::ports::bound_socket;

/// How long a datagram client's way back stays open without an answer, as with Docker's.
const UDP_IDLE: Duration = Duration::from_secs(90);
/// Datagram clients of one port at a time; further ones wait for others to fall silent.
const UDP_CLIENTS: usize = 1024;
const DATAGRAM: usize = 65_535;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Takes the host's side and serves it from now on. To be called within a tokio runtime.
    pub fn start(publication: &Publication) -> io::Result<Self> {
        let no_sockets = || io::Error::from(io::ErrorKind::Unsupported);
        let fd = bound_socket(publication.protocol, publication.host, true)?.ok_or_else(no_sockets)?;
        let target = publication.container;
        let task = match publication.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::from_std(StdListener::from(fd))?;
                tokio::spawn(run_tcp(listener, target))
            }
            Protocol::Udp => {
                let socket = UdpSocket::from_std(StdUdp::from(fd))?;
                tokio::spawn(run_udp(socket, target))
            }
            Protocol::Sctp => return Err(no_sockets()),
        };
        Ok(Self { task: task.abort_handle() })
    }
}

/// Each connection on its own; all end with this.
async fn run_tcp(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(relay(client, target))),
                // no file descriptors, or a client that is gone already
                Err(error) => {
                    tracing::debug!(%error, %target, "an IPv6 connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) {
    let relayed = async {
        let mut server = TcpStream::connect(target).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    if let Err(error) = relayed.await {
        tracing::debug!(%error, %target, "an IPv6 connection ended");
    }
}

/// A socket of its own for each client, so that answers find back.
async fn run_udp(socket: UdpSocket, target: SocketAddr) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            Some(ended) = answers.join_next() => {
                if let Ok(client) = ended {
                    clients.remove(&client);
                }
            }
            received = socket.recv_from(&mut buffer), if clients.len() < UDP_CLIENTS => {
                let (length, client) = match received {
                    Ok(received) => received,
                    Err(error) => {
                        tracing::warn!(%error, %target, "IPv6 datagrams are no longer passed on");
                        return;
                    }
                };
                let way = match clients.get(&client) {
                    Some(way) => Arc::clone(way),
                    None => match open_way(target).await {
                        Ok(way) => {
                            clients.insert(client, Arc::clone(&way));
                            answers.spawn(answer(Arc::clone(&socket), client, Arc::clone(&way)));
                            way
                        }
                        Err(error) => {
                            tracing::debug!(%error, %target, "an IPv6 datagram was dropped");
                            continue;
                        }
                    },
                };
                // datagrams may be lost; a refusal shows on the way back
                if let Err(error) = way.send(&buffer[..length]).await {
                    tracing::debug!(%error, %target, "an IPv6 datagram was dropped");
                }
            }
        }
    }
}

async fn open_way(target: SocketAddr) -> io::Result<Arc<UdpSocket>> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let way = UdpSocket::bind(any).await?;
    way.connect(target).await?;
    Ok(Arc::new(way))
}

/// Passes answers back until there are none for a while; returns the client.
async fn answer(socket: Arc<UdpSocket>, client: SocketAddr, way: Arc<UdpSocket>) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(Ok(length)) = timeout(UDP_IDLE, way.recv(&mut buffer)).await {
        if socket.send_to(&buffer[..length], client).await.is_err() {
            break;
        }
    }
    client
}
