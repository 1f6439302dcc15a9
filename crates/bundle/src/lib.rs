//! What a container is to be: a request, checked and completed, as the record that is kept of it ([`container`]), and the OCI
//! configuration that its supervisor is told to run ([`oci`]).
//!
//! What makes no sense is refused with Docker's text, what Docker has and Shoal does not have yet by its name ([`check`]);
//! nothing that is set is ever ignored. Nothing here makes, starts or changes anything: the machine is looked at only where
//! a module says so ([`host`], [`rootfs`], devices). It leaves to the engine: when a container is made, started and ended,
//! and everything that has a state.

pub mod check;
pub mod container;
mod error;
pub mod health;
pub mod host;
pub mod log_options;
pub mod merge;
pub mod mounts;
pub mod names;
pub mod oci;
pub mod ports;
pub mod restart;
pub mod rootfs;
pub mod signal;
pub mod words;

pub use error::{Error, Result};

/// The name of the runtime that containers run under: ours.
pub const RUNTIME: &str = "shoal";
