//! This machine's place in a swarm: who it is, how it begins, comes back and leaves.
//!
//! Owns the files under `<data-root>/swarm`, the certificate of this node, the port that other nodes call, and the life of
//! manager and agent. Leaves to others: what the manager does (`manager`), how tasks run (`agent`, behind
//! [`launch::Launcher`]).

pub mod addresses;
mod admission;
mod authority;
mod changes;
mod dialer;
pub mod identity;
mod info;
mod init;
mod join;
mod joining;
mod keys;
pub mod launch;
mod leave;
mod lock;
mod member;
mod membership;
mod node;
mod paths;
mod remotes;
mod renew;
mod server;
mod supervise;
#[cfg(test)]
mod tests;
mod unlock;
mod uplink;
mod vault;
mod whereabouts;

pub use changes::Changes;
pub use info::{LocalState, SwarmInfo};
pub use init::InitRequest;
pub use join::{JoinRequest, Joined};
pub use node::Node;
