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
    let span = at.duration_since(shoal_ambient::now());
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
    use std::sync::Arc;

    use shoal_types::object::UpdateStatus;
    use shoal_types::spec::{ClusterSpec, UpdateState};
    use shoal_types::{Service, ServiceId};

    use super::*;
    use crate::control::ServiceUpdate;
    use crate::testing::{Fixture, service};

    /// A step that marks the update of `id` as begun, decided on `seen`.
    fn step(seen: &Snapshot, id: ServiceId) -> Vec<Change> {
        let status = UpdateStatus {
            state: UpdateState::Paused,
            started_at: None,
            completed_at: None,
            message: "step".to_owned(),
        };
        let before = seen.service(id).unwrap().as_ref().clone();
        vec![Change::Put(Object::Service(Arc::new(Service { update_status: Some(status), ..before })))]
    }

    #[tokio::test]
    async fn a_step_does_not_undo_what_a_user_wrote_meanwhile() {
        let f = Fixture::new(ClusterSpec::initial()).await;
        let id = f.control.create_service(service("web", 0), None).await.unwrap();
        let seen = f.control.snapshot();
        let version = seen.service(id).unwrap().meta.version;
        let update = ServiceUpdate { version, ..ServiceUpdate::default() };
        let mut wanted = service("web", 0);
        wanted.labels.insert("a".to_owned(), "b".to_owned());
        f.control.update_service("web", wanted, update).await.unwrap();
        apply(&f.raft, &seen, step(&seen, id)).await.unwrap();
        let kept = f.control.get_service("web").unwrap();
        assert_eq!((kept.spec.labels.len(), kept.update_status.clone()), (1, None));

        let seen = f.control.snapshot();
        apply(&f.raft, &seen, step(&seen, id)).await.unwrap();
        assert_eq!(f.control.get_service("web").unwrap().update_status.as_ref().unwrap().message, "step");
    }

    #[tokio::test]
    async fn a_step_brings_no_removed_service_back() {
        let f = Fixture::new(ClusterSpec::initial()).await;
        let id = f.control.create_service(service("web", 0), None).await.unwrap();
        let seen = f.control.snapshot();
        f.control.remove_service("web").await.unwrap();
        apply(&f.raft, &seen, step(&seen, id)).await.unwrap();
        assert!(f.control.get_service("web").is_err());
    }

    #[tokio::test]
    async fn a_time_that_has_passed_is_now() {
        sleep_until(Some(Timestamp::MIN)).await;
        assert!(instant(Timestamp::now()) <= Instant::now() + Duration::from_secs(1));
    }
}
