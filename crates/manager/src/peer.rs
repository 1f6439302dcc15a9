//! Who calls: read from the certificate that TLS has verified.

use shoal_types::ClusterId;
use shoal_types::spec::NodeRole;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};
use x509_parser::x509::X509Name;

use crate::ca::{self, Subject};

/// A node that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its certificate's subject.
    pub subject: Subject,
    /// The address that it calls from, without port; empty where there is none.
    pub addr: String,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No certificate.
    #[error("Permission denied: unauthorized peer role: no client certificates in request")]
    NoCertificate,
    /// A certificate that is not a node's.
    #[error("Permission denied: the certificate is not that of a node: {0}")]
    NotANode(String),
    /// A worker, where only managers may call.
    #[error("Permission denied: unauthorized peer role: only managers may do this")]
    NotAManager,
    /// A certificate of another cluster.
    #[error("Permission denied: remote certificate not part of organization: {0}")]
    OtherCluster(ClusterId),
}

impl From<PeerError> for Status {
    fn from(error: PeerError) -> Self {
        Self::permission_denied(error.to_string())
    }
}

impl Peer {
    /// The caller of `request`, if it is a node of `cluster`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn of<T>(request: &Request<T>, cluster: ClusterId) -> Result<Self, PeerError> {
        let peer = Self::caller(request)?;
        if peer.subject.cluster == cluster { Ok(peer) } else { Err(PeerError::OtherCluster(cluster)) }
    }

    /// The caller of `request`, if it is a manager of `cluster`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn manager<T>(request: &Request<T>, cluster: ClusterId) -> Result<Self, PeerError> {
        let peer = Self::of(request, cluster)?;
        if peer.subject.role == NodeRole::Manager { Ok(peer) } else { Err(PeerError::NotAManager) }
    }

    fn caller<T>(request: &Request<T>) -> Result<Self, PeerError> {
        // A call within the process: whoever passes it on says who calls.
        if let Some(peer) = request.extensions().get::<Self>() {
            return Ok(peer.clone());
        }
        let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().ok_or(PeerError::NoCertificate)?;
        let certs = tls.peer_certs().ok_or(PeerError::NoCertificate)?;
        let subject = subject(certs.first().ok_or(PeerError::NoCertificate)?)?;
        let addr = tls.get_ref().remote_addr().map(|a| a.ip().to_canonical().to_string()).unwrap_or_default();
        Ok(Self { subject, addr })
    }
}

/// The subject of a node's certificate.
///
/// # Errors
/// [`PeerError::NotANode`].
pub fn subject(der: &[u8]) -> Result<Subject, PeerError> {
    let bad = |what: &str| PeerError::NotANode(what.to_owned());
    let cert = ca::parse(der).map_err(|e| PeerError::NotANode(e.to_string()))?;
    let name = cert.subject();
    let role = match only(name.iter_organizational_unit()) {
        Some(unit) if unit == ca::unit(NodeRole::Manager) => NodeRole::Manager,
        Some(unit) if unit == ca::unit(NodeRole::Worker) => NodeRole::Worker,
        _ => return Err(bad("its role")),
    };
    let node = only(name.iter_common_name()).and_then(|n| n.parse().ok()).ok_or_else(|| bad("its name"))?;
    let cluster = only(X509Name::iter_organization(name)).and_then(|o| o.parse().ok());
    Ok(Subject { node, role, cluster: cluster.ok_or_else(|| bad("its organization"))? })
}

fn only<'a>(mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let first = values.next()?.as_str().ok();
    first.filter(|_| values.next().is_none())
}
