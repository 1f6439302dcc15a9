//! Files that are in memory only (secrets, configs): a tmpfs of its own for each container, each file bound into the
//! container at its place. They stay from one start of the container to the next, and across a new daemon; they go with the
//! container, or when they are dropped. The record knows their places, never their contents.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::spec::ContainerSpec;
use super::{Container, Stopping};
use crate::engine::{Engine, blocking, detached};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::record::Kind;

/// A file for a container that is never on a disk.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateFile {
    /// Its path in the container, absolute.
    pub target: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub data: Vec<u8>,
}

impl fmt::Debug for PrivateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.target, self.data.len())
    }
}

impl Engine {
    /// Gives a container that does not run all its private files; what it had before goes.
    ///
    /// # Errors
    /// It runs; a path is not absolute; the machine refuses. Then it has none.
    pub async fn place_files(self: &Arc<Self>, name: &str, files: Vec<PrivateFile>) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            let _operation = container.operation.lock().await;
            check_still(&container)?;
            let targets = files.iter().map(target).collect::<Result<Vec<_>>>()?;
            engine.declare_files(&container, targets).await?;
            let dir = engine.layout.files(&container.id);
            blocking(move || ensure_files(&dir, &files).map_err(Error::at("make files in", &dir))).await
        })
        .await
    }

    /// Takes a container that does not run its private files away. It cannot start again without them.
    ///
    /// # Errors
    /// It runs; the machine refuses.
    pub async fn drop_files(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            let _operation = container.operation.lock().await;
            if container.spec().files.is_empty() {
                return Ok(());
            }
            check_still(&container)?;
            engine.forget_files(&container.id).await
        })
        .await
    }

    /// Writes the places down, so that a container is never started without what it needs.
    async fn declare_files(&self, container: &Container, files: Vec<String>) -> Result<()> {
        let old = container.spec();
        if old.files == files {
            return Ok(());
        }
        let spec = ContainerSpec { files, ..(*old).clone() };
        self.record.put(Kind::Container, &container.id, &spec).await?;
        container.data().spec = Arc::new(spec);
        Ok(())
    }

    /// Takes the files of a container away, where there are any.
    pub(super) async fn forget_files(&self, id: &str) -> Result<()> {
        let dir = self.layout.files(id);
        blocking(move || remove_files(&dir).map_err(Error::at("remove", &dir))).await
    }

    /// Where each private file of a container is, and where it goes.
    ///
    /// # Errors
    /// They are gone: the machine was started anew, or the container has had its time.
    pub(super) fn private_files(&self, spec: &ContainerSpec) -> Result<Vec<(PathBuf, String)>> {
        let dir = self.layout.files(&spec.id);
        let files: Vec<_> = (0..).zip(&spec.files).map(|(at, target)| (file(&dir, at), target.clone())).collect();
        if files.iter().all(|(path, _)| path.exists()) {
            return Ok(files);
        }
        let id = &spec.id;
        Err(Error::Conflict(format!("the secrets and configs of container {id} are not in memory any more")))
    }

    /// Takes the files of containers that are no more away.
    pub(crate) fn sweep_files(&self, is_known: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(self.layout.all_files()).into_iter().flatten().flatten() {
            if is_known(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if let Err(error) = remove_files(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "files of a container that is gone stay in memory");
            }
        }
    }
}

impl Layout {
    /// Where the private files of containers are mounted.
    fn all_files(&self) -> PathBuf {
        self.runs().with_file_name("files")
    }

    /// Where those of one container are.
    fn files(&self, id: &str) -> PathBuf {
        self.all_files().join(id)
    }
}

/// A restart is no end: what is between its two halves is to have the same files again.
fn check_still(container: &Container) -> Result<()> {
    let data = container.data();
    match data.status.phase.is_alive() || data.stopping == Stopping::Restart {
        true => Err(Error::Conflict(format!("container {} is running: its files stay as they are", container.id))),
        false => Ok(()),
    }
}

fn target(file: &PrivateFile) -> Result<String> {
    Ok(super::mounts::clean_destination(&file.target, || format!("invalid file {:?}", file.target))?)
}

fn file(dir: &Path, number: usize) -> PathBuf {
    dir.join(number.to_string())
}

/// Mounts a tmpfs with `files` in it, and nothing that can be written; none, where there are no files.
fn ensure_files(dir: &Path, files: &[PrivateFile]) -> io::Result<()> {
    remove_files(dir)?;
    if files.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let made = mount_memory(dir).map_err(io::Error::from).and_then(|()| {
        (0..).zip(files).try_for_each(|(at, wanted)| write_file(&file(dir, at), wanted))?;
        let sealed = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | FLAGS;
        Ok(mount(None::<&str>, dir, None::<&str>, sealed, None::<&str>)?)
    });
    if made.is_err()
        && let Err(error) = remove_files(dir)
    {
        tracing::warn!(path = %dir.display(), %error, "files that could not all be made stay");
    }
    made
}

const FLAGS: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOEXEC);

/// Kernels before 6.4 know no tmpfs that stays out of the swap space.
fn mount_memory(dir: &Path) -> nix::Result<()> {
    let mounted = |options: &str| mount(Some("tmpfs"), dir, Some("tmpfs"), FLAGS, Some(options));
    match mounted("mode=0700,noswap") {
        Err(Errno::EINVAL) => mounted("mode=0700"),
        done => done,
    }
}

fn write_file(path: &Path, wanted: &PrivateFile) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&wanted.data)?;
    fchown(&file, Some(wanted.uid), Some(wanted.gid))?;
    file.set_permissions(Permissions::from_mode(wanted.mode & 0o7777))
}

/// The memory is free once no container has the files mounted.
fn remove_files(dir: &Path) -> io::Result<()> {
    while umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
