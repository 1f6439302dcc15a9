//! Consensus: the algorithm is openraft's; log, snapshots, state machine and the queue of writes are ours.
//!
//! Owns what is on disk of the cluster's state (encrypted), what is agreed on, and in which order it is applied to the
//! store. Leaves to others: what is written (`manager`), how managers reach each other (`node`).
//!
//! Promise: a write that was answered survives `kill -9`, torn writes and a full disk. A full disk refuses writes and lets
//! everything go on once there is space.

mod feed;
mod frame;
mod log;
mod machine;
mod network;
mod raft;
mod snapshot;
mod types;
mod writer;

pub use feed::{Commit, Feed, Update};
pub use frame::DataKey;
pub use log::{OpenError as LogError, ReserveError};
pub use network::NoPeers;
pub use raft::{BeginError, Config, OpenError, Raft};
pub use shoal_store::{Snapshot, Tx};
pub use snapshot::SnapshotError;
pub use types::{Applied, MAX_PROPOSAL, Member, Proposal, Types};
pub use writer::{WriteError, WriteFailure};

#[cfg(test)]
mod tests;
