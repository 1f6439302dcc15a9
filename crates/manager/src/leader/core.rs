//! Drives a pure core from the store's events and its own timers.

use shoal_plan::Planner;
use shoal_raft::{Raft, Snapshot, Update};
use shoal_schedule::Scheduler;
use shoal_types::{Event, Step, Timestamp};

use super::steps;
use crate::ids::RandomIds;

/// A core that decides from events: it is given each of them in order, and its steps are written before it is asked again.
pub trait Core: Default + Send + 'static {
    /// Its name in messages.
    const NAME: &'static str;
    /// Notes what changed.
    fn handle(&mut self, event: &Event);
    /// Decides on a state that has exactly the events handled so far.
    fn step(&mut self, view: &Snapshot, now: Timestamp) -> Step;
}

impl Core for Planner {
    const NAME: &'static str = "the planner";
    fn handle(&mut self, event: &Event) {
        Self::handle(self, event);
    }
    fn step(&mut self, view: &Snapshot, now: Timestamp) -> Step {
        Self::step(self, view, now, &mut RandomIds)
    }
}

impl Core for Scheduler {
    const NAME: &'static str = "the scheduler";
    fn handle(&mut self, event: &Event) {
        Self::handle(self, event);
    }
    fn step(&mut self, view: &Snapshot, now: Timestamp) -> Step {
        Self::step(self, view, now)
    }
}

/// Runs until leadership or consensus ends; gives the reason.
pub async fn run<C: Core>(raft: Raft) -> String {
    let (mut view, mut feed) = raft.subscribe();
    let mut core = C::default();
    loop {
        let step = core.step(&view, shoal_ambient::now());
        let is_idle = step.changes.is_empty();
        if let Err(failure) = steps::apply(&raft, &view, step.changes).await {
            return format!("{} ended: {failure}", C::NAME);
        }
        // Whatever was committed while the write was under way is handled in one go.
        let mut update = feed.try_next();
        if update.is_none() && is_idle {
            update = tokio::select! {
                update = feed.next() => Some(update),
                () = steps::sleep_until(step.wake_at) => None,
            };
        }
        while let Some(next) = update {
            match next {
                Update::Commit(commit) => {
                    commit.events.iter().for_each(|event| core.handle(event));
                    view = commit.snapshot.clone();
                }
                Update::Resync(state) => {
                    core = C::default();
                    view = state;
                }
            }
            update = feed.try_next();
        }
    }
}
