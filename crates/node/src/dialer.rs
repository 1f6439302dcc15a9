//! Connections to managers with this node's certificate, kept by address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_wire::{Dial, UplinkError};
use tokio::sync::watch;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::identity::Identity;

/// How long a connection may take.
pub const CONNECT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether it is alive, and how long the answer may take: a cable that is cut is
/// noticed within their sum.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// Opens connections as the node that [`Identity`] says.
pub struct Dialer {
    kept: Mutex<Kept>,
}

struct Kept {
    identity: watch::Receiver<Identity>,
    channels: HashMap<String, Channel>,
}

impl Dialer {
    /// As whoever `identity` says that this node is by then.
    pub fn new(mut identity: watch::Receiver<Identity>) -> Self {
        identity.mark_unchanged();
        Self { kept: Mutex::new(Kept { identity, channels: HashMap::new() }) }
    }

    /// A connection to the manager on `addr`. It comes about with the first call.
    ///
    /// # Errors
    /// `addr` is no address, or the certificate is not usable.
    pub fn channel(&self, addr: &str) -> Result<Channel, UplinkError> {
        let mut kept = self.kept.lock().expect("nothing panics while it is held");
        if kept.identity.has_changed().unwrap_or(false) {
            kept.identity.mark_unchanged();
            // Calls that are under way keep theirs.
            kept.channels.clear();
        }
        if let Some(channel) = kept.channels.get(addr) {
            return Ok(channel.clone());
        }
        let tls = kept.identity.borrow().client_tls();
        let channel = connection(addr, tls)?.connect_lazy();
        kept.channels.insert(addr.to_owned(), channel.clone());
        Ok(channel)
    }
}

#[tonic::async_trait]
impl Dial for Dialer {
    async fn dial(&self, addr: &str) -> Result<Channel, UplinkError> {
        self.channel(addr)
    }
}

/// How managers are connected to.
///
/// # Errors
/// `addr` is no address, or the TLS settings are not usable.
pub fn connection(addr: &str, tls: ClientTlsConfig) -> Result<Endpoint, UplinkError> {
    plain(addr)?.tls_config(tls).map_err(|source| unreachable(addr, source))
}

/// The same, before TLS.
pub fn plain(addr: &str) -> Result<Endpoint, UplinkError> {
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).map_err(|source| unreachable(addr, source))?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true))
}

pub fn unreachable(addr: &str, source: tonic::transport::Error) -> UplinkError {
    UplinkError::Unreachable { addr: addr.to_owned(), source: Arc::new(source) }
}
