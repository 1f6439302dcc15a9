//! Where everything lies under the two roots.
//!
//! ```text
//! DATA/lock                        held while a daemon uses the root; holds its process id
//! DATA/engine.redb                 containers and volumes
//! DATA/containers/ID/              state.json, exit.json, ID-json.log*, hosts, hostname, resolv.conf
//! DATA/trash/                      what is being deleted
//! DATA/volumes/NAME/_data
//! DATA/images/                     of the image crate
//! DATA/network/                    of the network crate
//! EXEC/lock
//! EXEC/files/ID/                   private files of a container, in memory
//! EXEC/exe/                        the sealed binary
//! EXEC/mounts/                     root file systems and network namespaces, as the runtime crate arranges them
//! EXEC/run/ID/                     job, socket, bundle of a running container
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The paths.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    data: PathBuf,
    exec: PathBuf,
}

impl Layout {
    pub fn new(data: &Path, exec: &Path) -> Self {
        Self { data: data.to_owned(), exec: exec.to_owned() }
    }

    /// Makes what is not there; both roots for root alone.
    pub fn ensure(&self) -> Result<(), (PathBuf, io::Error)> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        for (dir, mode) in [
            (self.data.clone(), 0o710),
            (self.exec.clone(), 0o711),
            (self.data.join("containers"), 0o710),
            (self.data.join("trash"), 0o700),
            (self.data.join("volumes"), 0o701),
            (self.exec.join("run"), 0o711),
            // set-user-id programs of images are out of the reach of the host's users
            (self.stage(), 0o700),
        ] {
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(&dir);
            made.and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(mode))).map_err(|e| (dir, e))?;
        }
        Ok(())
    }

    pub fn data_root(&self) -> &Path {
        &self.data
    }

    pub fn locks(&self) -> [PathBuf; 2] {
        [self.data.join("lock"), self.exec.join("lock")]
    }

    pub fn record(&self) -> PathBuf {
        self.data.join("engine.redb")
    }

    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    pub fn network(&self) -> PathBuf {
        self.data.join("network")
    }

    pub fn sealed(&self) -> PathBuf {
        self.exec.join("exe")
    }

    pub fn stage(&self) -> PathBuf {
        self.exec.join("mounts")
    }

    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// A container's durable directory.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    pub fn trash(&self) -> PathBuf {
        self.data.join("trash")
    }

    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    pub fn runs(&self) -> PathBuf {
        self.exec.join("run")
    }

    /// A running container's directory.
    pub fn run(&self, id: &str) -> PathBuf {
        self.runs().join(id)
    }

    /// Takes a tree out of the way in one step; the caller deletes what it now is.
    pub fn discard(&self, path: &Path, unique: &str) -> io::Result<Option<PathBuf>> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let target = self.trash().join(format!("{name}.{unique}"));
        match fs::rename(path, &target) {
            Ok(()) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
