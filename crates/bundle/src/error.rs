//! What is refused and why. Texts that clients and scripts match on are Docker's, byte for byte.

use std::path::PathBuf;

/// Why a container cannot be what is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule; the sentence says which.
    #[error("{0}")]
    InvalidParameter(String),
    /// Docker has it, Shoal does not have it yet; names what.
    #[error("{0} is not supported by Shoal yet")]
    Unsupported(String),
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
}

/// What is asked, or why not.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
}
