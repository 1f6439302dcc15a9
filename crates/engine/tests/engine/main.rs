//! Real containers, through the engine alone: needs root, namespaces and control groups.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adoption;
mod create;
mod exec;
mod files;
mod health;
mod life;
mod private;
mod support;
