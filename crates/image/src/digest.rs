//! Content digests and the identifiers that are digests. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sha256 content digest, written `sha256:<64 lower-case hex digits>`.
///
/// Other algorithms that the OCI specification registers are not accepted: no registry in use serves them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// An image's id: the digest of its configuration document.
pub type ImageId = Digest;

/// A layer's id on its own: the digest of its uncompressed tar.
pub type DiffId = Digest;

/// A layer's id together with all layers below it (OCI image specification, "Layer ChainID").
pub type ChainId = Digest;

/// Why a string is not a digest. The texts are those of Docker's digest library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the form `algorithm:hex`.
    #[error("invalid checksum digest format")]
    Format,
    /// The number of hex digits does not fit the algorithm.
    #[error("invalid checksum digest length")]
    Length,
    /// Anything but sha256.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The 64 hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hex digits: how Docker writes ids in messages and progress lines.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }

    /// The chain id of a layer with diff id `diff` on top of `parent`.
    pub fn chain(parent: Option<&ChainId>, diff: &DiffId) -> ChainId {
        match parent {
            None => *diff,
            Some(parent) => Self::of(format!("{parent} {diff}").as_bytes()),
        }
    }

    /// The chain ids of a stack of layers, bottom first.
    pub fn chains(diffs: &[DiffId]) -> Vec<ChainId> {
        let mut chains: Vec<ChainId> = Vec::with_capacity(diffs.len());
        for diff in diffs {
            chains.push(Self::chain(chains.last(), diff));
        }
        chains
    }
}

impl From<Sha256> for Digest {
    fn from(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, digits) = text.split_once(':').ok_or(DigestError::Format)?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm);
        }
        if digits.len() != 64 {
            return Err(DigestError::Length);
        }
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(DigestError::Format);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| DigestError::Format)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_writes() {
        let digest = Digest::of(b"hello");
        assert_eq!(digest.to_string(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "2cf24dba5fb0");
    }

    #[test]
    fn malformed_digests_are_refused_with_their_reason() {
        let parse = |text: &str| text.parse::<Digest>().expect_err("refused");
        assert_eq!(parse("abc"), DigestError::Format);
        assert_eq!(parse("sha256:abc"), DigestError::Length);
        assert_eq!(parse("md5:abc"), DigestError::Algorithm);
        assert_eq!(parse(&format!("sha256:{}", "Z".repeat(64))), DigestError::Format);
        assert_eq!(parse(&format!("sha256:{}", "g".repeat(64))), DigestError::Format);
    }

    #[test]
    fn the_chain_of_one_layer_is_its_diff_and_grows_by_hashing() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(Digest::chains(&[a]), [a]);
        assert_eq!(Digest::chains(&[a, b])[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
