//! Join tokens: `SWMTKN-1-<digest of the root>-<secret>`, both in base 36 (swarm-semantics 9).

use sha2::{Digest, Sha256};

const PREFIX: &str = "SWMTKN";
const DIGEST_LEN: usize = 50;
const SECRET_LEN: usize = 25;

/// The parts of a join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the root certificate's PEM form, 50 characters.
    pub digest: String,
    /// 128 random bits, 25 characters.
    pub secret: String,
}

/// Why a text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid join token")]
pub struct TokenError;

/// A token with a new secret for the authority of `root_pem`.
pub fn new_token(root_pem: &str) -> String {
    let digest = base36(&Sha256::digest(root_pem.as_bytes()), DIGEST_LEN);
    format!("{PREFIX}-1-{digest}-{}", new_secret())
}

/// `token` with a new secret.
///
/// # Errors
/// [`TokenError`] where it is not one.
pub fn renew_secret(token: &str) -> Result<String, TokenError> {
    let JoinToken { digest, .. } = token.parse()?;
    Ok(format!("{PREFIX}-1-{digest}-{}", new_secret()))
}

impl JoinToken {
    /// Whether it is for the cluster of the authority of `root_pem`.
    pub fn is_for(&self, root_pem: &str) -> bool {
        base36(&Sha256::digest(root_pem.as_bytes()), DIGEST_LEN) == self.digest
    }

    /// The digest in hexadecimal digits, as Docker shows it.
    pub fn fingerprint(&self) -> String {
        let mut bytes = [0u8; 32];
        for digit in self.digest.bytes() {
            let mut carry = u32::from(digit) - if digit.is_ascii_digit() { 48 } else { 87 };
            for byte in bytes.iter_mut().rev() {
                let value = u32::from(*byte) * 36 + carry;
                (*byte, carry) = ((value & 255) as u8, value >> 8);
            }
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::str::FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_base36 = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        match text.split('-').collect::<Vec<_>>()[..] {
            [PREFIX, "1", digest, secret]
                if digest.len() == DIGEST_LEN
                    && secret.len() == SECRET_LEN
                    && is_base36(digest)
                    && is_base36(secret) =>
            {
                Ok(Self { digest: digest.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(TokenError),
        }
    }
}

fn new_secret() -> String {
    base36(&rand::random::<[u8; 16]>(), SECRET_LEN)
}

/// `bytes` as one big-endian number in base 36, padded with zeros to `len` digits.
fn base36(bytes: &[u8], len: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; len];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 36).expect("the rest is below 36, so the quotient fits a byte");
            rest = value % 36;
        }
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize];
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_dockers_form_and_a_rotation_changes_only_the_secret() {
        let token = new_token("root");
        assert_eq!(token.len(), 85);
        let parts: JoinToken = token.parse().unwrap();
        let renewed: JoinToken = renew_secret(&token).unwrap().parse().unwrap();
        assert_eq!(parts.digest, renewed.digest);
        assert_ne!(parts.secret, renewed.secret);
    }

    #[test]
    fn the_largest_digest_and_secret_fit() {
        assert_eq!(base36(&[255; 32], DIGEST_LEN), "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof");
        assert_eq!(base36(&[255; 16], SECRET_LEN), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(base36(&[0, 36], 3), "010");
    }

    #[test]
    fn a_token_knows_its_root_and_shows_the_digest_as_docker_does() {
        let token: JoinToken = new_token("root").parse().unwrap();
        assert!(token.is_for("root") && !token.is_for("other"));
        // SHA-256 of "root".
        let digest = "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2";
        assert_eq!(token.fingerprint(), digest);
    }

    #[test]
    fn other_texts_are_refused() {
        let token = new_token("root");
        for bad in ["", "SWMTKN-1-a-b", &token[1..], &token.to_uppercase(), &format!("{token}-x")] {
            assert_eq!(bad.parse::<JoinToken>(), Err(TokenError), "{bad}");
        }
    }
}
