//! Objects as bytes, and identifiers as text.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_types::Id;

use crate::WireError;

/// The serde form of `object`.
///
/// # Errors
/// [`WireError::Encode`] where the object has none (a map with keys that are not texts).
pub fn encode<T: Serialize>(what: &'static str, object: &T) -> Result<Vec<u8>, WireError> {
    serde_json::to_vec(object).map_err(|source| WireError::Encode { what, source })
}

/// The object in `bytes`. Fields that this version does not know are left out.
///
/// # Errors
/// [`WireError::Body`] where it is not one.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|source| WireError::Body { what, source })
}

/// The identifier in `text`.
///
/// # Errors
/// [`WireError::Id`] where it is not one.
pub fn id<K>(what: &'static str, text: &str) -> Result<Id<K>, WireError> {
    text.parse().map_err(|_| WireError::Id { what, text: text.chars().take(64).collect() })
}
