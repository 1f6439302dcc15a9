//! The seam to the agent: the binary says how one is started, the node says when.

use std::path::Path;
use std::sync::Arc;

use shoal_types::NodeId;
use shoal_types::object::TlsInfo;
use shoal_wire::Uplink;
use tokio::sync::watch;

/// Why the agent of this node does not start.
pub type LaunchError = Box<dyn std::error::Error + Send + Sync>;

/// What an agent is given.
#[derive(Clone)]
pub struct Launch<'a> {
    /// The node that it works for.
    pub node: NodeId,
    /// What the node trusts and who issued its certificate; part of what it says about itself.
    pub tls: watch::Receiver<TlsInfo>,
    /// Where it keeps what it was told to run.
    pub state_dir: &'a Path,
    /// How it reaches managers.
    pub uplink: Arc<dyn Uplink>,
}

/// Starts the agent of this node.
#[tonic::async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// Starts it. It goes on with the tasks that it had.
    ///
    /// # Errors
    /// Its record cannot be used.
    async fn launch(&self, launch: Launch<'_>) -> Result<Box<dyn LocalAgent>, LaunchError>;
}

/// The running agent of this node.
#[tonic::async_trait]
pub trait LocalAgent: Send + Sync {
    /// Ends the session and lets go of the tasks. Their containers go on.
    async fn stop(self: Box<Self>);
    /// Ends the session, stops the tasks and removes their containers.
    async fn leave(self: Box<Self>);
}
