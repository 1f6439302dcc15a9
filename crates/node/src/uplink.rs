//! The agent's way to a manager. This node is the only manager there is, so the way is short; it goes over TLS all
//! the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shoal_wire::session::Manager;
use shoal_wire::{Remote, Uplink, UplinkError};
use tokio::sync::watch;
use tonic::transport::Endpoint;

use crate::identity::Identity;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The way to the manager on this node.
pub struct LocalManager {
    listen: SocketAddr,
    identity: watch::Receiver<Identity>,
}

impl LocalManager {
    /// To the manager that listens on `listen`, as whoever `identity` says this node is by then.
    pub fn new(listen: SocketAddr, identity: watch::Receiver<Identity>) -> Self {
        Self { listen, identity }
    }
}

#[tonic::async_trait]
impl Uplink for LocalManager {
    async fn connect(&self) -> Result<Remote, UplinkError> {
        let addr = reachable(self.listen).to_string();
        let tls = self.identity.borrow().client_tls();
        let unreachable = |source| UplinkError::Unreachable { addr: addr.clone(), source: Arc::new(source) };
        let endpoint = Endpoint::from_shared(format!("https://{addr}")).map_err(unreachable)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tls_config(tls)
            .map_err(unreachable)?;
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Remote { addr, channel })
    }

    fn observe(&self, remote: &Remote, good: bool) {
        // There is no other manager to turn to.
        tracing::debug!(addr = remote.addr, good, "the session with the manager");
    }

    fn learn(&self, managers: &[Manager]) {
        tracing::trace!(?managers, "the managers of the cluster");
    }

    fn trust(&self, root_ca: &str) {
        if self.identity.borrow().root_pem() != root_ca {
            tracing::warn!("the manager names another root certificate than this node trusts; it is not changed");
        }
    }
}

/// An address that is listened on as one that can be called.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
