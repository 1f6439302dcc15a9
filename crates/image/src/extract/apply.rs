//! Applying one entry after the other to a layer's root.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use xattr::FileExt as _;

use super::OPAQUE;
use super::root::{Place, Root, clean, is_dir, is_whiteout};
use super::tar::{Archive, Entry, Kind};
use crate::error::ExtractError;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Attributes that steer overlayfs itself: an image must not have them.
const OVERLAY_XATTRS: &str = "trusted.overlay.";

pub(super) struct Applier<'a> {
    root: Root<'a>,
    size: u64,
    /// Directories' times are set last: files made in them change them.
    times: Vec<(PathBuf, (i64, i64))>,
    buffer: Box<[u8]>,
    has_root_entry: bool,
}

impl<'a> Applier<'a> {
    pub fn new(root: Root<'a>) -> Self {
        Self { root, size: 0, times: Vec::new(), buffer: vec![0; 128 * 1024].into(), has_root_entry: false }
    }

    /// Applies one entry; `archive` gives its data.
    pub fn apply<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), ExtractError> {
        let shown = String::from_utf8_lossy(&entry.name);
        let path = clean(&entry.name).ok_or_else(|| ExtractError::Outside { name: shown.clone().into_owned() })?;
        let failed = |source: io::Error| ExtractError::Entry { name: shown.clone().into_owned(), source };
        if path.as_os_str().is_empty() {
            return match entry.kind {
                Kind::Directory => self.apply_root(entry).map_err(failed),
                _ => Err(ExtractError::Malformed {
                    name: shown.into_owned(),
                    reason: "it names the root, which is a directory",
                }),
            };
        }
        let place = self.root.place(&path, &shown)?;
        if place.name.as_encoded_bytes().starts_with(WHITEOUT) {
            return self.apply_whiteout(&place, &shown);
        }
        match entry.kind {
            Kind::Directory => self.apply_dir(entry, &place, path).map_err(failed),
            Kind::HardLink => self.apply_hard_link(entry, &place, &shown),
            Kind::File => self.apply_file(entry, &place, archive, &shown),
            Kind::Symlink | Kind::Device { .. } | Kind::Fifo => self.apply_node(entry, &place).map_err(failed),
        }
    }

    /// Sets the directories' times. Returns the bytes of all files, and the directories without an entry (the root is
    /// the empty path).
    pub fn finish(mut self) -> Result<(u64, Vec<PathBuf>), ExtractError> {
        for (path, modified) in self.times.iter().rev() {
            let shown = path.to_string_lossy();
            // a later entry may have replaced it
            let Some(place) = self.root.find(path, &shown)? else { continue };
            let set = || -> io::Result<()> {
                if place.look()?.is_some_and(|stat| is_dir(&stat)) {
                    set_times(&place, *modified)?;
                }
                Ok(())
            };
            set().map_err(|source| ExtractError::Entry { name: shown.into_owned(), source })?;
        }
        if !self.has_root_entry {
            self.root.implied.push(PathBuf::new());
        }
        Ok((self.size, self.root.implied))
    }

    fn apply_root(&mut self, entry: &Entry) -> io::Result<()> {
        self.has_root_entry = true;
        let dir = self.root.dir()?;
        set_attributes(&dir, entry)?;
        futimens(&dir, &time(entry.modified), &time(entry.modified))?;
        Ok(())
    }

    fn apply_dir(&mut self, entry: &Entry, place: &Place, path: PathBuf) -> io::Result<()> {
        let existing = place.look()?;
        let replaces = existing.is_some_and(|stat| !is_dir(&stat));
        if replaces {
            self.root.remove(place)?;
            self.root.forget();
        }
        if existing.is_none() || replaces {
            mkdirat(&*place.dir, place.name.as_os_str(), Mode::from_bits_truncate(0o700))?;
        } else {
            self.root.implied.retain(|implied| *implied != path);
        }
        let dir = open_dir(place)?;
        if replaces {
            // what was here hid the directory of that name in the layers below: it stays hidden
            dir.set_xattr(OPAQUE, b"y")?;
        }
        set_attributes(&dir, entry)?;
        self.times.push((path, entry.modified));
        Ok(())
    }

    fn apply_file<R: Read>(
        &mut self,
        entry: &Entry,
        place: &Place,
        archive: &mut Archive<R>,
        shown: &str,
    ) -> Result<(), ExtractError> {
        let failed = |source: io::Error| ExtractError::Entry { name: shown.to_owned(), source };
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(&*place.dir, place.name.as_os_str(), flags, Mode::from_bits_truncate(0o600));
        let created = match create() {
            Err(Errno::EEXIST) => {
                self.root.remove(place).map_err(failed)?;
                create()
            }
            created => created,
        };
        let mut file = File::from(created.map_err(|errno| failed(errno.into()))?);
        match &entry.sparse {
            None => self.copy(archive, &mut file, entry.stored, shown)?,
            Some((size, segments)) => {
                for segment in segments {
                    file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
                    self.copy(archive, &mut file, segment.length, shown)?;
                }
                file.set_len(*size).map_err(failed)?;
            }
        }
        self.size += entry.sparse.as_ref().map_or(entry.stored, |(size, _)| *size);
        set_attributes(&file, entry).map_err(failed)?;
        futimens(&file, &time(entry.modified), &time(entry.modified)).map_err(|errno| failed(errno.into()))
    }

    /// Copies exactly `count` bytes. Reading and writing fail for different reasons, and the error says which it was.
    fn copy<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        file: &mut File,
        mut count: u64,
        shown: &str,
    ) -> Result<(), ExtractError> {
        while count > 0 {
            let wanted = self.buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            let buffer = &mut self.buffer[..wanted];
            archive.read_exact(buffer).map_err(ExtractError::Stream)?;
            file.write_all(buffer).map_err(|source| ExtractError::Entry { name: shown.to_owned(), source })?;
            count -= wanted as u64;
        }
        Ok(())
    }

    fn apply_hard_link(&mut self, entry: &Entry, place: &Place, shown: &str) -> Result<(), ExtractError> {
        let refused = || ExtractError::HardLink {
            name: shown.to_owned(),
            target: String::from_utf8_lossy(&entry.link).into_owned(),
        };
        let target = clean(&entry.link).filter(|target| !target.as_os_str().is_empty()).ok_or_else(refused)?;
        let target = self.root.find(&target, shown)?.ok_or_else(refused)?;
        let failed = |source: io::Error| ExtractError::Entry { name: shown.to_owned(), source };
        let existing = target.look().map_err(failed)?.ok_or_else(refused)?;
        if is_whiteout(&existing) {
            return Err(refused());
        }
        if is_dir(&existing) {
            return Err(ExtractError::Malformed { name: shown.to_owned(), reason: "it is a hard link to a directory" });
        }
        // a link to itself: nothing to do, and removing it first would lose the file
        if place
            .look()
            .map_err(failed)?
            .is_some_and(|stat| (stat.st_dev, stat.st_ino) == (existing.st_dev, existing.st_ino))
        {
            return Ok(());
        }
        self.root.remove(place).map_err(failed)?;
        linkat(&*target.dir, target.name.as_os_str(), &*place.dir, place.name.as_os_str(), AtFlags::empty())
            .map_err(|errno| failed(errno.into()))
    }

    fn apply_node(&mut self, entry: &Entry, place: &Place) -> io::Result<()> {
        self.root.remove(place)?;
        let (dir, name) = (&*place.dir, place.name.as_os_str());
        let mode = Mode::from_bits_truncate(entry.mode);
        match entry.kind {
            Kind::Symlink => {
                symlinkat(entry.link.as_slice(), dir, name)?;
                // a name through this link means another place from now on
                self.root.forget();
            }
            Kind::Device { block, major, minor } => {
                let kind = if block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
                mknodat(dir, name, kind, mode, makedev(major.into(), minor.into()))?;
            }
            _ => mknodat(dir, name, SFlag::S_IFIFO, mode, 0)?,
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        set_times(place, entry.modified)
    }

    /// A whiteout hides what the layers below have under a name; what this layer itself has there stays.
    fn apply_whiteout(&mut self, place: &Place, shown: &str) -> Result<(), ExtractError> {
        let name = place.name.as_encoded_bytes();
        let failed = |source: io::Error| ExtractError::Entry { name: shown.to_owned(), source };
        if name == WHITEOUT_OPAQUE {
            return File::from(reopen(&place.dir).map_err(failed)?).set_xattr(OPAQUE, b"y").map_err(failed);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = clean(&name[WHITEOUT.len()..]).filter(|hidden| !hidden.as_os_str().is_empty());
        let hidden = hidden.ok_or_else(|| ExtractError::Outside { name: shown.to_owned() })?;
        let hidden = Place { dir: place.dir.clone(), name: hidden.into_os_string() };
        match hidden.look().map_err(failed)? {
            Some(stat) if is_dir(&stat) => {
                open_dir(&hidden).and_then(|dir| dir.set_xattr(OPAQUE, b"y")).map_err(failed)
            }
            Some(_) => Ok(()),
            None => mknodat(&*hidden.dir, hidden.name.as_os_str(), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
                .map_err(|errno| failed(errno.into())),
        }
    }
}

/// Owner, mode and extended attributes, in the order in which none undoes another: a change of owner clears set-id bits
/// and capabilities.
fn set_attributes(file: &File, entry: &Entry) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fchmod(file, Mode::from_bits_truncate(entry.mode))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !name.starts_with(OVERLAY_XATTRS)) {
        match file.set_xattr(name, value) {
            // the file system knows no such attribute: Docker goes on without it, too
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                tracing::debug!(name, "the file system does not keep this extended attribute");
            }
            set => set?,
        }
    }
    Ok(())
}

fn set_times(place: &Place, modified: (i64, i64)) -> io::Result<()> {
    let modified = time(modified);
    Ok(utimensat(&*place.dir, place.name.as_os_str(), &modified, &modified, UtimensatFlags::NoFollowSymlink)?)
}

fn time((seconds, nanos): (i64, i64)) -> TimeSpec {
    TimeSpec::new(seconds, nanos)
}

fn open_dir(place: &Place) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    Ok(File::from(openat(&*place.dir, place.name.as_os_str(), flags, Mode::empty())?))
}

fn reopen(dir: &OwnedFd) -> io::Result<OwnedFd> {
    dir.as_fd().try_clone_to_owned()
}
