//! A cluster that has lost its majority for good goes on with what one manager has.
//!
//! What is in the log beyond the last snapshot may be agreed on or not: only the lost managers knew. All of it is kept.
//! Whatever was answered to a client and is here is kept for sure; of what was not answered, something may become true
//! that its client was told nothing about, as with any leader that is lost.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, StorageHelper};
use openraft::{CommittedLeaderId, EntryPayload, Membership};

use crate::log::LogStore;
use crate::machine::Machine;
use crate::types::{Entry, Lineage, LogId, Member, StorageError, Vote};

/// Why a manager cannot go on alone.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    /// It never was one of a cluster's.
    #[error("there is no cluster to go on with")]
    NoCluster,
    /// Its log cannot be read or written.
    #[error(transparent)]
    Storage(Box<StorageError>),
}

impl From<StorageError> for ForceError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Box::new(error))
    }
}

/// Makes member `number` the only one, where it is not. Doing it twice is the same as once.
///
/// # Errors
/// [`ForceError`]; what is on disk is as good as before.
pub async fn ensure_alone(number: u64, log: &mut LogStore, machine: &mut Machine) -> Result<(), ForceError> {
    let state = StorageHelper::new(log, machine).get_initial_state().await?;
    let effective = state.membership_state.effective();
    let me = effective.membership().get_node(&number).cloned().ok_or(ForceError::NoCluster)?;
    let is_alone = effective.membership().nodes().all(|(n, _)| *n == number);
    let Some(last) = log.last().filter(|_| !is_alone) else { return Ok(()) };
    // As if this manager had been elected by the lost ones once more: what it writes then counts more than all before.
    let term = state.vote_ref().leader_id().term + 1;
    log.save_vote(&Vote::new(term, number)).await?;
    // The others are members of another cluster from here on, should they ever come back.
    let lineage = Lineage { epoch: me.lineage.epoch + 1, by: number };
    let me = Member { lineage, ..me };
    let members = Membership::new(vec![[number].into()], std::collections::BTreeMap::from([(number, me)]));
    let log_id = LogId::new(CommittedLeaderId::new(term, number), last.index + 1);
    log.blocking_append([Entry { log_id, payload: EntryPayload::Membership(members) }]).await?;
    Ok(())
}
