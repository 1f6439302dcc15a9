//! What can go wrong, one enum per operation, each with the class that decides its HTTP status.
//!
//! Texts that clients and scripts match on are Docker's, byte for byte.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::reference::ReferenceError;

/// The class of an error; the caller maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400.
    InvalidInput,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 500: another party (registry, proxy) failed or refused.
    Remote,
    /// 500: this machine failed.
    System,
    /// 501.
    Unsupported,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("image store {0} is in use by another process")]
    InUse(PathBuf),
    /// The record of images cannot be understood; it is never thrown away silently.
    #[error("image record {path} is damaged: {source}")]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// The file system cannot hold the writable part of an overlay mount (it is itself an overlay, for one).
    #[error(
        "the file system of {0} cannot hold overlay mounts (is it an overlay itself?): put the data root on ext4, xfs or btrfs"
    )]
    NotUsable(PathBuf),
    /// The registry settings are wrong.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryConfigError),
    /// The disk failed.
    #[error("open image store: {0}")]
    Io(#[from] StoreError),
}

/// The disk failed under the store.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub struct StoreError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl StoreError {
    /// For `map_err`: adds what was tried on which path.
    pub(crate) fn at<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        move |source| Self { action, path: path.into(), source: source.into() }
    }
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The stream is no readable tar (truncated, corrupt, bad compression).
    #[error("failed to read layer: {0}")]
    Stream(#[source] io::Error),
    /// An entry names a place outside the layer's root.
    #[error("layer entry {name:?} is outside of its root: refused")]
    Outside {
        /// The entry's name.
        name: String,
    },
    /// An entry lies behind a link that leads nowhere inside the layer's root.
    #[error("layer entry {name:?} goes through a link that leads out of its root: refused")]
    ThroughLink {
        /// The entry's name.
        name: String,
    },
    /// A hard link names a target outside the layer's root or one that does not exist.
    #[error("layer entry {name:?} is a hard link to {target:?}, which is not in the layer: refused")]
    HardLink {
        /// The entry's name.
        name: String,
        /// The link's target.
        target: String,
    },
    /// An entry has no meaning in a layer.
    #[error("layer entry {name:?} has the unsupported type {kind:?}")]
    Type {
        /// The entry's name.
        name: String,
        /// The tar type flag.
        kind: char,
    },
    /// An entry's header is malformed.
    #[error("layer entry {name:?} is malformed: {reason}")]
    Malformed {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The disk refused an entry.
    #[error("unpack layer entry {name:?}: {source}")]
    Entry {
        /// The entry's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content is not what the image's configuration says.
    #[error("layer content is {actual}, but the image's configuration says {expected}")]
    DiffId {
        /// As configured.
        expected: Digest,
        /// As unpacked.
        actual: Digest,
    },
}

/// Why a pull failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The registry denies access, or will not say whether the repository exists.
    #[error("pull access denied for {name}, repository does not exist or may require 'docker login': {cause}")]
    Denied {
        /// Familiar repository name.
        name: String,
        /// What the registry said.
        cause: String,
    },
    /// No such tag or digest.
    #[error("manifest for {reference} not found: {cause}")]
    ManifestUnknown {
        /// Familiar reference.
        reference: String,
        /// What the registry said.
        cause: String,
    },
    /// No such repository.
    #[error("repository {name} not found: {cause}")]
    NameUnknown {
        /// Familiar repository name.
        name: String,
        /// What the registry said.
        cause: String,
    },
    /// Nothing for this machine in a manifest list.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    /// The registry answered something that cannot be used, cannot be reached, stalls, or lies.
    #[error(transparent)]
    Registry(std::sync::Arc<crate::registry::RegistryError>),
    /// The image needs something that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The manifest or configuration document makes no sense.
    #[error("image {reference} is malformed: {reason}")]
    Malformed {
        /// Familiar reference.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer cannot be unpacked.
    #[error("failed to register layer: {0}")]
    Extract(std::sync::Arc<ExtractError>),
    /// The disk failed.
    #[error(transparent)]
    Store(std::sync::Arc<StoreError>),
}

/// Why an archive cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream ends early or is no (compressed) tar.
    #[error("failed to read image archive: {0}")]
    Stream(#[source] io::Error),
    /// The archive holds no image.
    #[error("image archive holds neither manifest.json nor index.json")]
    NoImage,
    /// The archive is from before content was addressed by digest.
    #[error("image archive has no manifest.json: archives made before Docker 1.10 are not supported")]
    Legacy,
    /// The archive has images, but none for this machine.
    #[error("image archive holds no image for {0}")]
    NoPlatform(String),
    /// A document in the archive is malformed.
    #[error("image archive is malformed: {name}: {reason}")]
    Malformed {
        /// The member.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document names a member that is not there.
    #[error("image archive is malformed: {0} is missing")]
    Missing(String),
    /// A member is not what its name or descriptor says.
    #[error("image archive is malformed: {name} is {actual}, not {expected}")]
    Digest {
        /// The member.
        name: String,
        /// As described.
        expected: String,
        /// As read.
        actual: String,
    },
    /// A tag in the archive is no reference.
    #[error("invalid tag {tag:?}: {source}")]
    Tag {
        /// As written.
        tag: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// The image is for another operating system.
    #[error("cannot load {os} image on linux")]
    Platform {
        /// The image's.
        os: String,
    },
    /// A layer cannot be unpacked.
    #[error("failed to register layer: {0}")]
    Extract(#[from] ExtractError),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a name leads to no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not a reference or id at all.
    #[error(transparent)]
    Invalid(#[from] ReferenceError),
    /// Nothing has that name.
    #[error("No such image: {0}")]
    NotFound(String),
    /// More than one image's id begins so.
    #[error("No such image: {prefix}:latest (and {count} image ids begin with {prefix})")]
    Ambiguous {
        /// As written.
        prefix: String,
        /// How many images match.
        count: usize,
    },
}

/// Why an image cannot be tagged.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// No such source.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A tag cannot carry a digest.
    #[error("refusing to create a tag with a digest reference")]
    Digest,
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an image cannot be removed. The conflict texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The last name of an image that a container uses.
    #[error(
        "conflict: unable to remove repository reference {reference:?} (must force) - container {container} is using its referenced image {image}"
    )]
    ReferenceInUse {
        /// As the caller wrote it.
        reference: String,
        /// Short container id.
        container: String,
        /// Short image id.
        image: String,
    },
    /// A conflict that force overrides.
    #[error("conflict: unable to delete {image} (must be forced) - {reason}")]
    MustForce {
        /// Short image id.
        image: String,
        /// What is in the way.
        reason: String,
    },
    /// A conflict that nothing overrides.
    #[error("conflict: unable to delete {image} (cannot be forced) - {reason}")]
    CannotForce {
        /// Short image id.
        image: String,
        /// What is in the way.
        reason: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a container's root file system cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The container id is not a plain file name.
    #[error("invalid snapshot id {0:?}")]
    InvalidId(String),
    /// The image is not there.
    #[error("No such image: {0}")]
    NoImage(Digest),
    /// There is no snapshot with that id.
    #[error("no snapshot for container {0}")]
    NotFound(String),
    /// A layer that the snapshot stands on is gone.
    #[error("snapshot {id} stands on layer {layer}, which is not there")]
    NoLayer {
        /// The container.
        id: String,
        /// The layer's directory name.
        layer: String,
    },
    /// The kernel refused the mount.
    #[error("mount overlay for container {id} ({layers} layers): {source}")]
    Mount {
        /// The container.
        id: String,
        /// How many read-only layers.
        layers: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    /// The code of the registry's own refusal: `UNAUTHORIZED`, `DENIED` and the like.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Registry(error) => error.code(),
            _ => None,
        }
    }

    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied { .. } | Self::ManifestUnknown { .. } | Self::NameUnknown { .. } | Self::NoPlatform(_) => {
                ErrorKind::NotFound
            }
            Self::Registry(error) => error.kind(),
            Self::Malformed { .. } => ErrorKind::Remote,
            Self::Unsupported(_) => ErrorKind::InvalidInput,
            Self::Extract(_) | Self::Store(_) => ErrorKind::System,
        }
    }
}

impl From<crate::registry::RegistryError> for PullError {
    fn from(error: crate::registry::RegistryError) -> Self {
        Self::Registry(error.into())
    }
}

impl From<ExtractError> for PullError {
    fn from(error: ExtractError) -> Self {
        Self::Extract(error.into())
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl LoadError {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(_) => ErrorKind::System,
            Self::Extract(error) => error.kind(),
            Self::Legacy => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidInput,
        }
    }
}

impl ExtractError {
    /// The error's class: the layer's fault, or this machine's.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Entry { .. } | Self::Store(_) => ErrorKind::System,
            _ => ErrorKind::InvalidInput,
        }
    }
}

impl ResolveError {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::NotFound(_) | Self::Ambiguous { .. } => ErrorKind::NotFound,
        }
    }
}

impl TagError {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve(error) => error.kind(),
            Self::Digest => ErrorKind::InvalidInput,
            Self::Store(_) => ErrorKind::System,
        }
    }
}

impl RemoveError {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve(error) => error.kind(),
            Self::ReferenceInUse { .. } | Self::MustForce { .. } | Self::CannotForce { .. } => ErrorKind::Conflict,
            Self::Store(_) => ErrorKind::System,
        }
    }
}

impl SnapshotError {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidId(_) => ErrorKind::InvalidInput,
            Self::NoImage(_) | Self::NotFound(_) => ErrorKind::NotFound,
            Self::NoLayer { .. } | Self::Mount { .. } | Self::Store(_) => ErrorKind::System,
        }
    }
}
