//! The secrets of a node on disk, in one file so that they are changed all at once: the key of its certificate, and on
//! managers the key of the log. Where the cluster locks its managers, the file is sealed (swarm-semantics 8.4).

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use shoal_manager::ca::UnlockKey;

use crate::paths::write_durably;

const KEY: &str = "PRIVATE KEY";
const LOG: &str = "SHOAL LOG KEY";
const VERSION: &str = "SHOAL SEAL VERSION";
const SEALED: &str = "SHOAL SEALED KEYS";

/// The secrets of a node.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Keys of certificates, PKCS#8 PEM, the newest first: the certificate may still be the one before.
    pub certificates: Vec<String>,
    /// What log and snapshots are encrypted with, the newest first: older ones as long as something is left of before. Only
    /// managers have any.
    pub log: Vec<[u8; 32]>,
    /// The version of the cluster that said whether these are sealed: an older state does not count.
    pub version: u64,
}

/// What is in the file.
pub enum Stored {
    /// The secrets.
    Open(Keys),
    /// The secrets, sealed.
    Sealed(Sealed),
}

/// Secrets that an unlock key opens.
pub struct Sealed(String);

impl Keys {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or does not hold keys ([`io::ErrorKind::InvalidData`]).
    pub fn load(path: &Path) -> io::Result<Option<Stored>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some((SEALED, body)) = blocks(&text).next() {
            return Ok(Some(Stored::Sealed(Sealed(body))));
        }
        Self::parse(&text).map(|keys| Some(Stored::Open(keys))).ok_or_else(damaged)
    }

    /// Writes the file, sealed where there is a key for that. After a crash there is the old one or the new one.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there.
    pub fn save(&self, path: &Path, seal: Option<&UnlockKey>) -> io::Result<()> {
        let text = match seal {
            Some(key) => block(SEALED, &key.seal(self.text().as_bytes())),
            None => self.text(),
        };
        write_durably(path, text.as_bytes(), 0o600)
    }

    fn text(&self) -> String {
        let mut text = self.certificates.concat();
        for log in &self.log {
            text.push_str(&block(LOG, &BASE64.encode(log)));
        }
        if self.version > 0 {
            text.push_str(&block(VERSION, &BASE64.encode(self.version.to_be_bytes())));
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut keys = Self::default();
        for (label, body) in blocks(text) {
            match label {
                KEY => keys.certificates.push(block(KEY, &body)),
                LOG => keys.log.push(BASE64.decode(body).ok()?.try_into().ok()?),
                VERSION => keys.version = u64::from_be_bytes(BASE64.decode(body).ok()?.try_into().ok()?),
                _ => return None,
            }
        }
        (!keys.certificates.is_empty()).then_some(keys)
    }
}

impl Sealed {
    /// The secrets, if `key` is the right one.
    pub fn open(&self, key: &UnlockKey) -> Option<Keys> {
        let text = key.open(&self.0).ok()?;
        Keys::parse(std::str::from_utf8(&text).ok()?)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// A PEM block.
fn block(label: &str, body: &str) -> String {
    let lines = body.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}

/// The PEM blocks of a text: label and base64.
fn blocks(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.split("-----BEGIN ").skip(1).filter_map(|part| {
        let (label, rest) = part.split_once("-----")?;
        let (body, _) = rest.split_once("-----END ")?;
        Some((label, body.split_whitespace().collect()))
    })
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it does not hold the keys of a node")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let pem = |_| rcgen::KeyPair::generate().unwrap().serialize_pem().replace("\r\n", "\n");
        Keys { certificates: (0..2).map(pem).collect(), log: vec![[7; 32], [6; 32]], version: 9 }
    }

    #[test]
    fn keys_survive_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        assert!(Keys::load(&path).unwrap().is_none());
        keys_match(&path, &keys());
        keys_match(&path, &Keys { log: Vec::new(), ..keys() });
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(Keys::load(&path).err().unwrap().kind(), io::ErrorKind::InvalidData);
    }

    fn keys_match(path: &Path, keys: &Keys) {
        keys.save(path, None).unwrap();
        match Keys::load(path).unwrap() {
            Some(Stored::Open(read)) => assert_eq!(read, *keys),
            _ => panic!("it is not sealed"),
        }
    }

    #[test]
    fn sealed_keys_show_nothing_and_open_with_their_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, keys, key) = (dir.path().join("keys"), keys(), UnlockKey::random());
        keys.save(&path, Some(&key)).unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains("PRIVATE"));
        let Some(Stored::Sealed(sealed)) = Keys::load(&path).unwrap() else { panic!("it is sealed") };
        assert!(sealed.open(&UnlockKey::random()).is_none());
        assert_eq!(sealed.open(&key), Some(keys));
    }
}
