//! What goes through the log, and the types that parametrise the algorithm.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_store::Snapshot;
use shoal_store::packed::Packer;
use shoal_types::{Change, NodeId, Timestamp};

use crate::snapshot::Pieces;

openraft::declare_raft_types!(
    /// The types of our log.
    pub Types:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Member,
        Entry = openraft::Entry<Types>,
        SnapshotData = Image,
        AsyncRuntime = crate::runtime::Tokio,
);

/// One write of the cluster: applied whole, by every manager, at the same place of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's clock; becomes the objects' `created_at` and `updated_at`.
    pub time: Timestamp,
    /// The term in which it was decided. In the log of another term it is void: it was decided on a state that others may
    /// have changed since.
    pub term: u64,
    /// What changes.
    #[serde(with = "shoal_store::packed")]
    pub changes: Arc<[Change]>,
}

/// What the proposer learns: the place in the log, which is the version of all objects written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The place in the log.
    pub index: u64,
    /// Whether it had no effect, having been decided in another term.
    pub is_void: bool,
}

/// A manager that takes part in consensus. Its number in the log is random; this says who it is and where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its node.
    pub node_id: Option<NodeId>,
    /// Where it listens: `host:port`. May change; the number stays.
    pub addr: String,
    /// The cluster that it is a member of. Raft says it, whatever the caller does.
    #[serde(default)]
    pub lineage: Lineage,
}

/// Tells a cluster that goes on by force from the one that it was: they have the same name, keys and members' numbers, and
/// neither may follow the other. The same for all members of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// How often it was forced.
    pub epoch: u64,
    /// The member that was forced last; 0 where none ever was.
    pub by: u64,
}

/// The whole state of the cluster at one place of the log, in the form in which the algorithm hands it around.
#[derive(Debug, Clone, Default)]
pub enum Image {
    /// It stays where it is: on disk, or in the state machine.
    #[default]
    Elsewhere,
    /// On disk, to be sent.
    Stored(Pieces),
    /// It came from another member, and is on disk here.
    Received(Snapshot),
}

/// The algorithm.
pub type Core = openraft::Raft<Types>;
/// A place in the log.
pub type LogId = openraft::LogId<u64>;
/// One entry of the log.
pub type Entry = openraft::Entry<Types>;
/// A vote.
pub type Vote = openraft::Vote<u64>;
/// What a snapshot says about itself.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Member>;
/// The members as of some place in the log.
pub type StoredMembership = openraft::StoredMembership<u64, Member>;
/// What the algorithm is told when storage fails. It ends the algorithm; whoever runs it opens the log again.
pub type StorageError = openraft::StorageError<u64>;

/// A proposal larger than this is refused (swarm-semantics 1.4). Bytes of its serde form.
pub const MAX_PROPOSAL: usize = 1_572_864;

/// The size at which a batch of writes is closed: three quarters of [`MAX_PROPOSAL`].
pub const FULL_PROPOSAL: usize = MAX_PROPOSAL / 4 * 3;

/// Bytes of the serde form of `value`, without making it.
fn encoded_len<T: Serialize>(value: &T) -> Result<usize, serde_json::Error> {
    #[derive(Default)]
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0 += buf.len();
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count::default();
    serde_json::to_writer(&mut count, value)?;
    Ok(count.0)
}

/// Bytes of `change` in a proposal, after the changes that were packed before, at most.
pub fn packed_len(packer: &mut Packer, change: &Change) -> Result<usize, serde_json::Error> {
    // A comma; and where lists are joined, the numbers of templates grow by some digits.
    packer.pack(change).map(|item| Ok(encoded_len(&item)? + 1 + 4)).sum()
}

impl Proposal {
    /// Splits `changes` into lists that each fit into one proposal, in order. For writers whose changes need not be
    /// applied together.
    pub fn split(changes: Vec<Change>) -> Vec<Vec<Change>> {
        let (mut ends, mut size, mut packer) = (Vec::new(), 0, Packer::default());
        for (at, change) in changes.iter().enumerate() {
            // What cannot be encoded is refused when it is proposed.
            let mut add = packed_len(&mut packer, change).unwrap_or(0);
            if size + add > FULL_PROPOSAL && size > 0 {
                ends.push(at);
                (size, packer) = (0, Packer::default());
                add = packed_len(&mut packer, change).unwrap_or(0);
            }
            size += add;
        }
        let mut changes = changes;
        let mut lists: Vec<_> = ends.into_iter().rev().map(|at| changes.split_off(at)).collect();
        if !changes.is_empty() {
            lists.push(changes);
        }
        lists.reverse();
        lists
    }
}
