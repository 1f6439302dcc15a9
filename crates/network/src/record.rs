//! What of the networks outlives a reboot: ids, the time they were made, and the subnet that was chosen.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{endpoint::NetworkMode, error::OpenError};

/// Under the data directory.
const FILE: &str = "networks.json";

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    bridge: String,
    host: String,
    none: String,
    /// When the file was first written.
    pub created: jiff::Timestamp,
    /// Gateway and network of the default bridge.
    pub subnet: Option<Ipv4Net>,
}

impl Record {
    /// Reads the file, or makes a new record that is not written yet. A file that cannot be read is an error: new ids
    /// in the place of old ones would be noticed too late.
    pub fn load(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let failed = |source| OpenError::State { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self {
                bridge: random_id(),
                host: random_id(),
                none: random_id(),
                created: jiff::Timestamp::now(),
                subnet: None,
            }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes the file whole or not at all.
    pub fn save(&self, dir: &Path) -> Result<(), OpenError> {
        let path = dir.join(FILE);
        let write = || {
            let fresh = dir.join(format!("{FILE}.new"));
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|source| OpenError::State { path: path.clone(), source })
    }

    /// A network's id.
    pub fn id(&self, mode: NetworkMode) -> &str {
        match mode {
            NetworkMode::Bridge => &self.bridge,
            NetworkMode::Host => &self.host,
            NetworkMode::None => &self.none,
        }
    }
}

/// 64 hexadecimal digits, as Docker's ids.
pub fn random_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
