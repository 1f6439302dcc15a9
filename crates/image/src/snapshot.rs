//! The root file system of each container: an overlay of its image's layers under a directory of its own.
//!
//! Everything here blocks, for well under a millisecond unless stated otherwise. A snapshot is only directories and one
//! attribute, so that making one needs no disk flush of its own: it is as durable as the caller's next flush on the same
//! file system.

mod changes;
mod overlay;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

pub use changes::{Change, ChangeKind};
pub(crate) use overlay::check_file_system;

use crate::digest::{ChainId, ImageId};
use crate::error::{SnapshotError, StoreError};
use crate::layout::Layout;
use crate::store::ImageStore;

/// On a snapshot's directory: the number of the topmost layer's directory. One of the names that are root's alone, as
/// overlays need them.
const TOP: &str = "trusted.shoal.top";

/// Where a container's root file system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The root, once mounted.
    pub path: PathBuf,
    /// What the container itself wrote, in overlayfs form.
    pub upper: PathBuf,
}

impl ImageStore {
    /// Makes a container's root file system on top of an image; does not mount it. Made already, it stays as it is.
    /// From then on the image's layers stay until [`ImageStore::remove_snapshot`], even if the image is removed by
    /// force.
    pub fn ensure_snapshot(&self, container: &str, image: &ImageId) -> Result<Rootfs, SnapshotError> {
        check_id(container)?;
        let inner = &self.inner;
        let layout = &inner.layout;
        let rootfs = rootfs(layout, container);
        let mut volatile = inner.volatile();
        if volatile.snapshots.contains_key(container) {
            return Ok(rootfs);
        }
        let meta = inner.meta();
        let top = meta.images.get(image).ok_or(SnapshotError::NoImage(*image))?.layers.last().copied();
        let number = top.and_then(|chain| meta.layers.get(&chain)).map(|layer| layer.number);
        build(layout, container, number)?;
        volatile.snapshots.insert(container.to_owned(), top);
        Ok(rootfs)
    }

    /// Mounts a container's root file system. Mounted already, it stays so.
    pub fn ensure_mounted(&self, container: &str) -> Result<Rootfs, SnapshotError> {
        let layers = self.stack(container)?;
        let rootfs = rootfs(&self.inner.layout, container);
        if !overlay::is_mounted(&rootfs.path)? {
            overlay::mount(&self.inner.layout, container, &layers)?;
        }
        Ok(rootfs)
    }

    /// Unmounts a container's root file system. Not mounted, or no such snapshot: nothing to do.
    pub fn ensure_unmounted(&self, container: &str) -> Result<(), SnapshotError> {
        check_id(container)?;
        Ok(overlay::ensure_unmounted(&self.inner.layout.mount(container))?)
    }

    /// Unmounts and deletes a container's root file system; its files are deleted in the background. No such snapshot:
    /// nothing to do.
    pub fn remove_snapshot(&self, container: &str) -> Result<(), SnapshotError> {
        self.ensure_unmounted(container)?;
        let inner = &self.inner;
        {
            let mut volatile = inner.volatile();
            inner.layout.discard(&inner.layout.snapshot(container))?;
            volatile.snapshots.remove(container);
        }
        Ok(inner.collect()?)
    }

    /// The containers that have a root file system here, to find those that nobody knows any more.
    pub fn snapshots(&self) -> Vec<String> {
        self.inner.volatile().snapshots.keys().cloned().collect()
    }

    /// Bytes of the files that a container wrote. Takes as long as listing them.
    pub fn snapshot_size(&self, container: &str) -> Result<u64, SnapshotError> {
        self.stack(container)?;
        Ok(changes::size(&rootfs(&self.inner.layout, container).upper)?)
    }

    /// What a container added, changed and deleted. Takes as long as listing it.
    pub fn snapshot_changes(&self, container: &str) -> Result<Vec<Change>, SnapshotError> {
        let layers = self.stack(container)?;
        let layout = &self.inner.layout;
        let lower: Vec<_> = layers.iter().map(|number| layout.layer(*number)).chain([layout.base()]).collect();
        Ok(changes::changes(&rootfs(layout, container).upper, &lower)?)
    }

    /// The directory numbers of the layers under a container, top first.
    fn stack(&self, container: &str) -> Result<Vec<u64>, SnapshotError> {
        check_id(container)?;
        let layout = &self.inner.layout;
        let known = self.inner.volatile().snapshots.get(container).copied();
        let top: Option<ChainId> = known.ok_or_else(|| SnapshotError::NotFound(container.to_owned()))?;
        let Some(top) = top else {
            return match top_layer(layout, container) {
                None => Ok(Vec::new()),
                Some(number) => Err(SnapshotError::NoLayer { id: container.to_owned(), layer: number.to_string() }),
            };
        };
        let meta = self.inner.meta();
        let stack = meta.stack(&top);
        match stack.last() {
            Some(lowest) if lowest.parent.is_none() => Ok(stack.iter().map(|layer| layer.number).collect()),
            _ => Err(SnapshotError::NoLayer { id: container.to_owned(), layer: top.to_string() }),
        }
    }
}

/// The directory number of the topmost layer under a container, as its attribute says.
pub(crate) fn top_layer(layout: &Layout, container: &str) -> Option<u64> {
    let number = xattr::get(layout.snapshot(container), TOP).ok()??;
    std::str::from_utf8(&number).ok()?.parse().ok()
}

fn rootfs(layout: &Layout, container: &str) -> Rootfs {
    Rootfs { path: layout.mount(container), upper: layout.snapshot(container).join("upper") }
}

/// Makes the directories elsewhere and moves them into place, so that there is no half of a snapshot.
fn build(layout: &Layout, container: &str, top: Option<u64>) -> Result<(), SnapshotError> {
    let temp = layout.temp_path("snapshot");
    let build = || -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        private.mode(0o710).create(&temp)?;
        for dir in ["upper", "work"] {
            fs::create_dir(temp.join(dir))?;
        }
        if let Some(top) = top {
            xattr::set(&temp, TOP, top.to_string().as_bytes())?;
            copy_attributes(&layout.layer(top), &temp.join("upper"))?;
        }
        fs::rename(&temp, layout.snapshot(container))
    };
    build().map_err(|error| {
        fs::remove_dir_all(&temp).ok();
        SnapshotError::Store(StoreError::at("make", layout.snapshot(container))(error))
    })
}

/// The root of an overlay has the attributes of its upper directory: they must be the image's.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

/// An id becomes a directory name.
fn check_id(container: &str) -> Result<(), SnapshotError> {
    let fits = !container.is_empty()
        && container.len() <= 128
        && !container.starts_with('.')
        && container.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    fits.then_some(()).ok_or_else(|| SnapshotError::InvalidId(container.to_owned()))
}
