//! Where everything lies under the store's root, and the small file operations that all parts share.
//!
//! ```text
//! lock                      held while a process has the store open
//! images.json               the record: images, references, layers; replaced whole by rename
//! blobs/sha256/<hex>        configuration documents and layer blobs as they came, each verified
//! layers/<n>/               one unpacked layer, a read-only part of overlay mounts; short, for long mount options
//! snapshots/<container>/    upper, work; an attribute names the topmost layer's directory
//! base/                     below the layers of every image: what each container has something mounted on
//! tmp/                      things being made; emptied on open
//! trash/                    things being deleted; emptied in the background
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::error::StoreError;
use crate::trash::{Chore, Janitor};

/// Made once for all containers, as Docker makes them for each: a start then creates no file to mount another on.
/// Programs take `.dockerenv` for the sign that they run in a container.
const BASE_DIRS: [&str; 4] = ["base/dev", "base/etc", "base/proc", "base/sys"];
const BASE_FILES: [&str; 4] = ["base/.dockerenv", "base/etc/hostname", "base/etc/hosts", "base/etc/resolv.conf"];

/// The store's paths, and numbers for new names.
#[derive(Debug)]
pub(crate) struct Layout {
    pub root: PathBuf,
    /// Where root file systems are mounted, elsewhere: one directory for each mounted one.
    pub mounts: PathBuf,
    pub janitor: Janitor,
    next: AtomicU64,
}

/// A file being made under `tmp`; unlinked when dropped.
#[derive(Debug)]
pub(crate) struct TempFile {
    pub path: PathBuf,
}

/// A layer directory being made; moved to the trash when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct TempLayer {
    layout: Arc<Layout>,
    pub number: u64,
    kept: bool,
}

impl Layout {
    /// Makes the directories and discards what a crash left half-made. The trash is emptied by `janitor`.
    pub fn ensure(root: &Path, mounts: &Path, janitor: Janitor) -> Result<Self, StoreError> {
        let layout = Self { root: root.to_owned(), mounts: mounts.to_owned(), janitor, next: AtomicU64::new(1) };
        let own = ["blobs/sha256", "layers", "snapshots", "tmp", "trash"];
        for path in own.iter().chain(&BASE_DIRS).map(|dir| root.join(dir)).chain([mounts.to_owned()]) {
            fs::create_dir_all(&path).map_err(StoreError::at("create", &path))?;
        }
        for path in BASE_FILES.map(|file| root.join(file)) {
            File::options().create(true).append(true).open(&path).map_err(StoreError::at("create", &path))?;
        }
        // images hold set-user-id programs and secrets: nobody but root may walk in
        let private = fs::Permissions::from_mode(0o710);
        fs::set_permissions(root, private).map_err(StoreError::at("set mode of", root))?;
        // what was being made may be big: it goes to the trash, not through a deletion before the daemon is up
        for dir in ["tmp", "layers", "trash"] {
            for entry in read_dir(&layout.root.join(dir))? {
                let number = entry.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
                layout.next.fetch_max(number.map_or(0, |number| number.saturating_add(1)), Ordering::Relaxed);
            }
        }
        for entry in read_dir(&layout.root.join("tmp"))? {
            layout.discard(&layout.root.join("tmp").join(entry))?;
        }
        Ok(layout)
    }

    pub fn record(&self) -> PathBuf {
        self.root.join("images.json")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub fn layer(&self, number: u64) -> PathBuf {
        self.root.join("layers").join(number.to_string())
    }

    /// What lies below the lowest layer.
    pub fn base(&self) -> PathBuf {
        self.root.join("base")
    }

    pub fn snapshot(&self, container: &str) -> PathBuf {
        self.root.join("snapshots").join(container)
    }

    /// Where a container's root file system is mounted.
    pub fn mount(&self, container: &str) -> PathBuf {
        self.mounts.join(container)
    }

    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// A number that no name under the root has had since the store was opened.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn temp_path(&self, what: &str) -> PathBuf {
        self.root.join("tmp").join(format!("{what}-{}", self.number()))
    }

    pub fn temp_file(&self) -> Result<(TempFile, File), StoreError> {
        let path = self.temp_path("blob");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(StoreError::at("create", &path))?;
        Ok((TempFile { path }, file))
    }

    pub fn temp_layer(self: &Arc<Self>) -> Result<TempLayer, StoreError> {
        let number = self.number();
        let path = self.layer(number);
        fs::create_dir(&path).map_err(StoreError::at("create", &path))?;
        Ok(TempLayer { layout: self.clone(), number, kept: false })
    }

    /// Moves a file or tree to the trash, to be deleted in the background. What is not there is no error.
    pub fn discard(&self, path: &Path) -> Result<(), StoreError> {
        match self.discard_by(|target| fs::rename(path, target)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::at("discard", path)(error)),
            _ => Ok(()),
        }
    }

    /// Has `rename` move something to the place in the trash that it is given.
    pub fn discard_by(&self, rename: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        rename(&self.trash().join(format!("x-{}", self.number())))?;
        self.janitor.ask(Chore::EmptyTrash);
        Ok(())
    }
}

impl TempLayer {
    pub fn path(&self) -> PathBuf {
        self.layout.layer(self.number)
    }

    /// The layer is recorded now: leave it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for TempLayer {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.layout.discard(&self.path()) {
            tracing::warn!(%error, "an unfinished layer stays until the next start");
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished file stays until the next start");
        }
    }
}

/// The names in a directory.
pub(crate) fn read_dir(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(path).map_err(StoreError::at("list", path))?;
    let names: io::Result<Vec<String>> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    names.map_err(StoreError::at("list", path))
}

/// Replaces a file so that after a crash at any instant it is either the old one or the new one, whole.
pub(crate) fn write_atomic(path: &Path, temp: &Path, content: &[u8]) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(temp)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(temp, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().map_err(|error| {
        // a full disk must not be made fuller; the file may be gone already
        fs::remove_file(temp).ok();
        StoreError::at("write", path)(error)
    })
}
