//! Which tasks should exist: replicated and global services and jobs, restarts, rolling updates and rollbacks, history,
//! and what becomes of tasks when services, nodes or their labels change.
//!
//! Owns every decision to make, replace, stop, orphan, reject or forget a task, and the `update_status` of services.
//! Leaves to others: where tasks run (`schedule`), what a node does with them (`lifecycle`), and checking what
//! users ask for (`types::validate`). Behaviour: swarm-semantics 2.6–2.8, 3.1, 3.2, 3.5, 3.6, 5.
//!
//! Nearly everything is derived from the stored objects each time, so that a new leader decides as the old one would
//! have. What [`Planner`] remembers beside them is an index, timers, and how far a rolling update is.
//!
//! Where it is deliberately not Swarm:
//! - Beyond what start-first means, a new task does not start while an old one of its slot stops (for up to a minute,
//!   or the old task's grace period and ten seconds), also when a slot is scaled away and back.
//! - A slot whose new task failed during a start-first update keeps the old one alone while the update is paused.
//! - A rollback that fails ends as `rollback_paused` whatever its failure action; an update with nothing to roll back
//!   to is paused.
//! - An update goes on when the node of a new task goes away, keeps its parallelism when another update overtakes it,
//!   and keeps watching its tasks when the leader changes.
//! - Slots that go stale after an update has ended are updated without a word in the service's update status.

mod current;
mod draft;
mod enforcer;
mod global;
mod goal;
mod job;
mod nodes;
mod planner;
mod reaper;
mod replicated;
mod restart;
mod service;
mod slots;
mod timers;
mod update;

pub use current::UpToDate;
pub use planner::Planner;
