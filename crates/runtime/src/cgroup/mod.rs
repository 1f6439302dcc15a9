//! Control groups by path, the same for version 1, hybrid and version 2 hosts.
//!
//! A path is absolute and the same below every hierarchy. Creation and the first limits are the container library's
//! work; killing, removing, freezing, out-of-memory events and the device rules that version 2 needs are done here.

mod devices;
mod layout;
mod oom;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
pub use libcgroups::stats::Stats;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

pub(crate) use devices::ensure_device_rules;
use layout::Layout;
pub(crate) use oom::OomWatch;

/// How long killed processes may take to go, and a group to become removable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a control group could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of the group could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No hierarchy has this controller.
    #[error("this host has no {0} cgroup controller")]
    NoController(&'static str),
    /// Processes would not die or a group would not go.
    #[error("control group {0} is still in use")]
    Busy(PathBuf),
    /// The container library's word on limits and statistics.
    #[error("control group {path}: {error}")]
    Library {
        /// The group.
        path: PathBuf,
        /// What it said.
        error: String,
    },
    /// A device rule program was refused by the kernel.
    #[error("device rules of {path}: {source}")]
    Devices {
        /// The group.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Io { path, source }
}

/// The group of all containers of the daemon with this exec root. Control groups are the machine's, also where every daemon
/// has a network namespace of its own: the name says whose they are, in a way that stays the same when the daemon starts again.
#[must_use]
pub fn parent_of(exec_root: &Path) -> String {
    if exec_root == Path::new("/run/shoal") {
        return "/shoal".to_owned();
    }
    let name: String = exec_root.to_string_lossy().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    format!("/shoal{name}")
}

/// All processes in the group and below it. A group that is not there has none.
pub fn pids(cgroup: &Path) -> Result<Vec<i32>, CgroupError> {
    let mut found = Vec::new();
    for dir in Layout::get().dirs(cgroup) {
        visit(&dir, &mut |dir| {
            let procs = dir.join("cgroup.procs");
            match fs::read_to_string(&procs) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // gone meanwhile, or a threaded group, whose processes are listed by its domain
                Err(err) if matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => {}
                Err(err) => return Err(io_error(&procs)(err)),
            }
            Ok(())
        })?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Kills every process in the group and waits until they are gone.
pub fn kill(cgroup: &Path) -> Result<(), CgroupError> {
    let layout = Layout::get();
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    while layout.dirs(cgroup).iter().any(|dir| dir.exists()) {
        let pids = pids(cgroup)?;
        if pids.is_empty() {
            break;
        }
        // a frozen process of version 1 does not die
        thaw(cgroup)?;
        if !layout.kill_at_once(cgroup) {
            for pid in pids {
                match send(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(io_error(cgroup)(errno.into())),
                }
            }
        }
        if Instant::now() > deadline {
            return Err(CgroupError::Busy(cgroup.to_owned()));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

/// Removes the group and those below it from every hierarchy. No process may be left.
pub fn remove(cgroup: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    for dir in Layout::get().dirs(cgroup) {
        let mut pause = Duration::from_micros(200);
        while let Err(err) = remove_tree(&dir) {
            match err.raw_os_error() {
                // the last process has died but is not yet taken out of the group
                Some(libc::EBUSY) if Instant::now() < deadline => {}
                Some(libc::EBUSY) => return Err(CgroupError::Busy(dir)),
                _ => return Err(io_error(&dir)(err)),
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let gone = |err: io::Error| if err.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(err) };
    match fs::remove_dir(dir) {
        Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {}
        other => return other.or_else(gone),
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir).or_else(gone)
}

fn visit(dir: &Path, act: &mut impl FnMut(&Path) -> Result<(), CgroupError>) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io_error(dir))?,
    };
    act(dir)?;
    for entry in entries {
        let entry = entry.map_err(io_error(dir))?;
        if entry.file_type().map_err(io_error(dir))?.is_dir() {
            visit(&entry.path(), act)?;
        }
    }
    Ok(())
}

/// Stops every process of the group until [`thaw`]. Returns once they stand still.
pub fn freeze(cgroup: &Path) -> Result<(), CgroupError> {
    Layout::get().set_frozen(cgroup, true)
}

/// Undoes [`freeze`]. Nothing happens to a group that is not frozen or not there.
pub fn thaw(cgroup: &Path) -> Result<(), CgroupError> {
    Layout::get().set_frozen(cgroup, false)
}

/// How often the kernel has killed a process of the group because its memory limit was reached.
pub fn oom_kills(cgroup: &Path) -> u64 {
    oom::kills(cgroup)
}

/// Sets limits; what `resources` leaves out stays.
pub fn update(cgroup: &Path, resources: &LinuxResources) -> Result<(), CgroupError> {
    let options = ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
    manager(cgroup)?.apply(&options).map_err(|err| library(cgroup, &err))
}

/// Processor time, memory, block I/O and process counts of the group, as the kernel counts them.
pub fn stats(cgroup: &Path) -> Result<Stats, CgroupError> {
    manager(cgroup)?.stats().map_err(|err| library(cgroup, &err))
}

fn manager(cgroup: &Path) -> Result<libcgroups::common::AnyCgroupManager, CgroupError> {
    let config = CgroupConfig { cgroup_path: cgroup.to_owned(), systemd_cgroup: false, container_name: String::new() };
    create_cgroup_manager(config).map_err(|err| library(cgroup, &err))
}

fn library(cgroup: &Path, err: &dyn std::error::Error) -> CgroupError {
    CgroupError::Library { path: cgroup.to_owned(), error: err.to_string() }
}
