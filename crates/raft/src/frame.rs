//! Records on disk: length, checksum, then the encrypted content.
//!
//! The checksum tells a torn write from a whole one without the key. The authenticated encryption tells a wrong key or a
//! forged record from ours. The first ends the log there, the second is an error that stops everything.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead, AeadCore, KeyInit, OsRng};

/// Bytes before the content: length and checksum, both little-endian 32 bit.
pub const HEAD: usize = 8;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Bytes that a record is longer than its content.
pub const OVERHEAD: usize = HEAD + NONCE + TAG;
/// The largest record that is believed. A longer length is a torn one.
const MAX: usize = 64 * 1024 * 1024;
/// In a length: everything before this record was safe when it was written.
const AFTER_SYNC: u32 = 1 << 31;

/// The key of this manager's log and snapshots, 32 random bytes, kept beside the node's key and never in the log; and those
/// of before, as long as anything is left that was encrypted with them. All clones change together.
#[derive(Clone)]
pub struct DataKey(Arc<RwLock<Ring>>);

/// The newest key comes first. There always is one.
struct Ring(Vec<XSalsa20Poly1305>);

/// What is at some place of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole record.
    Record {
        /// Its content, decrypted.
        content: Vec<u8>,
        /// Its length on disk.
        len: usize,
    },
    /// Nothing was written here.
    End,
    /// The beginning of a record, or one that was hit by a crash.
    Torn,
}

/// The record is whole, yet not written with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record cannot be decrypted with this manager's data key")]
pub struct WrongKey;

