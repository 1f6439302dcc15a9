//! What handlers work with.

use std::sync::Arc;

use shoal_engine::Engine;
use shoal_node::Node;

/// The engine and the node behind the API.
#[derive(Clone)]
pub struct Api {
    /// Containers, images, volumes and networks of this machine.
    pub engine: Arc<Engine>,
    /// This machine's place in a swarm.
    pub node: Arc<Node>,
}
