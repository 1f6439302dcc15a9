//! The port that other nodes call: gRPC over mutual TLS, with this node's certificate as it is when a caller comes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::identity::Identity;

/// How long a caller may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a silent connection is asked whether it is alive, and how long the answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// How long open calls have at the end.
const GRACE: Duration = Duration::from_secs(2);
/// The pause after the system could not accept a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running server.
pub struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Listens on `addr`.
///
/// # Errors
/// The system's answer: mostly that the port is taken.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

impl Serving {
    /// Serves `routes` to nodes of the cluster.
    pub fn start(listener: TcpListener, identity: watch::Receiver<Identity>, routes: Routes) -> Self {
        let stop = CancellationToken::new();
        let (tx, rx) = mpsc::channel(16);
        let accept = accept(listener, identity, tx);
        let serve = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_routes(routes)
            .serve_with_incoming_shutdown(ReceiverStream::new(rx), stop.clone().cancelled_owned());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            // Dropped at the stop, so that the port is free while open calls come to their end.
            let accept = async move {
                tokio::select! { () = accept => {}, () = stopped.cancelled() => {} }
            };
            let (served, ()) = tokio::join!(serve, accept);
            if let Err(error) = served {
                tracing::warn!(%error, "the server for other nodes ended badly");
            }
        });
        Self { stop, task }
    }

    /// Ends it; the port is free once this returns.
    pub async fn stop(self) {
        self.stop.cancel();
        let mut task = self.task;
        if tokio::time::timeout(GRACE, &mut task).await.is_err() {
            task.abort();
            drop(task.await);
        }
    }
}

/// Takes connections and passes on those that prove to be of the cluster.
async fn accept(
    listener: TcpListener,
    identity: watch::Receiver<Identity>,
    ready: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of another node");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let config = identity.borrow().server_tls();
        let ready = ready.clone();
        handshakes.spawn(async move {
            match config {
                Ok(config) => greet(stream, peer, config, ready).await,
                Err(error) => tracing::error!(%error, "this node cannot prove who it is"),
            }
        });
    }
}

async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    config: rustls::ServerConfig,
    ready: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot send small packets at once");
    }
    match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(Arc::new(config)).accept(stream)).await {
        // The server may have ended meanwhile.
        Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "turned away: the handshake failed"),
        Err(_) => tracing::debug!(%peer, "turned away: the handshake took too long"),
    }
}
