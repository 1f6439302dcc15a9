//! Who leads, as this manager sees it, and waiting for that to change.

use shoal_raft::Raft;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// The manager that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// Its number in the log.
    pub number: u64,
    /// Where it listens: `host:port`.
    pub addr: String,
}

/// The leader, where one is known.
pub fn now(raft: &Raft) -> Option<Lead> {
    raft.leader().borrow().clone().map(|(number, member)| Lead { number, addr: member.addr })
}

/// Waits until a leader is known, but no longer than `until`. This manager itself counts once it has applied everything
/// of former terms.
pub async fn known(raft: &Raft, until: Instant) -> Option<Lead> {
    let (mut leader, mut leads) = (raft.leader(), raft.leadership());
    loop {
        let seen = leader.borrow_and_update().clone();
        let is_ready = leads.borrow_and_update().is_some();
        if let Some((number, member)) = seen.filter(|(number, _)| *number != raft.number() || is_ready) {
            return Some(Lead { number, addr: member.addr });
        }
        let changed = async {
            tokio::select! { changed = leader.changed() => changed, changed = leads.changed() => changed }
        };
        // Consensus has ended, or it is too late.
        if !matches!(timeout_at(until, changed).await, Ok(Ok(()))) {
            return None;
        }
    }
}

/// Waits until `number` does not lead any more.
pub async fn over(raft: &Raft, number: u64) {
    let mut leader = raft.leader();
    // An error means that consensus has ended here.
    drop(leader.wait_for(|l| l.as_ref().is_none_or(|(leads, _)| *leads != number)).await);
}

/// The refusal of this manager, which does not lead.
pub fn elsewhere(raft: &Raft) -> Status {
    let lead = now(raft).filter(|l| l.number != raft.number());
    shoal_wire::dial::not_leader(lead.as_ref().map(|l| l.addr.as_str()))
}
