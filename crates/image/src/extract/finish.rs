//! Giving directories that a layer only implies the attributes that the layers below gave them.
//!
//! An overlay shows the attributes of the topmost layer's directory. A layer that has `etc/hosts` but no entry for
//! `etc` must not change the owner and mode of `etc`.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use xattr::FileExt as _;

use super::OPAQUE;
use crate::confined::open_dir;
use crate::error::StoreError;

/// Copies the attributes of each implied directory from the topmost of the layers `below` (top first) that has it. A
/// directory that none has keeps the default: root's, mode 0755. What lies behind a link is left as it is.
pub(crate) fn finish(dir: &Path, implied: &[PathBuf], below: &[PathBuf]) -> Result<(), StoreError> {
    let finish = || -> io::Result<()> {
        let root = File::open(dir)?;
        let below: Vec<File> = below.iter().map(File::open).collect::<io::Result<_>>()?;
        implied.iter().try_for_each(|path| finish_dir(&root, path, &below))
    };
    finish().map_err(StoreError::at("set attributes of directories in", dir))
}

fn finish_dir(root: &File, path: &Path, below: &[File]) -> io::Result<()> {
    let Some(target) = open_dir(root, path)? else { return Ok(()) };
    for layer in below {
        if let Some(source) = open_dir(layer, path)? {
            return copy_attributes(&source, &target);
        }
    }
    target.set_permissions(Permissions::from_mode(0o755))
}

fn copy_attributes(source: &File, target: &File) -> io::Result<()> {
    let metadata = source.metadata()?;
    fchown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    target.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
    for name in source.list_xattr()?.filter(|name| name != OPAQUE) {
        if let Some(value) = source.get_xattr(&name)? {
            target.set_xattr(&name, &value)?;
        }
    }
    target.set_times(FileTimes::new().set_accessed(metadata.accessed()?).set_modified(metadata.modified()?))
}
