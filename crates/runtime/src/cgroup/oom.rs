//! Out-of-memory kills: the count, and a descriptor that becomes readable when it may have grown.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::layout::Layout;
use super::{CgroupError, io_error};

/// The kernel's count; 0 where there is no such group.
pub(super) fn kills(cgroup: &Path) -> u64 {
    let layout = Layout::get();
    let file = if layout.is_unified() { "memory.events" } else { "memory.oom_control" };
    let Ok(dir) = layout.dir("memory", cgroup) else { return 0 };
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Tells when a group has run out of memory.
#[derive(Debug)]
pub(crate) enum OomWatch {
    /// Version 2: the events file is watched.
    Unified(Inotify),
    /// Version 1: the kernel signals an eventfd. The second descriptor is what it watches.
    Split(EventFd, #[expect(dead_code, reason = "closing it would end the watch")] OwnedFd),
}

impl OomWatch {
    pub(crate) fn new(cgroup: &Path) -> Result<Self, CgroupError> {
        let layout = Layout::get();
        let dir = layout.dir("memory", cgroup)?;
        if layout.is_unified() {
            let file = dir.join("memory.events");
            let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
                .and_then(|inotify| inotify.add_watch(&file, AddWatchFlags::IN_MODIFY).map(|_| inotify));
            return watch.map(Self::Unified).map_err(|errno| io_error(&file)(errno.into()));
        }
        let path = dir.join("memory.oom_control");
        let control: OwnedFd = File::open(&path).map_err(io_error(&path))?.into();
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| io_error(&path)(errno.into()))?;
        let register = dir.join("cgroup.event_control");
        fs::write(&register, format!("{} {}", event.as_raw_fd(), control.as_raw_fd())).map_err(io_error(&register))?;
        Ok(Self::Split(event, control))
    }

    /// Makes the descriptor unreadable until the next event.
    pub(crate) fn clear(&self) {
        // nothing to read is as good as read
        match self {
            Self::Unified(inotify) => drop(inotify.read_events()),
            Self::Split(event, _) => drop(event.read()),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unified(inotify) => inotify.as_fd(),
            Self::Split(event, _) => event.as_fd(),
        }
    }
}