impl DataKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Arc::new(RwLock::new(Ring(vec![XSalsa20Poly1305::new(bytes.into())]))))
    }

    /// The key of these bytes, which `older` ones, the newest first, had the place of.
    pub fn after(bytes: &[u8; 32], older: &[[u8; 32]]) -> Self {
        let this = Self::new(bytes);
        this.write().0.extend(older.iter().map(|key| XSalsa20Poly1305::new(key.into())));
        this
    }

    /// From now on everything is encrypted with these bytes. What was encrypted before can still be read.
    pub fn renew(&self, bytes: &[u8; 32]) {
        self.write().0.insert(0, XSalsa20Poly1305::new(bytes.into()));
    }

    /// Forgets all but the newest: nothing is left that needs them.
    pub fn forget_older(&self) {
        self.write().0.truncate(1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.0.read().expect("nothing panics while it is held")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.0.write().expect("nothing panics while it is held")
    }

    /// Appends `content` as a record to `out`.
    pub fn seal(&self, content: &[u8], out: &mut Vec<u8>) {
        self.seal_with(content, 0, out);
    }

    /// Like [`Self::seal`]; and says that everything before was made safe before this was written.
    pub fn seal_after_sync(&self, content: &[u8], out: &mut Vec<u8>) {
        self.seal_with(content, AFTER_SYNC, out);
    }

    fn seal_with(&self, content: &[u8], mark: u32, out: &mut Vec<u8>) {
        let nonce = XSalsa20Poly1305::generate_nonce(&mut OsRng);
        let sealed = self.read().0[0].encrypt(&nonce, content).expect("encryption to memory does not fail");
        let len = u32::try_from(NONCE + sealed.len()).expect("contents are far below 2 GiB");
        let len = (len | mark).to_le_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&len);
        sum.update(&nonce);
        sum.update(&sealed);
        out.extend_from_slice(&len);
        out.extend_from_slice(&sum.finalize().to_le_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
    }

    /// Whether somewhere in `bytes` is a record that was written after everything before it was safe.
    pub fn was_safe(&self, bytes: &[u8]) -> bool {
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        let marked =
            |at: &usize| bytes[*at..].first_chunk::<4>().is_some_and(|len| u32::from_le_bytes(*len) >= AFTER_SYNC);
        (0..end).filter(marked).any(|at| matches!(self.open(&bytes[at..]), Ok(Frame::Record { .. })))
    }

    /// What is at the beginning of `bytes`.
    ///
    /// # Errors
    /// [`WrongKey`] for a whole record of another key.
    pub fn open(&self, bytes: &[u8]) -> Result<Frame, WrongKey> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(if bytes.iter().all(|b| *b == 0) { Frame::End } else { Frame::Torn });
        };
        let (len, sum) = head.split_at(4);
        let len_bytes: [u8; 4] = len.try_into().expect("split at 4");
        let len = (u32::from_le_bytes(len_bytes) & !AFTER_SYNC) as usize;
        if head.iter().all(|b| *b == 0) {
            return Ok(Frame::End);
        }
        if !(NONCE + TAG..=MAX).contains(&len) || rest.len() < len {
            return Ok(Frame::Torn);
        }
        let body = &rest[..len];
        let mut have = crc32fast::Hasher::new();
        have.update(&len_bytes);
        have.update(body);
        if have.finalize().to_le_bytes() != sum {
            return Ok(Frame::Torn);
        }
        let (nonce, sealed) = body.split_at(NONCE);
        let content = self.read().0.iter().find_map(|key| key.decrypt(nonce.into(), sealed).ok()).ok_or(WrongKey)?;
        Ok(Frame::Record { content, len: HEAD + len })
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        DataKey::new(&[7; 32]).seal(content, &mut out);
        out
    }

    #[test]
    fn a_record_survives_and_does_not_show_its_content() {
        let bytes = sealed(b"a secret");
        assert_eq!(bytes.len(), 8 + OVERHEAD);
        assert!(!bytes.windows(6).any(|w| w == b"secret"));
        let frame = DataKey::new(&[7; 32]).open(&bytes).unwrap();
        assert_eq!(frame, Frame::Record { content: b"a secret".to_vec(), len: bytes.len() });
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_a_torn_record() {
        let (key, bytes) = (DataKey::new(&[7; 32]), sealed(b"x"));
        for cut in 1..bytes.len() {
            assert_eq!(key.open(&bytes[..cut]).unwrap(), Frame::Torn, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&bad).unwrap(), Frame::Torn, "bit {bit}");
        }
        assert_eq!(key.open(&[]).unwrap(), Frame::End);
        assert_eq!(key.open(&[0; 100]).unwrap(), Frame::End);
    }

    #[test]
    fn a_record_that_was_written_after_a_sync_vouches_for_what_was_before_it() {
        let key = DataKey::new(&[7; 32]);
        let mut bytes = vec![0xff; 50];
        key.seal(b"same batch", &mut bytes);
        assert!(!key.was_safe(&bytes));
        key.seal_after_sync(b"next batch", &mut bytes);
        assert!(key.was_safe(&bytes));
        let start = bytes.len() - b"next batch".len() - OVERHEAD;
        assert!(
            matches!(key.open(&bytes[start..]).unwrap(), Frame::Record { content, .. } if content == b"next batch")
        );
        bytes.pop();
        assert!(!key.was_safe(&bytes));
    }

    #[test]
    fn a_record_of_another_key_is_an_error_not_the_end() {
        assert_eq!(DataKey::new(&[8; 32]).open(&sealed(b"x")), Err(WrongKey));
    }

    #[test]
    fn a_new_key_encrypts_and_the_old_ones_open_what_is_left_until_they_are_forgotten() {
        let (key, old) = (DataKey::new(&[7; 32]), sealed(b"old"));
        let other = key.clone();
        key.renew(&[8; 32]);
        let mut new = Vec::new();
        other.seal(b"new", &mut new);
        assert!(DataKey::new(&[8; 32]).open(&new).is_ok() && DataKey::new(&[7; 32]).open(&new).is_err());
        assert!(other.open(&old).is_ok() && DataKey::after(&[8; 32], &[[7; 32]]).open(&old).is_ok());
        key.forget_older();
        assert_eq!(other.open(&old), Err(WrongKey));
        assert!(other.open(&new).is_ok());
    }
}
