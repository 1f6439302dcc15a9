//! What a node needs to go on with a join, on disk from before anybody is asked until it has its certificate.
//!
//! The key is part of it: the managers know a node by its key, so that one that asks again after a crash is the node
//! that they have taken in already, and not another one.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use shoal_types::spec::Availability;

use crate::paths::{FileError, Saved, remove, write_durably};

/// Beside the certificate that it is to bring: both go together.
const FILE: &str = "join.json";

/// A join that is under way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Joining {
    /// Addresses, and the managers that were named.
    pub saved: Saved,
    /// Whether the node is to take tasks.
    pub availability: Availability,
    /// The join token.
    pub token: String,
    /// The key that the certificate is to be for, PKCS#8 PEM.
    key_pem: String,
}

impl Joining {
    /// A join with a new key.
    ///
    /// # Errors
    /// There is no key to be had.
    pub fn new(saved: Saved, availability: Availability, token: String) -> Result<Self, rcgen::Error> {
        Ok(Self { saved, availability, token, key_pem: KeyPair::generate()?.serialize_pem() })
    }

    /// The key.
    ///
    /// # Errors
    /// The file was written by somebody else.
    pub fn key(&self) -> Result<KeyPair, rcgen::Error> {
        KeyPair::from_pem(&self.key_pem)
    }

    /// The join that is under way among the certificates in `dir`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(dir: &Path) -> Result<Option<Self>, FileError> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| FileError::Damaged { path }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Io { path, source }),
        }
    }

    /// Keeps it in `dir`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), FileError> {
        let bytes = serde_json::to_vec_pretty(self).expect("texts and numbers only");
        let io = |path: PathBuf| move |source| FileError::Io { path, source };
        std::fs::create_dir_all(dir).map_err(io(dir.to_owned()))?;
        let path = dir.join(FILE);
        write_durably(&path, &bytes, 0o600).map_err(io(path))
    }

    /// Forgets it: the certificate is there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(dir: &Path) -> Result<(), FileError> {
        remove(&dir.join(FILE))
    }
}
