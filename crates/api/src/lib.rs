//! The Docker Engine API: parse to a call, make it, answer; errors to HTTP in one file.
//!
//! Owns paths, queries, bodies, streams and statuses. Leaves every decision to `engine` and `manager`.

mod body;
mod convert;
pub mod error;
mod lines;
mod loose;
mod query;
mod routes;
pub mod serve;
pub mod state;
mod stream;
mod version;

pub use routes::router;
pub use state::Api;
