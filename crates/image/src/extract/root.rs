//! File operations that cannot leave a layer's root.
//!
//! Names are cleaned first: one that climbs out is refused. The directory of a name is then opened by the kernel with
//! the layer's root as *its* root (`openat2` with `RESOLVE_IN_ROOT`), so links that the layer made, absolute ones too,
//! lead only to places inside. The last part of a name is never followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{ExtractError, StoreError};
use crate::layout::Layout;

/// A layer's root.
pub(super) struct Root<'a> {
    fd: OwnedFd,
    layout: &'a Layout,
    /// The directory of the last entry: archives list a directory's files one after the other.
    last: Option<(PathBuf, std::rc::Rc<OwnedFd>)>,
    /// Directories that were made because an entry lies in them.
    pub implied: Vec<PathBuf>,
}

/// A directory inside the root, and a name in it.
pub(super) struct Place {
    pub dir: std::rc::Rc<OwnedFd>,
    pub name: OsString,
}

/// Why a name leads to no place.
enum Blocked {
    Missing,
    ByLink,
    System(Errno),
}

impl<'a> Root<'a> {
    pub fn open(path: &Path, layout: &'a Layout) -> Result<Self, StoreError> {
        let fd = File::open(path).map_err(StoreError::at("open", path))?.into();
        Ok(Self { fd, layout, last: None, implied: Vec::new() })
    }

    /// The root directory itself.
    pub fn dir(&self) -> io::Result<File> {
        Ok(self.fd.try_clone()?.into())
    }

    /// Where `path` (clean, see [`clean`]) is. Directories on the way are made if need be.
    pub fn place(&mut self, path: &Path, entry: &str) -> Result<Place, ExtractError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some((_, dir)) = self.last.as_ref().filter(|(last, _)| last == parent) {
            return Ok(Place { dir: dir.clone(), name });
        }
        let dir = match self.open_dir(parent) {
            Err(Blocked::Missing) => self.make_dirs(parent),
            opened => opened,
        };
        let dir = std::rc::Rc::new(dir.map_err(|blocked| blocked.into_error(entry))?);
        self.last = Some((parent.to_owned(), dir.clone()));
        Ok(Place { dir, name })
    }

    /// Where `path` is, if its directory is there.
    pub fn find(&self, path: &Path, entry: &str) -> Result<Option<Place>, ExtractError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        match self.open_dir(path.parent().unwrap_or(Path::new(""))) {
            Ok(dir) => Ok(Some(Place { dir: dir.into(), name })),
            Err(Blocked::Missing) => Ok(None),
            Err(blocked) => Err(blocked.into_error(entry)),
        }
    }

    /// Takes away what is at a place. A directory goes to the store's trash, whatever is in it.
    pub fn remove(&mut self, place: &Place) -> io::Result<()> {
        match unlinkat(&*place.dir, place.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {
                // the remembered directory may be inside it
                self.last = None;
                let rename = |target: &Path| Ok(renameat(&*place.dir, place.name.as_os_str(), AT_FDCWD, target)?);
                self.layout.discard_by(rename)
            }
            Err(Errno::ENOENT) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Links may have changed what names mean.
    pub fn forget(&mut self) {
        self.last = None;
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd, Blocked> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.fd, path, how) {
                Ok(fd) => return Ok(fd),
                // the kernel saw a rename somewhere while it went up a directory: it cannot tell whether it matters
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::ENOENT) => return Err(Blocked::Missing),
                Err(Errno::ELOOP) => return Err(Blocked::ByLink),
                Err(errno) => return Err(Blocked::System(errno)),
            }
        }
    }

    /// Opens a directory, making the parts of the path that are not there.
    fn make_dirs(&mut self, path: &Path) -> Result<OwnedFd, Blocked> {
        let mut done = PathBuf::new();
        let mut dir = self.open_dir(&done)?;
        for part in path {
            done.push(part);
            dir = match self.open_dir(&done) {
                Err(Blocked::Missing) => {
                    match mkdirat(&dir, part, Mode::from_bits_truncate(0o755)) {
                        Ok(()) => self.implied.push(done.clone()),
                        // it is there, yet opening it found nothing: a link to nowhere
                        Err(Errno::EEXIST) => return Err(Blocked::ByLink),
                        Err(errno) => return Err(Blocked::System(errno)),
                    }
                    self.open_dir(&done)?
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }
}

impl Place {
    /// What is there, if anything.
    pub fn look(&self) -> io::Result<Option<FileStat>> {
        match fstatat(&*self.dir, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Blocked {
    fn into_error(self, entry: &str) -> ExtractError {
        let name = entry.to_owned();
        match self {
            Self::Missing | Self::ByLink => ExtractError::ThroughLink { name },
            Self::System(Errno::ENOTDIR) => {
                ExtractError::Malformed { name, reason: "it lies below something that is no directory" }
            }
            Self::System(errno) => ExtractError::Entry { name, source: errno.into() },
        }
    }
}

/// Whether a file is what overlayfs takes for "deleted here".
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

pub(super) fn is_dir(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFDIR
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// An entry's name relative to the root: leading slashes, `.` and `..` resolved. `None` if it climbs out of the root.
pub(crate) fn clean(name: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir if !path.pop() => return None,
            _ => {}
        }
    }
    Some(path)
}
