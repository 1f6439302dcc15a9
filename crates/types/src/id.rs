//! Identifiers of swarm objects: 25 base-36 digits, about 129 bits of randomness.
//! (SwarmKit's `identity/randomid.go`: 17 random bytes with the top bit set, in base 36, first digit dropped.)

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
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
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Of a secret.
    SecretKind SecretId;
    /// Of a config.
    ConfigKind ConfigId;
    /// Of the cluster; also the organisation in every certificate.
    ClusterKind ClusterId;
    /// Of what a client asked for.
    RequestKind RequestId;
}

/// Where new identifiers come from: random in a daemon, seeded in a test or simulation.
pub trait IdSource {
    /// Seventeen fresh random bytes.
    fn random(&mut self) -> [u8; 17];
}

/// A map by identifier. As those are random, [`IdHasher`] does for them.
pub type IdMap<K, V> = HashMap<Id<K>, V, BuildHasherDefault<IdHasher>>;

/// A set of identifiers.
pub type IdSet<K> = HashSet<Id<K>, BuildHasherDefault<IdHasher>>;

/// Makes a number of an identifier in a few instructions. Not for what others choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

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

    /// The first characters as a number of the same order: enough to tell nearly all identifiers apart without a call.
    fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.text;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
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
    // ten digits at a time: a rest and another byte fit into 64 bits
    const CHUNK: u32 = 10;
    let mut bytes = bytes.to_vec();
    let mut digits = Vec::with_capacity(bytes.len() * 8 / 5 + CHUNK as usize);
    while bytes.iter().any(|b| *b != 0) {
        let mut rest = 0u64;
        for b in &mut bytes {
            let value = (rest << 8) | u64::from(*b);
            *b = (value / 36u64.pow(CHUNK)) as u8;
            rest = value % 36u64.pow(CHUNK);
        }
        for _ in 0..CHUNK {
            digits.push(DIGITS[(rest % 36) as usize]);
            rest /= 36;
        }
    }
    let zeros = digits.iter().rev().take_while(|d| **d == b'0').count();
    digits.truncate(digits.len() - zeros);
    digits.iter().rev().map(|d| char::from(*d)).collect()
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let word = |part: Option<&[u8]>| {
            part.map_or(0, |p| u64::from_le_bytes(p.try_into().expect("the part has eight bytes")))
        };
        let (first, last) = (word(bytes.get(..8)), word(bytes.len().checked_sub(8).map(|at| &bytes[at..])));
        let mixed = (self.0 ^ first ^ last.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
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
        self.head() == other.head() && self.text == other.text
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
        self.head().cmp(&other.head()).then_with(|| self.text.cmp(&other.text))
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.text);
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
    fn numbers_are_written_without_leading_zeros() {
        assert_eq!(base36_number(&[]), "");
        assert_eq!(base36_number(&[0, 0]), "");
        assert_eq!(base36_number(&[35]), "z");
        assert_eq!(base36_number(&[1, 0]), "74");
        assert_eq!(base36_number(&36u64.pow(10).to_be_bytes()), "10000000000");
        assert_eq!(base36_number(&[0xff; 17]), "2zrw1727u0mgg6ugs60vxe42e4f");
    }

    #[test]
    fn hashes_of_ids_spread_over_all_bits() {
        let mut source = Fixed(0);
        let ids: Vec<_> = (0..200).map(|_| TaskId::new(&mut source)).collect();
        let hash = |id: &TaskId| std::hash::BuildHasher::hash_one(&BuildHasherDefault::<IdHasher>::default(), id);
        for shift in [0, 8, 24, 40, 56] {
            let parts: HashSet<_> = ids.iter().map(|id| (hash(id) >> shift) & 0xff).collect();
            assert!(parts.len() > 90, "{} of 256 values of byte {}", parts.len(), shift / 8);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "aaaaaaaaaaaaaaaaaaaaaaaa_", "aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(bad.parse::<NodeId>(), Err(ParseIdError), "{bad}");
        }
    }
}
