//! What nodes say to each other: protobuf envelopes, and their conversion from and to the shared vocabulary.
//!
//! Owns the messages and their limits. Leaves to others: who may send them (`manager`), what they lead to
//! (`manager`, `agent`), certificates and connections (`node`).
//!
//! Objects travel as the serde form of `shoal-types` inside protobuf messages, so a new field of a spec is
//! written down once (docs/decisions/0003-wire-bodies.md).

pub mod assignments;
pub mod body;
pub mod dial;
pub mod logs;
pub mod session;
pub mod status;
pub mod uplink;

/// The messages and services as generated from `proto/shoal/v1`.
pub mod proto {
    #![allow(missing_docs, clippy::all, reason = "generated code; the definitions carry the comments")]
    tonic::include_proto!("shoal.v1");
}

pub use dial::Dial;
pub use uplink::{Remote, Uplink, UplinkError};

/// The largest message that either end accepts, in bytes. Larger contents are sent in parts.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Where a list of bodies is cut into parts, in bytes. With one object of the largest size (1.5 MiB) beyond it, a part
/// still fits into [`MAX_MESSAGE`].
pub const PART: usize = 1024 * 1024;

/// Why a message cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// An object that is not what it should be.
    #[error("cannot read {what}: {source}")]
    Body {
        /// The kind of object.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An object that has no serde form.
    #[error("cannot write {what}: {source}")]
    Encode {
        /// The kind of object.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A text that is not an identifier.
    #[error("{text:?} is not the identifier of a {what}")]
    Id {
        /// The kind of object.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A field that must be set.
    #[error("{what} is missing")]
    Missing {
        /// The field.
        what: &'static str,
    },
    /// A number outside of its range.
    #[error("{what} {value} is out of range")]
    Range {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// Parts or changes that do not follow each other: the stream must be opened anew.
    #[error("assignments for state {got} came after state {have}")]
    Gap {
        /// The state that is known.
        have: u64,
        /// The state that the message applies to.
        got: u64,
    },
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Encode { .. } => Self::internal(error.to_string()),
            WireError::Gap { .. } => Self::aborted(error.to_string()),
            _ => Self::invalid_argument(error.to_string()),
        }
    }
}
