//! Images of this node: references, registries, content, layers and container root file systems.
//!
//! The crate owns one directory (see `layout.rs`): verified blobs, one unpacked directory per layer, the record that
//! ties images, tags and layers together, and the writable part of each container's root file system. It leaves to
//! others which containers exist (callers say who uses an image), events, and the mapping of errors to HTTP (see
//! [`ErrorKind`]).

pub mod config;
pub mod digest;
pub mod error;
pub mod progress;
pub mod reference;
pub mod registry;

mod confined;
mod extract;
mod job;
mod layout;
mod load;
mod meta;
mod pull;
mod remove;
mod resolve;
mod snapshot;
mod store;
mod trash;

pub use config::{ContainerConfig, HealthConfig, HistoryEntry, ImageConfig, RootFs};
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use error::{
    ErrorKind, ExtractError, LoadError, OpenError, PullError, RemoveError, ResolveError, SnapshotError, StoreError,
    TagError,
};
pub use load::Loaded;
pub use progress::{Progress, ProgressDetail, ProgressEvent};
pub use pull::{PullOptions, Pulled};
pub use reference::{Reference, ReferenceError};
pub use registry::{DistributionInspect, ManifestDescriptor, Platform, RegistryAuth, RegistryConfig};
pub use remove::{ImageUser, RemoveOptions, Removed};
pub use snapshot::{Change, ChangeKind, Rootfs};
pub use store::{Image, ImageStore, StoreConfig};
