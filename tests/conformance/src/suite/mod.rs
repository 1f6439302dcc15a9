//! The tests, by subject. A name that begins with `item_NNN` stands for that line of the Swarm conformance checklist.

use crate::harness::Test;

mod attach;
mod bad_input;
mod cli;
mod configs;
mod container;
mod events;
mod exec;
pub mod generic;
mod health;
mod image;
mod jobs;
mod listing;
mod logs;
mod membership;
mod network;
mod node;
mod pull;
mod run_options;
mod sandbox;
mod schedule;
pub mod secrets;
mod service;
mod service_logs;
mod service_options;
pub mod services;
pub mod system;
mod task;
mod update;
mod update_failure;
mod volume;

/// Every test.
#[must_use]
pub fn all() -> Vec<Test> {
    let parts: &[&[Test]] = &[
        membership::TESTS,
        service::TESTS,
        task::TESTS,
        update::TESTS,
        update_failure::TESTS,
        schedule::TESTS,
        jobs::TESTS,
        generic::TESTS,
        service_options::TESTS,
        secrets::TESTS,
        configs::TESTS,
        service_logs::TESTS,
        cli::TESTS,
        node::TESTS,
        system::TESTS,
        bad_input::TESTS,
        container::TESTS,
        run_options::TESTS,
        sandbox::TESTS,
        exec::TESTS,
        attach::TESTS,
        logs::TESTS,
        health::TESTS,
        network::TESTS,
        volume::TESTS,
        listing::TESTS,
        events::TESTS,
        image::TESTS,
        pull::TESTS,
    ];
    parts.concat()
}
