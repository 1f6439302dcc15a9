//! Docker image references: parsing, normal form and familiar form. Pure.
//!
//! The grammar and the error texts are those of Docker's reference library, since clients and scripts match on them.

mod grammar;

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that a name without one means.
pub const DEFAULT_DOMAIN: &str = "docker.io";

const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_PATH: usize = 255;

/// A normalised reference to an image: `docker.io/library/busybox:latest`, with a tag, a digest, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    // before the tag, so that a repository's tags sort before its digests, as Docker lists them
    digest: Option<Digest>,
    tag: Option<String>,
}

/// Why a string is not a reference. The texts are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Path longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// Looks like an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The digest part is malformed or not sha256.
    #[error("{0}")]
    Digest(#[from] crate::digest::DigestError),
}

impl Reference {
    /// Parses and normalises what a user wrote, as `docker pull` does.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_image_id(text) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }
        let parts = grammar::split(&remainder).ok_or(ReferenceError::Format)?;
        if !grammar::is_domain(&domain) || !grammar::is_path(parts.path) || !parts.tag.is_none_or(grammar::is_tag) {
            return Err(ReferenceError::Format);
        }
        if parts.path.len() > MAX_PATH {
            return Err(ReferenceError::TooLong);
        }
        let digest = match parts.digest {
            Some(digest) if !grammar::is_digest(digest) => return Err(ReferenceError::Format),
            Some(digest) => Some(digest.parse()?),
            None => None,
        };
        Ok(Self { domain, path: parts.path.to_owned(), tag: parts.tag.map(str::to_owned), digest })
    }

    /// The registry's host and port, such as `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `domain/path`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as users write it: `busybox`, `user/app`, `localhost:5000/app`.
    pub fn familiar_name(&self) -> String {
        match (self.domain.as_str(), self.path.strip_prefix(OFFICIAL_PREFIX)) {
            (DEFAULT_DOMAIN, Some(short)) if !short.contains('/') => short.to_owned(),
            (DEFAULT_DOMAIN, _) => self.path.clone(),
            _ => self.name(),
        }
    }

    /// The whole reference as users write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// With `latest` where there is neither a tag nor a digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !grammar::is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with a digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The key under which an image is recorded: by digest where there is one, else by tag (`latest` if none).
    pub(crate) fn key(&self) -> Self {
        match self.digest {
            Some(digest) => self.with_digest(digest),
            None => self.clone().with_default_tag(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name(), self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether `text` is a whole image id without its algorithm: 64 lower-case hex digits.
pub(crate) fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Splits off the registry. The first component is one when it could not be a path component: it has a dot, a port or
/// an upper-case letter, or is `localhost`.
fn split_domain(text: &str) -> (String, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL_PREFIX}{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

#[cfg(test)]
mod tests;
