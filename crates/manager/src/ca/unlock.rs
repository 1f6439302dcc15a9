//! The key that the keys on managers' disks are sealed with, and how they are sealed (swarm-semantics 8.4).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead, AeadCore, KeyInit, OsRng};

const PREFIX: &str = "SWMKEY-1-";
const NONCE: usize = 24;

/// An unlock key: 32 random bytes. As text `SWMKEY-1-` and their base64 without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; 32]);

/// Why a text is not an unlock key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid key string")]
pub struct KeyTextError;

/// Why sealed content cannot be opened: the key is another one, or the content was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid key provided")]
pub struct WrongKey;

impl UnlockKey {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// `content` as only this key opens it, in base64.
    pub fn seal(&self, content: &[u8]) -> String {
        let nonce = XSalsa20Poly1305::generate_nonce(&mut OsRng);
        let sealed = self.cipher().encrypt(&nonce, content).expect("encryption to memory does not fail");
        STANDARD.encode([nonce.as_slice(), &sealed].concat())
    }

    /// What was sealed.
    ///
    /// # Errors
    /// [`WrongKey`].
    pub fn open(&self, sealed: &str) -> Result<Vec<u8>, WrongKey> {
        let bytes = STANDARD.decode(sealed).map_err(|_| WrongKey)?;
        let (nonce, content) = bytes.split_at_checked(NONCE).ok_or(WrongKey)?;
        self.cipher().decrypt(nonce.into(), content).map_err(|_| WrongKey)
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new((&self.0).into())
    }
}

impl std::fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl std::fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockKey")
    }
}

impl std::str::FromStr for UnlockKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let bytes = text.strip_prefix(PREFIX).and_then(|t| STANDARD_NO_PAD.decode(t).ok()).ok_or(KeyTextError)?;
        bytes.try_into().map(Self).map_err(|_| KeyTextError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_other_texts_are_refused() {
        let key = UnlockKey::random();
        let text = key.to_string();
        assert_eq!((text.len(), text.parse()), (52, Ok(key)));
        for bad in ["", "SWMKEY-1-", &text[1..], &text[..51], &format!("{text}=")] {
            assert_eq!(bad.parse::<UnlockKey>(), Err(KeyTextError), "{bad}");
        }
    }

    #[test]
    fn only_the_same_key_opens_what_was_sealed_and_only_unchanged() {
        let key = UnlockKey::random();
        let sealed = key.seal(b"secret");
        assert_eq!(key.open(&sealed).unwrap(), b"secret");
        assert_ne!(sealed, key.seal(b"secret"), "a nonce of its own each time");
        assert_eq!(UnlockKey::random().open(&sealed), Err(WrongKey));
        assert_eq!(key.open(&sealed[4..]), Err(WrongKey));
        assert_eq!(key.open("x"), Err(WrongKey));
    }
}
