//! What a container wrote: its size, and the list of changes against its image.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::confined::open_dir;
use crate::error::StoreError;

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// Absolute, within the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Different content or attributes.
    Modified = 0,
    /// Not in the image.
    Added = 1,
    /// Only in the image.
    Deleted = 2,
}

impl Serialize for ChangeKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// Bytes of all regular files under `upper`, each counted once however many names it has.
pub(super) fn size(upper: &Path) -> Result<u64, StoreError> {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0;
    walk(upper, &mut |_, metadata| {
        if metadata.is_file() && (metadata.nlink() == 1 || seen.insert(metadata.ino())) {
            total += metadata.len();
        }
    })
    .map_err(StoreError::at("measure", upper))?;
    Ok(total)
}

/// The changes that `upper` makes to `lower` (top first), sorted by path.
pub(super) fn changes(upper: &Path, lower: &[PathBuf]) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    walk(upper, &mut |relative, metadata| {
        let below = find_below(relative, lower);
        let kind = match (is_whiteout(metadata), below.is_some()) {
            // a file that came and went leaves a whiteout over nothing
            (true, false) => None,
            (true, true) => Some(ChangeKind::Deleted),
            (false, false) => Some(ChangeKind::Added),
            (false, true) => Some(ChangeKind::Modified),
        };
        let path = format!("/{}", relative.to_string_lossy());
        changes.extend(kind.map(|kind| Change { path, kind }));
    })
    .map_err(StoreError::at("list the changes in", upper))?;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Calls `visit` with everything under `root` and its path relative to it. A running container may change the tree
/// meanwhile: links are not followed, not even one that was a directory a moment ago.
fn walk(root: &Path, visit: &mut impl FnMut(&Path, &Metadata)) -> io::Result<()> {
    let root = File::open(root)?;
    let mut dirs = vec![PathBuf::new()];
    while let Some(path) = dirs.pop() {
        let Some(dir) = open_dir(&root, &path)? else { continue };
        for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            let Ok(metadata) = entry.metadata() else { continue };
            visit(&path, &metadata);
            if metadata.is_dir() {
                dirs.push(path);
            }
        }
    }
    Ok(())
}

/// The image's version of a path: in the topmost layer that says anything about it, including that it is gone.
fn find_below(path: &Path, lower: &[PathBuf]) -> Option<Metadata> {
    for layer in lower {
        let mut place = layer.clone();
        let mut opaque = false;
        for part in path {
            place.push(part);
            match fs::symlink_metadata(&place) {
                Ok(metadata) if is_whiteout(&metadata) => return None,
                Ok(metadata) if place == layer.join(path) => return Some(metadata),
                Ok(metadata) if metadata.is_dir() => opaque |= is_opaque(&place),
                // something that is no directory hides whatever is below it
                Ok(_) => return None,
                Err(_) => break,
            }
        }
        if opaque {
            return None;
        }
    }
    None
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(dir: &Path) -> bool {
    xattr::get(dir, crate::extract::OPAQUE).ok().flatten().as_deref() == Some(b"y")
}
