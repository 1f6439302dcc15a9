//! The stage: the corner of the mount table that has a mount or two for each container, and which a launcher leaves behind.
//!
//! The container library reads the mount table several times for each process that it makes, and copies it: with those of
//! all other containers in it, a start would cost the more the more containers there are. So a launcher, in a mount
//! namespace of its own, moves its container's root file system aside and drops everything else in one step.
//!
//! ```text
//! DIR/            a mount of its own, private: nothing that a launcher does here reaches the host
//! DIR/all/        another, which a launcher drops
//!   rootfs/       below it, a directory for each container's root file system
//!   netns/        below it, a file for each container's network namespace
//! DIR/mine/       where a launcher finds the root file system that it works on
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{Mount, Spec};

const ALL: &str = "all";
const ROOTFS: &str = "rootfs";
const MINE: &str = "mine";

const NONE: Option<&str> = None;

/// Where to mount what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// For root file systems: one directory for each container.
    pub rootfs: PathBuf,
    /// For network namespaces.
    pub netns: PathBuf,
}

/// Why there is no stage.
#[derive(Debug, thiserror::Error)]
#[error("prepare {path} for mounts: {source}")]
pub struct StageError {
    /// The directory.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

/// Makes the stage in a directory of its own.
pub fn ensure_stage(dir: &Path) -> Result<Stage, StageError> {
    let ensure = |path: &Path, is_mount: bool| -> io::Result<()> {
        fs::create_dir_all(path)?;
        if is_mount {
            if mount_id(path)? == mount_id(path.parent().unwrap_or(path))? {
                mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE)?;
            }
            mount(NONE, path, NONE, MsFlags::MS_PRIVATE, NONE)?;
        }
        Ok(())
    };
    let all = dir.join(ALL);
    let stage = Stage { rootfs: all.join(ROOTFS), netns: all.join("netns") };
    let (rootfs, netns) = (stage.rootfs.clone(), stage.netns.clone());
    for (path, is_mount) in
        [(dir.to_owned(), true), (all, true), (dir.join(MINE), false), (rootfs, false), (netns, false)]
    {
        ensure(&path, is_mount).map_err(|source| StageError { path, source })?;
    }
    Ok(stage)
}

/// The kernel's number of the mount that a path is in.
fn mount_id(path: &Path) -> io::Result<u64> {
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell mounts apart"))
}

/// Moves this process into a mount namespace of its own that has no root file system but the container's, and says where
/// that one is now; `spec` knows it too. `None`: everything stays as it is, for the root file system is not on the stage,
/// or the container is to see what is on it.
///
/// Descriptors that `spec` then speaks of stay open until this process ends or runs another program.
pub(crate) fn enter(dir: &Path, rootfs: &Path, spec: &mut Spec) -> Result<Option<PathBuf>, Errno> {
    // a root file system's path has no links in it
    let dir = &fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let all = dir.join(ALL);
    if rootfs.parent() != Some(&all.join(ROOTFS)) || spec.mounts().iter().flatten().any(|mount| shows(mount, dir)) {
        return Ok(None);
    }
    keep_namespaces(spec, &all)?;
    let mine = dir.join(MINE);
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(Some(rootfs), &mine, NONE, MsFlags::MS_MOVE, NONE)?;
    umount2(&all, MntFlags::MNT_DETACH)?;
    if let Some(root) = spec.root_mut() {
        root.set_path(mine.clone());
    }
    Ok(Some(mine))
}

/// The same for what is launched in a container that is there already.
pub(crate) fn enter_empty(dir: &Path) -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    match umount2(&dir.join(ALL), MntFlags::MNT_DETACH) {
        // somebody has unmounted it: there is nothing to leave behind
        Err(Errno::EINVAL) => Ok(()),
        other => other,
    }
}

/// Namespaces that are mounted on the stage go by descriptor from now on.
fn keep_namespaces(spec: &mut Spec, all: &Path) -> Result<(), Errno> {
    let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        let Some(path) = namespace.path() else { continue };
        if fs::canonicalize(path).is_ok_and(|path| path.starts_with(all)) {
            let file = File::open(path).map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
            namespace.set_path(Some(format!("/proc/self/fd/{}", file.into_raw_fd()).into()));
        }
    }
    Ok(())
}

