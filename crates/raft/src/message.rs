//! What members say to each other, as bytes: the length of the head, the head in JSON, then raw bytes (a piece of a
//! snapshot). Entries are in the head, in the same form as in the log.

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::members::DismissError;
use crate::types::{Lineage, LogId, SnapshotMeta, Types, Vote};

/// The largest message that is sent, in bytes: what carries it takes 4 MiB with an envelope.
pub const MAX_CALL: usize = 4 * 1024 * 1024 - 64 * 1024;

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// The number of the member that calls.
    pub from: u64,
    /// The cluster that it is a member of; none while it knows of none that has it.
    #[serde(default)]
    pub lineage: Option<Lineage>,
    /// What it wants.
    pub what: What,
}

/// What a member wants from another.
#[derive(Debug, Serialize, Deserialize)]
pub enum What {
    /// The algorithm's own: follow me, and take these entries.
    Append {
        /// The algorithm's request.
        rpc: AppendEntriesRequest<Types>,
        /// The leader's last entry: the caller has been sent nothing beyond it.
        last: u64,
    },
    /// I lead and live. The algorithm's own signs of life wait for disks; this one does not.
    Beat {
        /// What the caller leads by.
        vote: Vote,
        /// The members that it does not reach.
        down: Vec<u64>,
    },
    /// The algorithm's own: vote for me.
    Vote(VoteRequest<u64>),
    /// Would you vote for me, if I stood? Changes nothing.
    Poll {
        /// The caller's last entry.
        last: Option<LogId>,
        /// Where the caller's list of members is in the log.
        members: Option<LogId>,
    },
    /// A piece of a snapshot, in the raw bytes.
    Piece(Piece),
    /// I lead no more once you stand: stand as soon as the others are free to vote.
    Stand {
        /// What the caller leads by.
        vote: Vote,
    },
    /// You are not a member any more.
    Gone {
        /// What the caller leads by.
        vote: Vote,
    },
    /// Dismiss this member; I led before you.
    Dismiss {
        /// Its number.
        number: u64,
    },
}

/// A piece of a snapshot. Pieces are sent one after the other; each is answered before the next one goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Piece {
    /// What the sender leads by.
    pub vote: Vote,
    /// Tells this sending from all others.
    pub transfer: u64,
    /// Its place in the row, from 0 on.
    pub seq: u64,
    /// What the snapshot says about itself; in the first piece.
    pub meta: Option<SnapshotMeta>,
    /// Whether the row ends with it.
    pub is_last: bool,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The algorithm's own.
    Append(AppendEntriesResponse<u64>),
    /// The sign of life was heard.
    Beat {
        /// It was the leader's, and the algorithm there is not stuck.
        is_awake: bool,
    },
    /// The algorithm's own.
    Vote(VoteResponse<u64>),
    /// What a member thinks of the caller.
    Poll(Opinion),
    /// How far a snapshot is.
    Piece {
        /// The newest vote there.
        vote: Vote,
        /// The piece that it waits for; 0: it knows nothing of this sending.
        next: u64,
        /// Whether the snapshot is installed, or not needed any more.
        is_done: bool,
    },
    /// It is done or on its way.
    Done,
    /// The outcome of a dismissal.
    Dismissed(Result<(), DismissError>),
    /// The caller is a member of another cluster than this one, which is a member of that of `lineage`.
    Foreign {
        /// This one's.
        lineage: Lineage,
    },
}

/// What a member thinks of one that may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opinion {
    /// It would get my vote.
    For,
    /// It would not: I hear a leader, or know more.
    Against,
    /// It was removed, after what it knows.
    Gone,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They end early.
    #[error("it ends early")]
    Short,
    /// The head is not what it should be.
    #[error(transparent)]
    Head(#[from] serde_json::Error),
}

/// `head` and `tail` as a message.
///
/// # Errors
/// `head` has no JSON form: a number that is not finite, a key that is not text.
pub fn encode<T: Serialize>(head: &T, tail: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = vec![0; 4];
    serde_json::to_writer(&mut out, head)?;
    let len = u32::try_from(out.len() - 4).expect("heads are some MiB at most");
    out[..4].copy_from_slice(&len.to_le_bytes());
    out.extend_from_slice(tail);
    Ok(out)
}

/// The head and the raw bytes of a message.
///
/// # Errors
/// [`DecodeError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
    let len = u32::from_le_bytes(*len) as usize;
    let (head, tail) = rest.split_at_checked(len).ok_or(DecodeError::Short)?;
    Ok((serde_json::from_slice(head)?, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_with_its_raw_bytes_and_a_cut_one_is_refused() {
        let piece = Piece { vote: Vote::new(3, 7), transfer: 9, seq: 1, meta: None, is_last: true };
        let bytes = encode(&Call { from: 5, lineage: None, what: What::Piece(piece) }, b"\0raw").unwrap();
        let (call, tail) = decode::<Call>(&bytes).unwrap();
        assert!(
            matches!(call, Call { from: 5, what: What::Piece(p), .. } if p.seq == 1 && p.transfer == 9 && p.is_last)
        );
        assert_eq!(tail, b"\0raw");
        for cut in 0..bytes.len() - 4 {
            assert!(decode::<Call>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
