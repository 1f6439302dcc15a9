//! Nodes that were removed from the cluster are turned away before any call of theirs is looked at.

use shoal_raft::Raft;
use shoal_types::{NodeId, View};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

use crate::peer::{self, Peer};

/// Refuses callers whose certificate the cluster has given up; lets all others pass, also those without certificate.
pub fn gate(raft: Raft) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
    move |request| {
        let view = raft.snapshot();
        // Mostly nobody was removed: nothing to read then.
        let Some(cluster) = view.cluster().filter(|c| !c.blacklist.is_empty()) else { return Ok(request) };
        match caller(&request) {
            Some(node) if cluster.blacklist.contains_key(&node) => Err(removed(node)),
            _ => Ok(request),
        }
    }
}

/// What a removed node is told.
pub fn removed(node: NodeId) -> Status {
    Status::permission_denied(format!("Permission denied: node {node} was removed from swarm"))
}

fn caller(request: &Request<()>) -> Option<NodeId> {
    if let Some(peer) = request.extensions().get::<Peer>() {
        return Some(peer.subject.node);
    }
    let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certs = tls.peer_certs()?;
    peer::subject(certs.first()?).ok().map(|subject| subject.node)
}