fn shows(mount: &Mount, dir: &Path) -> bool {
    let binds = |options: &Vec<String>| options.iter().any(|option| option == "bind" || option == "rbind");
    let is_bind = mount.typ().as_deref() == Some("bind") || mount.options().as_ref().is_some_and(binds);
    let Some(source) = mount.source().as_ref().filter(|_| is_bind) else { return false };
    // one that cannot be found fails later, with words of its own
    let source = fs::canonicalize(source).unwrap_or_else(|_| source.clone());
    source.starts_with(dir) || dir.starts_with(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    use oci_spec::runtime::{LinuxBuilder, LinuxNamespace, LinuxNamespaceType, MountBuilder, SpecBuilder};

    /// On a thread with a mount namespace of its own, where every mount is shared, as systemd leaves a host.
    fn on_shared_mounts(test: impl FnOnce(&Path) + Send + 'static) {
        let body = move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).unwrap();
            let dir = tempfile::tempdir().unwrap();
            test(&dir.path().canonicalize().unwrap().join("stage"));
            umount2(&dir.path().join("stage"), MntFlags::MNT_DETACH).unwrap();
        };
        std::thread::spawn(body).join().unwrap();
    }

    fn mount_container(rootfs: &Path, id: &str) -> PathBuf {
        let path = rootfs.join(id);
        fs::create_dir(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
        fs::write(path.join(id), "").unwrap();
        path
    }

    fn mounts() -> String {
        fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
    }

    fn spec(bind: Option<&str>, netns: Option<&Path>) -> Spec {
        let mounts = bind.map(|source| {
            let mount = MountBuilder::default().destination("/x").source(source).options(["rbind".to_owned()]);
            mount.build().unwrap()
        });
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(LinuxNamespaceType::Network).set_path(netns.map(Path::to_owned));
        let linux = LinuxBuilder::default().namespaces([namespace]).build().unwrap();
        SpecBuilder::default().mounts(mounts.into_iter().collect::<Vec<_>>()).linux(linux).build().unwrap()
    }

    #[test]
    fn who_enters_finds_one_root_file_system_and_its_network_and_the_host_keeps_all() {
        on_shared_mounts(|dir| {
            let stage = ensure_stage(dir).unwrap();
            assert_eq!(ensure_stage(dir).unwrap(), stage, "idempotent");
            let (one, two) = (mount_container(&stage.rootfs, "one"), mount_container(&stage.rootfs, "two"));
            let netns = stage.netns.join("one");
            fs::write(&netns, "").unwrap();
            mount(Some("/proc/self/ns/net"), &netns, NONE, MsFlags::MS_BIND, NONE).unwrap();
            let before = mounts();
            let (dir, root) = (dir.to_owned(), one.clone());
            let entered = std::thread::spawn(move || {
                unshare(CloneFlags::CLONE_FS).unwrap();
                let mut spec = spec(None, Some(&netns));
                let mine = enter(&dir, &root, &mut spec).unwrap().expect("entered");
                assert!(mine.join("one").exists() && !two.join("two").exists());
                assert_eq!(spec.root().as_ref().unwrap().path(), &mine);
                let namespace = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap()[0].clone();
                let inode = |path: &Path| fs::metadata(path).unwrap().ino();
                assert_eq!(inode(namespace.path().as_ref().unwrap()), inode(Path::new("/proc/self/ns/net")));
                mounts().lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
            });
            assert_eq!(entered.join().unwrap(), 2, "the stage and the root file system");
            assert!(one.join("one").exists() && stage.rootfs.join("two/two").exists());
            assert_eq!(mounts(), before);
        });
    }

    #[test]
    fn a_container_that_is_shown_the_stage_sees_all_of_it() {
        let stage = Path::new("/run/shoal-no-such/stage");
        for (source, shown) in [
            ("/", true),
            ("/run", true),
            ("/run/shoal-no-such/stage/all/rootfs/x", true),
            ("/run/shoal-no-such/stage2", false),
        ] {
            let spec = spec(Some(source), None);
            assert_eq!(shows(&spec.mounts().as_ref().unwrap()[0], stage), shown, "{source}");
        }
        assert_eq!(enter(stage, &stage.join("all/rootfs/x"), &mut spec(Some("/"), None)), Ok(None));
        assert_eq!(enter(stage, Path::new("/elsewhere"), &mut spec(None, None)), Ok(None));
    }
}
