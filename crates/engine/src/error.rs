//! What the engine refuses and why. Texts that clients and scripts match on are Docker's, byte for byte.

use std::path::PathBuf;

use shoal_image as image;
use shoal_network as network;
use shoal_runtime as runtime;

/// The class of an error; the caller maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 304: it is already so.
    NotModified,
    /// 400: the request is wrong.
    InvalidParameter,
    /// 401: another party wants to know who asks.
    Unauthorized,
    /// 403: never, whatever the state.
    Forbidden,
    /// 404: it does not exist.
    NotFound,
    /// 409: not in this state.
    Conflict,
    /// 500: the machine or another party failed.
    System,
    /// 501: Docker has it, Shoal does not have it yet.
    Unsupported,
    /// 503: not now.
    Unavailable,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has that name, id or beginning of an id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// Several ids begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousContainer(String),
    /// No exec'd process has that id.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// No volume has that name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// No network has that name or id.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// The image is not on this node.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Container names are unique.
    #[error(
        "Conflict. The container name {name:?} is already in use by container {holder:?}. You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// With its slash.
        name: String,
        /// Id of the container that has it.
        holder: String,
    },
    /// The request breaks a rule; the sentence says which.
    #[error("{0}")]
    InvalidParameter(String),
    /// Docker has it, Shoal does not have it yet; names what.
    #[error("{0} is not supported by Shoal yet")]
    Unsupported(String),
    /// The state does not allow it; the sentence says why.
    #[error("{0}")]
    Conflict(String),
    /// A registry wants credentials, or others.
    #[error("{0}")]
    Unauthorized(String),
    /// What is asked is never allowed; the sentence says why.
    #[error("{0}")]
    Forbidden(String),
    /// The container is not running.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// Nothing is kept of what the container writes.
    #[error("configured logging driver does not support reading")]
    LogNotReadable,
    /// Nothing to do.
    #[error("{0}")]
    NotModified(&'static str),
    /// The command could not be started; `exit_code` is what the container or exec now reports.
    #[error("{message}")]
    Launch {
        /// Docker's sentence.
        message: String,
        /// 126, 127 or 128.
        exit_code: i32,
    },
    /// The container's place in the network.
    #[error("failed to set up container networking: {0}")]
    Endpoint(#[from] network::EndpointError),
    /// The container's place in the network could not be taken away.
    #[error(transparent)]
    Release(#[from] network::ReleaseError),
    /// Its root file system.
    #[error(transparent)]
    Snapshot(#[from] image::SnapshotError),
    /// A pull.
    #[error(transparent)]
    Pull(#[from] image::PullError),
    /// A load.
    #[error(transparent)]
    Load(#[from] image::LoadError),
    /// A name that leads to no image.
    #[error(transparent)]
    Resolve(#[from] image::ResolveError),
    /// A tag.
    #[error(transparent)]
    Tag(#[from] image::TagError),
    /// A removal.
    #[error(transparent)]
    RemoveImage(#[from] image::RemoveError),
    /// The image store's disk.
    #[error(transparent)]
    ImageStore(#[from] image::StoreError),
    /// The supervisor would not or could not.
    #[error(transparent)]
    Supervisor(#[from] runtime::CallError),
    /// The supervisor could not be started.
    #[error("failed to create task for container: {0}")]
    Spawn(runtime::SpawnError),
    /// The record of containers.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine is closing.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// The engine's answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The durable record failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database said no.
    #[error("container record {path}: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: Box<redb::Error>,
    },
    /// An entry is not what was written there.
    #[error("container record {path}: entry {key} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The writer has gone: the engine is closing.
    #[error("container record: closed")]
    Closed,
}

/// Why the engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon holds a root.
    #[error("{root} is in use by another daemon (process {holder}): give this one roots of its own")]
    InUse {
        /// The root.
        root: PathBuf,
        /// Its process id, or `unknown`.
        holder: String,
    },
    /// A root cannot be used.
    #[error("cannot use {path}: {source}")]
    Root {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration asks for something that cannot be.
    #[error("{0}")]
    Config(String),
    /// The record of containers.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The image store.
    #[error(transparent)]
    Images(#[from] image::OpenError),
    /// The networks.
    #[error(transparent)]
    Network(#[from] network::OpenError),
    /// The binary.
    #[error("cannot seal the supervisor's binary: {0}")]
    Seal(#[from] runtime::SealError),
    /// Where root file systems are mounted.
    #[error(transparent)]
    Stage(#[from] runtime::StageError),
}

impl Error {
    /// For `map_err`: adds what was tried on which path.
    pub(crate) fn at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }

    /// [`Error::InvalidParameter`].
    pub(crate) fn invalid(sentence: impl Into<String>) -> Self {
        Self::InvalidParameter(sentence.into())
    }

    /// [`Error::Unsupported`].
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported(what.into())
    }

    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchExec(_)
            | Self::NoSuchVolume(_)
            | Self::NoSuchNetwork(_)
            | Self::NoSuchImage(_) => ErrorKind::NotFound,
            Self::AmbiguousContainer(_) | Self::InvalidParameter(_) => ErrorKind::InvalidParameter,
            Self::NameInUse { .. } | Self::Conflict(_) | Self::NotRunning(_) => ErrorKind::Conflict,
            Self::Unsupported(_) | Self::LogNotReadable => ErrorKind::Unsupported,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::NotModified(_) => ErrorKind::NotModified,
            Self::Launch { exit_code: 126 | 127, .. } => ErrorKind::InvalidParameter,
            Self::Endpoint(error) => endpoint_kind(error),
            Self::Snapshot(error) => image_kind(error.kind()),
            Self::Pull(error) => image_kind(error.kind()),
            Self::Load(error) => image_kind(error.kind()),
            Self::Resolve(error) => image_kind(error.kind()),
            Self::Tag(error) => image_kind(error.kind()),
            Self::RemoveImage(error) => image_kind(error.kind()),
            Self::Supervisor(error) => call_kind(error),
            Self::ShuttingDown => ErrorKind::Unavailable,
            Self::Launch { .. }
            | Self::Release(_)
            | Self::ImageStore(_)
            | Self::Spawn(_)
            | Self::Record(_)
            | Self::Io { .. } => ErrorKind::System,
        }
    }
}

impl From<shoal_bundle::Error> for Error {
    fn from(error: shoal_bundle::Error) -> Self {
        match error {
            shoal_bundle::Error::InvalidParameter(sentence) => Self::InvalidParameter(sentence),
            shoal_bundle::Error::Unsupported(what) => Self::Unsupported(what),
            shoal_bundle::Error::Io { action, path, source } => Self::Io { action, path, source },
        }
    }
}

fn image_kind(kind: image::ErrorKind) -> ErrorKind {
    match kind {
        image::ErrorKind::InvalidInput => ErrorKind::InvalidParameter,
        image::ErrorKind::NotFound => ErrorKind::NotFound,
        image::ErrorKind::Conflict => ErrorKind::Conflict,
        image::ErrorKind::Unsupported => ErrorKind::Unsupported,
        image::ErrorKind::Remote | image::ErrorKind::System => ErrorKind::System,
    }
}

fn endpoint_kind(error: &network::EndpointError) -> ErrorKind {
    use network::EndpointError as E;
    match error {
        E::AddressOutside(_) | E::BadMac(_) => ErrorKind::InvalidParameter,
        E::AddressInUse(_) | E::Attached(_) => ErrorKind::Forbidden,
        E::NoAddress(_) | E::Port { .. } | E::Kernel { .. } => ErrorKind::System,
    }
}

fn call_kind(error: &runtime::CallError) -> ErrorKind {
    match error {
        runtime::CallError::Refused(refusal) => match refusal {
            runtime::Refusal::Kernel { .. } => ErrorKind::System,
            runtime::Refusal::NoSuchExec(_) => ErrorKind::NotFound,
            _ => ErrorKind::Conflict,
        },
        runtime::CallError::Gone(_) => ErrorKind::Conflict,
        _ => ErrorKind::System,
    }
}
