//! A path to the running binary that nothing can write to.
//!
//! Until it has started the container's command, a process of the container is this binary, and `/proc/PID/exe` leads
//! to it. Were it writable through that link, a container could replace the binary of the daemon. So supervisors are
//! started through a read-only bind mount: what `/proc/PID/exe` then leads to cannot be opened for writing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Why the binary could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount failed.
    #[error("bind {exe} on {target}: {source}")]
    Mount {
        /// The binary.
        exe: PathBuf,
        /// Where it should appear.
        target: PathBuf,
        /// Why.
        source: Errno,
    },
}

/// Makes `exe` appear read-only under `dir` and returns the path to start supervisors by. Mounts of earlier versions
/// of the binary are taken away from there; supervisors that run from them go on.
pub fn ensure_sealed_exe(exe: &Path, dir: &Path) -> Result<PathBuf, SealError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SealError::Io { path, source }
    };
    let meta = fs::metadata(exe).map_err(io(exe))?;
    fs::create_dir_all(dir).map_err(io(dir))?;
    // a new version is a new inode or a new time
    let name = format!("exe-{:x}-{:x}-{:x}.{:x}", meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
    let target = dir.join(&name);
    for entry in fs::read_dir(dir).map_err(io(dir))? {
        let entry = entry.map_err(io(dir))?;
        let other = entry.file_name();
        if other.to_string_lossy().starts_with("exe-") && other != *name {
            ensure_unsealed(&entry.path())?;
        }
    }
    if is_read_only_copy(&target, &meta) {
        return Ok(target);
    }
    ensure_unsealed(&target)?;
    File::create(&target).map_err(io(&target))?;
    apply_mounts(exe, &target).inspect_err(|_| drop(ensure_unsealed(&target)))?;
    Ok(target)
}

fn is_read_only_copy(target: &Path, meta: &fs::Metadata) -> bool {
    let same = fs::metadata(target).is_ok_and(|it| it.ino() == meta.ino() && it.dev() == meta.dev());
    same && nix::sys::statvfs::statvfs(target)
        .is_ok_and(|it| it.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

fn apply_mounts(exe: &Path, target: &Path) -> Result<(), SealError> {
    let none: Option<&str> = None;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    mount(Some(exe), target, none, MsFlags::MS_BIND, none)
        .and_then(|()| mount(none, target, none, MsFlags::MS_PRIVATE, none))
        .and_then(|()| mount(none, target, none, read_only, none))
        .map_err(|source| SealError::Mount { exe: exe.to_owned(), target: target.to_owned(), source })
}

fn ensure_unsealed(target: &Path) -> Result<(), SealError> {
    while umount2(target, MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_file(target) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SealError::Io { path: target.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sealed_binary_runs_and_cannot_be_written_and_an_old_version_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("exe");
        fs::copy("/bin/true", &exe).unwrap();
        let sealed = ensure_sealed_exe(&exe, &dir.path().join("run")).unwrap();
        assert_eq!(ensure_sealed_exe(&exe, &dir.path().join("run")).unwrap(), sealed, "idempotent");
        assert!(std::process::Command::new(&sealed).status().unwrap().success());
        let err = fs::OpenOptions::new().write(true).open(&sealed).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::ReadOnlyFilesystem);

        fs::remove_file(&exe).unwrap();
        fs::copy("/bin/false", &exe).unwrap();
        let newer = ensure_sealed_exe(&exe, &dir.path().join("run")).unwrap();
        assert_ne!(newer, sealed);
        assert!(!sealed.exists());
        assert!(!std::process::Command::new(&newer).status().unwrap().success());
        ensure_unsealed(&newer).unwrap();
    }
}
