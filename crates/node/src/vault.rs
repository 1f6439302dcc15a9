//! The directory of a node's certificates (swarm-semantics 8.3): root and certificate, which anyone may read, and the keys,
//! which may be sealed.
//!
//! A new certificate is written in steps of which each leaves a whole identity: the keys of both certificates, then the
//! certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use shoal_manager::ca::UnlockKey;

use crate::identity::{Identity, IdentityError, Issued, is_key_of};
use crate::keys::{Keys, Sealed, Stored};
use crate::paths::write_durably;

const ROOT: &str = "swarm-root-ca.crt";
const CERT: &str = "swarm-node.crt";
const KEY: &str = "swarm-node.key";

/// What a node has to show, kept on disk.
#[derive(Debug)]
pub struct Vault {
    dir: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    keys: Keys,
    seal: Option<UnlockKey>,
}

/// What a directory holds.
pub enum Found {
    /// No node.
    Nothing,
    /// A node.
    Node(Identity, Vault),
    /// A node whose keys are sealed.
    Locked(Locked),
}

/// A node whose keys are sealed.
pub struct Locked {
    dir: PathBuf,
    sealed: Sealed,
}

impl Vault {
    /// For a new node; nothing is written yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, held: Mutex::default() }
    }

    /// Looks into `dir`.
    ///
    /// # Errors
    /// Its files are damaged or cannot be read.
    pub fn find(dir: &Path) -> Result<Found, IdentityError> {
        if read(&dir.join(CERT))?.is_none() {
            return Ok(Found::Nothing);
        }
        let path = dir.join(KEY);
        match Keys::load(&path).map_err(failed("read", &path))? {
            None => Err(missing(KEY)),
            Some(Stored::Open(keys)) => {
                Self::with(dir, keys, None).map(|(identity, vault)| Found::Node(identity, vault))
            }
            Some(Stored::Sealed(sealed)) => Ok(Found::Locked(Locked { dir: dir.to_owned(), sealed })),
        }
    }

    fn with(dir: &Path, keys: Keys, seal: Option<UnlockKey>) -> Result<(Identity, Self), IdentityError> {
        let cert_pem = read(&dir.join(CERT))?.ok_or_else(|| missing(CERT))?;
        let root_pem = read(&dir.join(ROOT))?.ok_or_else(|| missing(ROOT))?;
        let key_pem = keys.certificates.iter().find(|key| is_key_of(key, &cert_pem));
        let key_pem = key_pem.ok_or_else(|| IdentityError::Certificate("its key is missing".to_owned()))?.clone();
        let identity = Identity::new(Issued { cert_pem, key_pem }, root_pem)?;
        Ok((identity, Self { dir: dir.to_owned(), held: Mutex::new(Held { keys, seal }) }))
    }

    /// Keeps `identity`. The certificate comes last: without it there is no identity.
    ///
    /// # Errors
    /// A file cannot be written; what was kept before still counts.
    pub fn keep(&self, identity: &Identity) -> Result<(), IdentityError> {
        std::fs::create_dir_all(&self.dir).map_err(failed("write", &self.dir))?;
        let held = &mut *self.held();
        let key = &identity.issued().key_pem;
        if held.keys.certificates.first() != Some(key) {
            let mut keys = held.keys.clone();
            keys.certificates.insert(0, key.clone());
            keys.certificates.truncate(2);
            self.write_keys(held, keys)?;
        }
        let write = |file: &str, content: &str| {
            let path = self.dir.join(file);
            write_durably(&path, content.as_bytes(), 0o644).map_err(failed("write", &path))
        };
        write(ROOT, identity.root_pem())?;
        write(CERT, &identity.issued().cert_pem)
    }

    /// The key that the log is encrypted with, which is made where there is none; and the older ones, the newest first, that
    /// some of it may still be encrypted with.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn log_keys(&self) -> Result<([u8; 32], Vec<[u8; 32]>), IdentityError> {
        let held = &mut *self.held();
        if let Some((key, older)) = held.keys.log.split_first() {
            return Ok((*key, older.to_vec()));
        }
        std::fs::create_dir_all(&self.dir).map_err(failed("write", &self.dir))?;
        let key = rand::random();
        self.write_keys(held, Keys { log: vec![key], ..held.keys.clone() })?;
        Ok((key, Vec::new()))
    }

    /// Whether there is a key of a log.
    pub fn has_log_key(&self) -> bool {
        !self.held().keys.log.is_empty()
    }

    /// Nothing is left of the log that needs another key than `newest`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget_log_keys_but(&self, newest: &[u8; 32]) -> Result<(), IdentityError> {
        let held = &mut *self.held();
        match held.keys.log.first() {
            Some(first) if first == newest && held.keys.log.len() > 1 => {
                self.write_keys(held, Keys { log: vec![*newest], ..held.keys.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Forgets the key of the log, which is gone, and that anything was sealed: this is no manager any more.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget_log(&self) -> Result<(), IdentityError> {
        let held = &mut *self.held();
        held.seal = None;
        self.write_keys(held, Keys { log: Vec::new(), version: 0, ..held.keys.clone() })
    }

    /// Seals the keys with `seal` from now on, or with none, as the cluster of `version` wants it. Nothing happens where that
    /// is so already, or where a later version has been heeded. Whether they lay open until now: then there is a new key for
    /// the log, and whoever could read the old one knows nothing of what is written from now on.
    ///
    /// # Errors
    /// They cannot be written; they are as before then.
    pub fn seal(&self, seal: Option<&UnlockKey>, version: u64) -> Result<bool, IdentityError> {
        let held = &mut *self.held();
        if held.seal.as_ref() == seal || held.keys.version >= version {
            return Ok(false);
        }
        let before = std::mem::replace(&mut held.seal, seal.cloned());
        let lay_open = before.is_none();
        let mut keys = Keys { version, ..held.keys.clone() };
        if lay_open && !keys.log.is_empty() {
            keys.log.insert(0, rand::random());
        }
        match self.write_keys(held, keys) {
            Ok(()) => Ok(lay_open),
            Err(error) => {
                held.seal = before;
                Err(error)
            }
        }
    }

    /// What the directory holds, opened with the key that these are sealed with.
    ///
    /// # Errors
    /// Its files are damaged or cannot be read, or another key seals them.
    pub fn reopen(&self) -> Result<(Identity, Self), IdentityError> {
        let seal = self.held().seal.clone();
        let found = match (Self::find(&self.dir)?, seal) {
            (Found::Node(identity, vault), _) => Some((identity, vault)),
            (Found::Locked(locked), Some(key)) => locked.open(&key)?,
            _ => None,
        };
        found.ok_or_else(|| missing(CERT))
    }

    fn write_keys(&self, held: &mut Held, keys: Keys) -> Result<(), IdentityError> {
        let path = self.dir.join(KEY);
        keys.save(&path, held.seal.as_ref()).map_err(failed("write", &path))?;
        held.keys = keys;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it is held")
    }
}

impl Locked {
    /// The node, if `key` is the right one.
    ///
    /// # Errors
    /// Its other files are damaged or cannot be read.
    pub fn open(&self, key: &UnlockKey) -> Result<Option<(Identity, Vault)>, IdentityError> {
        let Some(keys) = self.sealed.open(key) else { return Ok(None) };
        Vault::with(&self.dir, keys, Some(key.clone())).map(Some)
    }
}

fn missing(file: &str) -> IdentityError {
    IdentityError::Certificate(format!("{file} is missing"))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File { action, path: path.clone(), source }
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match std::fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    fn found(dir: &Path) -> (Identity, Vault) {
        match Vault::find(dir).unwrap() {
            Found::Node(identity, vault) => (identity, vault),
            _ => panic!("there is a node"),
        }
    }

    #[test]
    fn an_identity_survives_its_files_and_its_key_is_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Vault::find(dir.path()).unwrap(), Found::Nothing));
        let identity = identity();
        let vault = Vault::new(dir.path().to_owned());
        let log = vault.log_keys().unwrap();
        assert!(matches!(Vault::find(dir.path()).unwrap(), Found::Nothing), "keys alone are no node");
        vault.keep(&identity).unwrap();
        let (read, vault) = found(dir.path());
        assert_eq!((read, vault.log_keys().unwrap()), (identity, log));
        assert_eq!(std::fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_renewal_cut_short_anywhere_leaves_a_whole_identity() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (identity(), identity());
        let vault = Vault::new(dir.path().to_owned());
        vault.keep(&old).unwrap();
        let cert = std::fs::read(dir.path().join(CERT)).unwrap();
        vault.keep(&new).unwrap();
        assert_eq!(found(dir.path()).0, new);
        // As if the new certificate had not been written yet.
        std::fs::write(dir.path().join(CERT), cert).unwrap();
        assert_eq!(found(dir.path()).0.issued(), old.issued());
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        Vault::new(dir.path().to_owned()).keep(&identity()).unwrap();
        std::fs::remove_file(dir.path().join(KEY)).unwrap();
        assert!(Vault::find(dir.path()).err().unwrap().to_string().contains("swarm-node.key is missing"));
    }

    #[test]
    fn sealed_keys_open_with_the_key_that_they_were_sealed_with_last() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path().to_owned());
        vault.keep(&identity()).unwrap();
        let (before, _) = vault.log_keys().unwrap();
        let (first, second) = (UnlockKey::random(), UnlockKey::random());
        assert!(vault.seal(Some(&first), 5).unwrap(), "they lay open");
        let log = vault.log_keys().unwrap();
        assert!(log.0 != before && log.1 == [before], "a new key, and the old one for what there is");
        assert!(!vault.seal(Some(&second), 7).unwrap());
        let Found::Locked(locked) = Vault::find(dir.path()).unwrap() else { panic!("it is locked") };
        assert!(locked.open(&first).unwrap().is_none());
        let (_, vault) = locked.open(&second).unwrap().unwrap();
        assert_eq!(vault.log_keys().unwrap(), log);
        vault.forget_log_keys_but(&before).unwrap();
        assert_eq!(vault.log_keys().unwrap(), log, "it is not the newest");
        vault.forget_log_keys_but(&log.0).unwrap();
        assert_eq!(vault.log_keys().unwrap(), (log.0, Vec::new()));
        vault.keep(&identity()).unwrap();
        assert!(matches!(Vault::find(dir.path()).unwrap(), Found::Locked(_)), "a renewal keeps the seal");
        vault.seal(None, 6).unwrap();
        assert!(matches!(Vault::find(dir.path()).unwrap(), Found::Locked(_)), "an older state does not count");
        vault.seal(None, 8).unwrap();
        found(dir.path());
    }
}
