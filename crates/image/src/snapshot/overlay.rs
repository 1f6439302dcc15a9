//! The mounts themselves.
//!
//! Lower directories are named relative to the store's root, so that the kernel's page of mount options holds hundreds
//! of them. The working directory of the daemon is not touched: a thread of its own changes its own.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_syscall, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{OpenError, SnapshotError, StoreError};
use crate::layout::Layout;

/// Mounts a container's overlay in its place, which is made for it. `layers` are directory numbers, top first.
pub(super) fn mount(layout: &Layout, container: &str, layers: &[u64]) -> Result<(), SnapshotError> {
    let lower: String = layers.iter().map(|number| format!("layers/{number}:")).collect();
    let target = layout.mount(container);
    match fs::create_dir(&target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StoreError::at("create", target)(error).into());
        }
        _ => {}
    }
    mount_at(layout, &format!("snapshots/{container}"), &format!("{lower}base"), &target)
        .map_err(|source| SnapshotError::Mount { id: container.to_owned(), layers: layers.len(), source })
}

/// Whether something is mounted on `path`: a mount is another device than the directory that it is mounted in.
pub(super) fn is_mounted(path: &Path) -> Result<bool, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.dev())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::at("look at", path)(error)),
    };
    let mounted = device(path)?;
    Ok(mounted.is_some() && mounted != device(path.parent().unwrap_or(path))?)
}

/// Unmounts what [`mount`] has mounted and takes its place away. Not there: nothing to do.
pub(super) fn ensure_unmounted(path: &Path) -> Result<(), StoreError> {
    unmount(path)?;
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Unmounts everything that is mounted on `path`. A mount that is still in use goes when its last user does.
fn unmount(path: &Path) -> Result<(), StoreError> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(StoreError::at("unmount", path)(errno)),
        }
    }
}

/// Makes sure that overlays can be mounted here, by mounting one.
pub(crate) fn check_file_system(layout: &Layout) -> Result<(), OpenError> {
    let dir = layout.temp_path("probe");
    for part in ["upper", "work", "merged", "lower"] {
        let path = dir.join(part);
        fs::create_dir_all(&path).map_err(StoreError::at("create", path))?;
    }
    let name = format!("tmp/{}", dir.file_name().unwrap_or_default().to_string_lossy());
    let target = dir.join("merged");
    let mounted = mount_at(layout, &name, &format!("{name}/lower"), &target);
    unmount(&target)?;
    fs::remove_dir_all(&dir).map_err(StoreError::at("remove", &dir))?;
    mounted.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL | Errno::EOPNOTSUPP) => OpenError::NotUsable(layout.root.clone()),
        _ => StoreError::at("mount an overlay under", &layout.root)(error).into(),
    })
}

/// Mounts an overlay on `target` with `dir/upper` and `dir/work`, relative to the store's root like the lower ones.
fn mount_at(layout: &Layout, dir: &str, lower: &str, target: &Path) -> io::Result<()> {
    // without an index, a work directory that outlived a crash cannot refuse the next mount
    let index = if Path::new("/sys/module/overlay/parameters/index").exists() { ",index=off" } else { "" };
    let options = format!("lowerdir={lower},upperdir={dir}/upper,workdir={dir}/work{index}");
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(&layout.root)?;
            mount_syscall(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
            Ok(())
        });
        mounting.join().expect("the mounting thread does not panic")
    })
}
