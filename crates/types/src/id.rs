//! Identifiers of swarm objects: 25 base-36 digits, about 129 bits of randomness.
//! (SwarmKit's `identity/randomid.go`: 17 random bytes with the top bit set, in base 36, first digit dropped.)

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LEN: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The identifier of an object of kind `K`: small, copyable, ordered as its text.
pub struct Id<K> {
    text: [u8; LEN],
    kind: PhantomData<fn() -> K>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $alias:ident;)*) => {$(
        #[derive(Debug)]
        #[doc = concat!("Marks the identifiers of ", stringify!($kind), " objects.")]
        pub enum $kind {}
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// Of a node; also the common name of its certificate.
    NodeKind NodeId;
    /// Of a service.
    ServiceKind ServiceId;
    /// Of a task.
    TaskKind TaskId;
    /// Of the cluster; also the organisation in every certificate.
    ClusterKind ClusterId;
}

/// Where new identifiers come from: random in a daemon, seeded in a test or simulation.
pub trait IdSource {
    /// Seventeen fresh random bytes.
    fn random(&mut self) -> [u8; 17];
}

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an identifier has {LEN} characters of 0-9 and a-z")]
pub struct ParseIdError;

// === impl Id ===

impl<K> Id<K> {
    /// A new identifier from `source`.
    pub fn new(source: &mut dyn IdSource) -> Self {
        let mut text = [0; LEN];
        text.copy_from_slice(&base36(source.random(), LEN + 1).as_bytes()[1..]);
        Self { text, kind: PhantomData }
    }

    /// The 25 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("made of ASCII digits and letters only")
    }
}

/// `bytes` with the top bit set, as a big-endian number in base 36, its first `len` digits.
pub fn base36(mut bytes: [u8; 17], len: usize) -> String {
    bytes[0] |= 0x80;
    let mut digits = base36_number(&bytes);
    digits.truncate(len);
    digits
}

/// A big-endian number in base 36, without leading zeros.
pub fn base36_number(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    let mut digits = Vec::with_capacity(bytes.len() * 8 / 5 + 1);
    while bytes.iter().any(|b| *b != 0) {
        let mut rest = 0u32;
        for b in &mut bytes {
            let value = (rest << 8) | u32::from(*b);
            *b = (value / 36) as u8;
            rest = value % 36;
        }
        digits.push(DIGITS[rest as usize]);
    }
    digits.iter().rev().map(|d| char::from(*d)).collect()
}

impl<K> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let text: [u8; LEN] = s.as_bytes().try_into().map_err(|_| ParseIdError)?;
        if text.iter().all(|b| DIGITS.contains(b)) { Ok(Self { text, kind: PhantomData }) } else { Err(ParseIdError) }
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}
impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);
    impl IdSource for Fixed {
        fn random(&mut self) -> [u8; 17] {
            self.0 += 1;
            [self.0; 17]
        }
    }

    #[test]
    fn ids_have_25_base36_characters_and_survive_their_text() {
        let mut source = Fixed(0);
        let (a, b) = (TaskId::new(&mut source), TaskId::new(&mut source));
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 25);
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!(serde_json::from_str::<TaskId>(&serde_json::to_string(&a).unwrap()).unwrap(), a);
    }

    #[test]
    fn the_smallest_and_largest_inputs_fill_all_digits() {
        assert_eq!(base36([0; 17], 26).len(), 26);
        assert_eq!(base36([255; 17], 26).len(), 26);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "aaaaaaaaaaaaaaaaaaaaaaaa_", "aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(bad.parse::<NodeId>(), Err(ParseIdError), "{bad}");
        }
    }
}
