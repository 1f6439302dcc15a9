//! Cluster objects as the Engine API shows them (swarm-semantics 19): what is internal is left out, what Docker
//! always prints is there.

pub mod cluster;
pub mod defaults;
pub mod node;
pub mod payload;
pub mod service;
pub mod task;

use serde::Serialize;
use shoal_types::{Meta, Timestamp};

/// `{"Index": n}`; `{}` for 0.
#[derive(Debug, Serialize)]
pub struct Version {
    /// The version index.
    #[serde(rename = "Index", skip_serializing_if = "shoal_types::json::is_zero")]
    pub index: u64,
}

/// Version and times, as every object starts after its identifier.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetaBody {
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Meta> for MetaBody {
    fn from(meta: Meta) -> Self {
        Self { version: Version { index: meta.version }, created_at: meta.created_at, updated_at: meta.updated_at }
    }
}
