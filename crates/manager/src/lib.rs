//! The manager: the loops that only the leader runs, the dispatcher that speaks with agents, the certificate authority,
//! the control API and the log broker.
//!
//! Owns what happens between a client's wish, the replicated store and the agents. Leaves to others: what should exist
//! (`plan`), where it runs (`schedule`), how writes are agreed on (`raft`), who this machine is (`node`).
//!
//! Everything the leader runs is one set: if one part ends, all end and start again from the store.

mod begin;
mod broker;
pub mod ca;
pub mod control;
mod dispatch;
mod ids;
mod lead;
mod leader;
mod manager;
mod peer;
#[cfg(test)]
mod testing;
mod transport;

pub use begin::{begin, go_on_alone};
pub use broker::{LogEnd, LogStream};
pub use control::Control;
pub use ids::RandomIds;
pub use manager::Manager;
pub use peer::{Peer, PeerError};
pub use transport::GrpcTransport;
