//! Why a request is not carried out, as a value that every layer understands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Classes of refusals, by the names that Docker's clients see in messages (those of gRPC's status codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The request is wrong in itself. HTTP 400.
    InvalidArgument,
    /// The request does not fit the present state. HTTP 400.
    FailedPrecondition,
    /// Beyond what there is. HTTP 400.
    OutOfRange,
    /// The caller is not known. HTTP 401.
    Unauthenticated,
    /// The caller may not. HTTP 403.
    PermissionDenied,
    /// No such object. HTTP 404.
    NotFound,
    /// The name is taken. HTTP 409.
    AlreadyExists,
    /// Not supported. HTTP 501.
    Unimplemented,
    /// Not now. HTTP 503.
    Unavailable,
    /// Given up in favour of something else. HTTP 500.
    Aborted,
    /// Took too long. HTTP 500.
    DeadlineExceeded,
    /// A defect. HTTP 500.
    Internal,
    /// Docker gives no class, and clients rely on that. HTTP 500.
    Unknown,
}

/// Which of Docker's two layers says it. Clients see the difference: what comes from the manager carries the
/// prefix `rpc error: code = … desc = `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// The engine, before the manager is asked.
    Engine,
    /// The manager.
    Manager,
}

/// Why a request is not carried out. `Display` is the text for the client, with the prefix where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The class; decides the HTTP status.
    pub kind: RefusalKind,
    /// Who says it; decides the prefix.
    pub origin: Origin,
    /// One sentence, without prefix.
    pub message: String,
}

impl std::error::Error for Refusal {}

// === impl RefusalKind ===

impl RefusalKind {
    /// The name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::OutOfRange => "OutOfRange",
            Self::Unauthenticated => "Unauthenticated",
            Self::PermissionDenied => "PermissionDenied",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Unimplemented => "Unimplemented",
            Self::Unavailable => "Unavailable",
            Self::Aborted => "Aborted",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Internal => "Internal",
            Self::Unknown => "Unknown",
        }
    }

    /// The HTTP status that Docker answers with (swarm-semantics 13.1).
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::Aborted | Self::DeadlineExceeded | Self::Internal | Self::Unknown => 500,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// The manager refuses.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, origin: Origin::Manager, message: message.into() }
    }

    /// The engine refuses, before the manager is asked.
    pub fn engine(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, origin: Origin::Engine, message: message.into() }
    }

    /// The manager refuses a request that is wrong in itself.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::InvalidArgument, message)
    }

    /// Shoal does not have `what` yet.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::engine(RefusalKind::Unimplemented, format!("{what} is not supported by Shoal yet"))
    }

    /// The version that a client presented is not the stored one (swarm-semantics 1.4: clients match on this text).
    pub fn out_of_sequence() -> Self {
        Self::new(RefusalKind::Unknown, "update out of sequence")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Engine => f.write_str(&self.message),
            Origin::Manager => write!(f, "rpc error: code = {} desc = {}", self.kind.as_str(), self.message),
        }
    }
}
