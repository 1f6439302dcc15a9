//! The planner in a simulated cluster: whole timelines with virtual time. Numbers in test names are items of
//! swarm-semantics 21.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod convergence;
mod cost;
mod globals;
mod jobs;
mod leaders;
mod nodes;
mod restarts;
mod rollbacks;
mod services;
mod support;
mod updates;
