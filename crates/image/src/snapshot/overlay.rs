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

/// An empty directory that stands in for the layers of an image without any.
const NO_LAYERS: &str = "empty";

/// Mounts a container's overlay on its `merged`. `layers` are directory numbers, top first.
pub(super) fn mount(layout: &Layout, container: &str, layers: &[u64]) -> Result<(), SnapshotError> {
    let lower = match layers {
        [] => NO_LAYERS.to_owned(),
        layers => layers.iter().map(|number| format!("layers/{number}")).collect::<Vec<_>>().join(":"),
    };
    if layers.is_empty() {
        let path = layout.root.join(NO_LAYERS);
        fs::create_dir_all(&path).map_err(StoreError::at("create", &path))?;
    }
    mount_at(layout, &format!("snapshots/{container}"), &lower).map_err(|source| SnapshotError::Mount {
        id: container.to_owned(),
        layers: layers.len(),
        source,
    })
}

/// Whether something is mounted on `path`: a mount is another device than the directory that it is mounted in.
pub(super) fn is_mounted(path: &Path) -> Result<bool, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let device =
        |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).map_err(StoreError::at("look at", path));
    Ok(device(path)? != device(path.parent().unwrap_or(path))?)
}

/// Unmounts everything that is mounted on `path`. A mount that is still in use goes when its last user does.
pub(super) fn unmount(path: &Path) -> Result<(), StoreError> {
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
    let mounted = mount_at(layout, &name, &format!("{name}/lower"));
    unmount(&dir.join("merged"))?;
    fs::remove_dir_all(&dir).map_err(StoreError::at("remove", &dir))?;
    mounted.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL | Errno::EOPNOTSUPP) => OpenError::NotUsable(layout.root.clone()),
        _ => StoreError::at("mount an overlay under", &layout.root)(error).into(),
    })
}

/// Mounts an overlay on `dir/merged` with `dir/upper` and `dir/work`, all relative to the store's root.
fn mount_at(layout: &Layout, dir: &str, lower: &str) -> io::Result<()> {
    // without an index, a work directory that outlived a crash cannot refuse the next mount
    let index = if Path::new("/sys/module/overlay/parameters/index").exists() { ",index=off" } else { "" };
    let options = format!("lowerdir={lower},upperdir={dir}/upper,workdir={dir}/work{index}");
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(&layout.root)?;
            let target = format!("{dir}/merged");
            mount_syscall(Some("overlay"), target.as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
            Ok(())
        });
        mounting.join().expect("the mounting thread does not panic")
    })
}
