//! Looking into a container's root file system, where no link of the image leads outside of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Opens a path of a root file system.
pub fn open(root: &File, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// The text of a file of a root file system, up to so many bytes. One that is not there, or no plain file, is empty.
pub fn read(rootfs: &Path, path: &str, most: u64) -> io::Result<String> {
    let root = File::open(rootfs)?;
    // a pipe or a device in the place of the file must not stop the daemon
    let file = match open(&root, Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
        Ok(fd) => File::from(fd),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a directory, and those above it, in a root file system. `false`: something that is no directory is in the way.
pub fn ensure_dir(rootfs: &Path, path: &str) -> io::Result<bool> {
    let root = File::open(rootfs)?;
    let mut done = PathBuf::from(".");
    for part in Path::new(path).components() {
        let Component::Normal(name) = part else { continue };
        let parent = match open(&root, &done, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(parent) => parent,
            Err(Errno::ENOTDIR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        done.push(name);
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(open(&root, &done, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn directories_are_made_inside_whatever_the_links_say() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink("/real", root.join("link")).unwrap();
        symlink("../../outside", root.join("escape")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        assert!(ensure_dir(&root, "/link/a/b").unwrap());
        assert!(root.join("real/a/b").is_dir());
        assert!(!ensure_dir(&root, "/file/x").unwrap());
        assert!(!ensure_dir(&root, "/file").unwrap());
        ensure_dir(&root, "/escape/x").ok();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_file_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), "etc/passwd", 10).unwrap(), "");
        nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(read(dir.path(), "pipe", 10).unwrap(), "");
        std::fs::write(dir.path().join("long"), "0123456789abc").unwrap();
        assert_eq!(read(dir.path(), "long", 10).unwrap(), "0123456789");
    }
}
