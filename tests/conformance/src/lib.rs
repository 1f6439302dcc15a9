//! Black-box tests of a container engine, and what they are made of.
//!
//! The program `conformance` runs every test of [`suite`] against the engine that `DOCKER_HOST` names, whoever wrote that engine; the
//! tasks of `cargo xtask` use the same client, image builder and daemon launcher for their own ends. Nothing here links any
//! part of Shoal: what a test knows, it learnt over a socket.

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod cx;
pub mod e2e;
pub mod error;
pub mod harness;
pub mod http;
pub mod images;
pub mod lab;
pub mod launch;
pub mod registry;
pub mod suite;
