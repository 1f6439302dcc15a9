//! Copying what an image has at a mount point into a volume: files of all kinds, with owners, modes, times, extended
//! attributes and hard links. Links of the image never lead the copy outside of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::rootfs;

/// Where a file with several names was copied to.
type Links = HashMap<(u64, u64), PathBuf>;

/// Copies the content of `destination` in the root file system `image` into `target`, with the directory's own owner and mode. Not there or no
/// directory: nothing to do.
pub(super) fn populate(image: &Path, destination: &str, target: &Path) -> io::Result<()> {
    let root = File::open(image)?;
    let dir: OwnedFd = match rootfs::open(&root, Path::new(destination), OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Ok(dir) => dir,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    // by its descriptor, so that what was found is what is copied
    let source = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    let meta = fs::metadata(&source)?;
    copy_children(&source, target, &mut Links::new())?;
    copy_attributes(&source, target, &meta)
}

fn copy_children(source: &Path, target: &Path, links: &mut Links) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        copy_entry(&entry.path(), &target.join(entry.file_name()), links)?;
    }
    Ok(())
}

fn copy_entry(source: &Path, target: &Path, links: &mut Links) -> io::Result<()> {
    let meta = fs::symlink_metadata(source)?;
    let kind = meta.file_type();
    if !kind.is_dir() && meta.nlink() > 1 {
        let identity = (meta.dev(), meta.ino());
        if let Some(first) = links.get(&identity) {
            return fs::hard_link(first, target);
        }
        links.insert(identity, target.to_owned());
    }
    if kind.is_symlink() {
        symlink(fs::read_link(source)?, target)?;
        return lchown(target, Some(meta.uid()), Some(meta.gid()));
    }
    if kind.is_dir() {
        fs::create_dir(target)?;
        copy_children(source, target, links)?;
    } else if kind.is_file() {
        fs::copy(source, target)?;
    } else {
        let form = match () {
            () if kind.is_char_device() => SFlag::S_IFCHR,
            () if kind.is_block_device() => SFlag::S_IFBLK,
            () if kind.is_fifo() => SFlag::S_IFIFO,
            // a socket means nothing without the process that bound it
            () => return Ok(()),
        };
        mknod(target, form, Mode::from_bits_truncate(meta.mode()), meta.rdev())?;
    }
    copy_attributes(source, target, &meta)
}

fn copy_attributes(source: &Path, target: &Path, meta: &Metadata) -> io::Result<()> {
    lchown(target, Some(meta.uid()), Some(meta.gid()))?;
    // after the owner: a change of owner takes set-id bits away
    fs::set_permissions(target, Permissions::from_mode(meta.mode() & 0o7777))?;
    for name in xattr::list(source)? {
        if copies(&name)
            && let Some(value) = xattr::get(source, &name)?
        {
            xattr::set(target, &name, &value)?;
        }
    }
    if meta.is_file() || meta.is_dir() {
        let times = FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?);
        File::open(target)?.set_times(times)?;
    }
    Ok(())
}

/// Labels and overlayfs's own bookkeeping belong to the place, not to the file.
fn copies(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b"trusted.overlay.") && name != b"security.selinux"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_with_owners_modes_links_and_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let (root, target) = (dir.path().join("root"), dir.path().join("volume"));
        let data = root.join("srv/data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(data.join("a"), b"content").unwrap();
        fs::hard_link(data.join("a"), data.join("sub/b")).unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        nix::unistd::mkfifo(&data.join("pipe"), Mode::S_IRUSR).unwrap();
        lchown(data.join("a"), Some(33), Some(44)).unwrap();
        fs::set_permissions(data.join("a"), Permissions::from_mode(0o4711)).unwrap();
        xattr::set(data.join("a"), "user.k", b"v").ok();
        lchown(&data, Some(7), Some(8)).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(0o1770)).unwrap();

        populate(&root, "/srv/data", &target).unwrap();
        let meta = fs::symlink_metadata(target.join("a")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.nlink()), (33, 44, 0o4711, 2));
        assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert!(fs::symlink_metadata(target.join("pipe")).unwrap().file_type().is_fifo());
        let own = fs::metadata(&target).unwrap();
        assert_eq!((own.uid(), own.mode() & 0o7777), (7, 0o1770));
    }

    #[test]
    fn links_stay_inside_and_what_is_not_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, target) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir_all(root.join("inside")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(root.join("inside/x"), b"x").unwrap();
        symlink("/../inside", root.join("data")).unwrap();
        populate(&root, "/nosuch", &target).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        populate(&root, "/data", &target).unwrap();
        assert!(target.join("x").exists(), "a link of the image is followed within the image");
    }
}
