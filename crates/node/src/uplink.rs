//! The agent's way to the managers: the one on this node first, else one of those that are known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use shoal_types::Node;
use shoal_wire::session::Manager;
use shoal_wire::{Remote, Uplink, UplinkError};

use crate::membership::Membership;

/// The ways of the agent of one node.
pub struct Managers(pub Arc<Membership>);

impl Managers {
    fn remote(&self, addr: String) -> Result<Remote, UplinkError> {
        Ok(Remote { channel: self.0.dialer.channel(&addr)?, addr })
    }
}

#[tonic::async_trait]
impl Uplink for Managers {
    async fn connect(&self) -> Result<Remote, UplinkError> {
        let addr = self.0.somewhere().ok_or(UplinkError::NoManager)?;
        self.remote(addr)
    }

    async fn connect_to(&self, addr: &str) -> Result<Remote, UplinkError> {
        self.remote(addr.to_owned())
    }

    fn observe(&self, remote: &Remote, good: bool) {
        self.0.remotes.observe(&remote.addr, good);
    }

    fn learn(&self, managers: &[Manager]) {
        self.0.remotes.learn(managers);
    }

    fn trust(&self, root_ca: &str) {
        self.0.trust(root_ca);
    }

    fn told(&self, node: &Node) {
        self.0.greeted.send_replace(true);
        self.0.wanted.send_if_modified(|wanted| {
            let now = (node.role, node.wanted_issuer.clone());
            let is_news = wanted.as_ref() != Some(&now);
            *wanted = Some(now);
            is_news
        });
    }
}

/// An address that is listened on as one that can be called.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
