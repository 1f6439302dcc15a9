//! What only the leader runs, as one set: it starts when leadership is gained and everything before is applied, and ends
//! with it. If one part ends or panics, all end and a new set starts from the store: nothing is half-dead.

mod core;
mod roles;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use shoal_plan::Planner;
use shoal_raft::Raft;
use shoal_schedule::Scheduler;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::dispatch::Dispatcher;

/// The pause before a set that failed starts again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// One term of leadership: what others may call.
#[derive(Debug)]
pub struct Term {
    /// Speaks with agents.
    pub dispatcher: Arc<Dispatcher>,
    /// Brings their log lines.
    pub broker: Arc<Broker>,
}

/// The present term, if this manager leads.
#[derive(Debug, Clone)]
pub struct Active(watch::Receiver<Option<Arc<Term>>>);

/// Waits for the end of the term that was present.
#[derive(Debug)]
pub struct Ended(watch::Receiver<Option<Arc<Term>>>);

impl Active {
    /// The present term.
    pub fn now(&self) -> Option<Arc<Term>> {
        self.0.borrow().clone()
    }

    /// Sees the end of the present term.
    pub fn ended(&self) -> Ended {
        let mut receiver = self.0.clone();
        receiver.mark_unchanged();
        Ended(receiver)
    }
}

impl Ended {
    /// Waits for it.
    pub async fn wait(&mut self) {
        // An error is the end, too: the manager is gone.
        drop(self.0.changed().await);
    }
}

/// The loop that runs terms, and where to see them.
pub fn supervise(raft: Raft) -> (Active, impl Future<Output = ()> + Send + 'static) {
    let (tx, rx) = watch::channel(None);
    (Active(rx), run(raft, Announcer(tx)))
}

/// Announces terms, and that there is none once it is gone.
struct Announcer(watch::Sender<Option<Arc<Term>>>);

impl Drop for Announcer {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

async fn run(raft: Raft, active: Announcer) {
    let mut leads = raft.leadership();
    let mut backoff = BACKOFF.0;
    while let Ok(term) = leads.wait_for(Option::is_some).await.map(|term| *term) {
        let began = tokio::time::Instant::now();
        tracing::info!(?term, "this manager leads");
        let reason = lead(&raft, &active.0, leads.clone(), term).await;
        active.0.send_replace(None);
        let Some(reason) = reason else {
            tracing::info!(?term, "this manager leads no more");
            backoff = BACKOFF.0;
            continue;
        };
        tracing::error!(reason, "a part of the leader ended; starting all of them again");
        if began.elapsed() > BACKOFF.1 {
            backoff = BACKOFF.0;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// Runs one set until leadership ends (`None`) or a part of it does (why).
async fn lead(
    raft: &Raft,
    active: &watch::Sender<Option<Arc<Term>>>,
    leads: watch::Receiver<Option<u64>>,
    term: Option<u64>,
) -> Option<String> {
    let dispatcher = Arc::new(Dispatcher::new(raft.clone()));
    let mut parts = JoinSet::new();
    parts.spawn(core::run::<Planner>(raft.clone()));
    let (scheduled, dispatching) = (raft.clone(), dispatcher.clone());
    parts.spawn(async move {
        dispatching.has_gathered().await;
        core::run::<Scheduler>(scheduled).await
    });
    parts.spawn(roles::run(raft.clone()));
    parts.spawn(dispatcher.clone().run());
    let broker = Arc::<Broker>::default();
    parts.spawn(broker.clone().run(raft.clone()));
    active.send_replace(Some(Arc::new(Term { dispatcher, broker })));
    last(parts, leads, term).await
}

/// Waits for the end of leadership (`None`) or of the first part (why); the other parts end with it.
async fn last(
    mut parts: JoinSet<String>,
    mut leads: watch::Receiver<Option<u64>>,
    term: Option<u64>,
) -> Option<String> {
    let reason = tokio::select! {
        part = parts.join_next() => match part {
            Some(Ok(reason)) => Some(reason),
            Some(Err(panic)) => Some(panic.to_string()),
            None => Some("no part was left".to_owned()),
        },
        _ = leads.wait_for(|now| *now != term) => None,
    };
    // Parts end by themselves when leadership does; that is not their fault.
    let still_leads = *leads.borrow() == term;
    parts.shutdown().await;
    reason.filter(|_| still_leads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> (JoinSet<String>, Arc<()>) {
        let (mut parts, alive) = (JoinSet::new(), Arc::new(()));
        for _ in 0..3 {
            let alive = alive.clone();
            parts.spawn(async move {
                std::future::pending::<()>().await;
                drop(alive);
                String::new()
            });
        }
        (parts, alive)
    }

    #[tokio::test]
    async fn a_part_that_panics_or_ends_takes_the_others_with_it_and_says_why() {
        for is_panic in [true, false] {
            let (mut parts, alive) = set();
            parts.spawn(async move {
                if is_panic {
                    std::panic::resume_unwind(Box::new("a defect"));
                }
                "it ended".to_owned()
            });
            let (_lead, leads) = watch::channel(Some(1));
            let reason = last(parts, leads, Some(1)).await.unwrap();
            assert!(reason.contains(if is_panic { "panicked" } else { "it ended" }), "{reason}");
            assert_eq!(Arc::strong_count(&alive), 1, "no part is left");
        }
    }

    #[tokio::test]
    async fn the_end_of_leadership_ends_all_parts_without_blame() {
        let (parts, alive) = set();
        let (lead, leads) = watch::channel(Some(1));
        lead.send_replace(None);
        assert_eq!(last(parts, leads, Some(1)).await, None);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
