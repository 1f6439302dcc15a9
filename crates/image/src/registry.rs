//! Speaking the registry protocol (OCI distribution, "v2"): endpoints, credentials, manifests, blobs.
//!
//! Nothing here touches the store; nothing that a registry sends is believed: bodies have limits and deadlines, and
//! content is checked against its digest, here for documents and by the reader for layers.

mod auth;
mod endpoint;
mod error;
mod http;
mod inspect;
mod manifest;
mod session;

use std::path::PathBuf;
use std::time::Duration;

pub use auth::RegistryAuth;
pub(crate) use endpoint::Registry;
pub use endpoint::RegistryConfigError;
pub use error::RegistryError;
pub use inspect::{DistributionInspect, ManifestDescriptor};
pub use manifest::Platform;
pub(crate) use manifest::{Content, Descriptor, Document, select};
pub(crate) use session::Session;

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Mirrors of docker.io, tried in order before it: URLs, `http` or `https`.
    pub mirrors: Vec<String>,
    /// Registries that may have an unknown certificate or speak plain HTTP: `host[:port]`, or networks as
    /// `address/bits`. Loopback always may.
    pub insecure: Vec<String>,
    /// A directory with one directory per `host[:port]` that holds `*.crt` (authorities), and `*.cert` with `*.key`
    /// (our certificate).
    pub certs_dir: Option<PathBuf>,
    /// Layers downloaded at once, over all pulls.
    pub max_concurrent_downloads: usize,
    /// How often the download of a layer is tried when the connection breaks.
    pub max_download_attempts: u32,
    /// How long a registry may send nothing.
    pub stall_timeout: Duration,
}

impl Default for RegistryConfig {
    /// Docker's defaults, and half a minute of silence.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_dir: None,
            max_concurrent_downloads: 3,
            max_download_attempts: 5,
            stall_timeout: Duration::from_secs(30),
        }
    }
}
