//! How an agent reaches a manager. The node implements it: it holds the certificate and knows the managers.

use std::fmt;
use std::sync::Arc;

use shoal_types::Node;
use tonic::transport::Channel;

use crate::session::Manager;

/// Ways from this node to the managers.
#[tonic::async_trait]
pub trait Uplink: Send + Sync + 'static {
    /// Opens a connection to one of the managers that are known, with this node's certificate as it is now.
    ///
    /// # Errors
    /// [`UplinkError`] where none can be reached. Try again later: another one may be chosen.
    async fn connect(&self) -> Result<Remote, UplinkError>;

    /// Opens a connection to the manager that listens on `addr` (`host:port`): another one has named it as the leader.
    ///
    /// # Errors
    /// [`UplinkError`] where it cannot be reached.
    async fn connect_to(&self, addr: &str) -> Result<Remote, UplinkError>;

    /// Whether the manager behind `remote` does its part: it answered, be it that it does not lead, and a session held.
    /// Failures make other managers likelier.
    fn observe(&self, remote: &Remote, good: bool);

    /// The managers as the leader knows them, from every [`crate::session::Welcome`].
    fn learn(&self, managers: &[Manager]);

    /// The certificates that the cluster trusts, PEM, from every [`crate::session::Welcome`].
    fn trust(&self, root_ca: &str);

    /// This node as the cluster sees it, from every [`crate::session::Welcome`]: its role may have changed.
    fn told(&self, node: &Node);
}

/// A connection to a manager.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Where the manager listens.
    pub addr: String,
    /// The connection.
    pub channel: Channel,
}

/// Why no manager can be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UplinkError {
    /// None is known.
    #[error("no manager is known")]
    NoManager,
    /// The one that was tried does not answer, or is not one of ours.
    #[error("cannot reach the manager at {addr}: {source}")]
    Unreachable {
        /// Where it should be.
        addr: String,
        /// What happened.
        source: Arc<tonic::transport::Error>,
    },
    /// This node's certificate cannot be used.
    #[error("cannot use the certificate of this node: {source}")]
    Certificate {
        /// What is wrong with it.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl fmt::Debug for dyn Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uplink")
    }
}
