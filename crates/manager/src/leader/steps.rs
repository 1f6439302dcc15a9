//! Carries out what a pure core wants: a step is decided on a state of the store, and written on top of what has
//! been written since.

use std::time::Duration;

use shoal_raft::{Proposal, Raft, Snapshot, Tx, WriteError, WriteFailure};
use shoal_store::Conflict;
use shoal_types::{Change, Object, Timestamp, View};
use tokio::time::Instant;

/// How long to wait when the disk is full.
const RETRY: Duration = Duration::from_secs(1);

/// Writes the changes of a step that was decided on `seen`.
///
/// One transaction where they fit into an entry of the log; in several, in order, where they do not.
///
/// # Errors
/// Leadership or consensus ended.
pub async fn apply(raft: &Raft, seen: &Snapshot, changes: Vec<Change>) -> Result<(), WriteFailure> {
    for part in Proposal::split(changes) {
        loop {
            let (seen, part) = (seen.clone(), part.clone());
            let written = raft.write(move |tx: &mut Tx| part.into_iter().try_for_each(|c| settle(tx, &seen, c)));
            match written.await {
                Ok(()) => break,
                Err(WriteError::Failed(error @ WriteFailure::NoSpace(_))) => {
                    tracing::warn!(%error, "a step of the leader waits");
                    tokio::time::sleep(RETRY).await;
                }
                Err(WriteError::Refused(conflict)) => {
                    // The step made or renamed a service, which no core does.
                    return Err(WriteFailure::Stopped(conflict.to_string()));
                }
                Err(WriteError::Failed(failure)) => return Err(failure),
            }
        }
    }
    Ok(())
}

/// Makes one change of a step, unless a user's write that the step could not know of has overtaken it. The core hears of
/// that write next and decides anew.
fn settle(tx: &mut Tx, seen: &Snapshot, change: Change) -> Result<(), Conflict> {
    let is_overtaken = match &change {
        Change::Put(Object::Service(service)) => tx.service(service.id) != seen.service(service.id),
        Change::Put(Object::Task(task)) => tx.service(task.service_id).is_none() && tx.task(task.id).is_none(),
        _ => false,
    };
    if is_overtaken { Ok(()) } else { tx.change(change) }
}

/// When `at` is, for the timer. Times that have passed are now.
pub fn instant(at: Timestamp) -> Instant {
    let span = at.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(span).unwrap_or_default()
}

/// Waits until `at`, or for ever.
pub async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep_until(instant(at)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_has_passed_is_now() {
        sleep_until(Some(Timestamp::MIN)).await;
        assert!(instant(Timestamp::now()) <= Instant::now() + Duration::from_secs(1));
    }
}
