//! This machine's place in a swarm: who it is, how it begins, comes back and leaves.
//!
//! Owns the files under `<data-root>/swarm`, the certificate of this node, the port that other nodes call, and the life of
//! manager and agent. Leaves to others: what the manager does (`manager`), how tasks run (`agent`, behind
//! [`launch::Launcher`]).

pub mod addresses;
mod changes;
pub mod identity;
mod info;
mod init;
pub mod launch;
mod leave;
mod member;
mod node;
mod paths;
mod renew;
mod server;
mod supervise;
#[cfg(test)]
mod tests;
mod uplink;

pub use changes::Changes;
pub use info::{LocalState, SwarmInfo};
pub use init::InitRequest;
pub use node::Node;
