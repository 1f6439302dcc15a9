//! Whether what a user wants is well-formed, and something that Shoal has (swarm-semantics 1.3, 13.4).

mod cluster;
mod container;
mod image;
mod payload;
mod refusal;
mod service;
mod unsupported;

pub use cluster::{cluster_update, new_cluster, node_update};
pub use image::is_image_reference;
pub use payload::{payload, payload_removal, payload_update, references_exist};
pub use refusal::{Origin, Refusal, RefusalKind};
pub use service::{name, normal_service, service, service_update};
