//! Planner, scheduler and store together, on several nodes: what becomes of tasks when nodes come, go, fail, drain, pause and
//! change (swarm-semantics 3.5, 3.6, 4; items 33 to 42 of its checklist).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nodes;
mod placement;
mod support;
