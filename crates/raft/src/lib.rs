//! Consensus: the algorithm is openraft's; log, snapshots, state machine and the queue of writes are ours.
//!
//! Owns what is on disk of the cluster's state (encrypted), what is agreed on, and in which order it is applied to the
//! store, who leads, who takes part. Leaves to others: what is written, and what carries a call to another manager
//! (`manager`, over the connections of `node`).
//!
//! Promise: a write that was answered survives `kill -9`, torn writes and a full disk. A full disk refuses writes and lets
//! everything go on once there is space.

mod contact;
mod doubt;
mod election;
mod feed;
mod force;
mod frame;
mod log;
mod machine;
mod media;
mod members;
mod message;
mod network;
mod peer;
mod raft;
mod reign;
mod runtime;
mod serve;
mod snapshot;
mod transfer;
mod trim;
mod types;
mod writer;

pub use feed::{Commit, Feed, Update};
pub use force::ForceError;
pub use frame::DataKey;
pub use log::{OpenError as LogError, ReserveError};
pub use media::{Files, Media, MediaFile};
pub use members::{AdmitError, DismissError, HandOverError, Participant};
pub use network::{NoPeers, Transport, TransportError};
pub use raft::{BeginError, Config, OpenError, Raft};
pub use serve::ServeError;
pub use shoal_store::{Snapshot, Tx};
pub use snapshot::SnapshotError;
pub use trim::ShedError;
pub use types::{Applied, Lineage, MAX_PROPOSAL, Member, Proposal, Types};
pub use writer::{WriteError, WriteFailure};

#[cfg(test)]
mod tests;
