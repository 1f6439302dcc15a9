//! Where the control group hierarchies of this host are mounted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::{CgroupError, PATIENCE, io_error};

/// The mounted hierarchies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Version 2 alone.
    Unified(PathBuf),
    /// Version 1, with or without an idle version 2 beside it: controller → mount point. Two controllers may share one.
    Split(BTreeMap<String, PathBuf>),
}

/// Where hierarchies are mounted; version 2 alone is mounted here itself, by which the container library knows it too.
const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that the container library puts a container into.
const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];

impl Layout {
    /// That of this host, read once.
    pub(super) fn get() -> &'static Self {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        LAYOUT.get_or_init(|| match statfs(ROOT) {
            Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => Self::Unified(ROOT.into()),
            _ => Self::usual(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
                .unwrap_or_else(|| Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())),
        })
    }

    /// From the text of `/proc/self/cgroup`: version 1 where every distribution has it, each controller under its name.
    /// `None`: look at the mounts, which takes long on a host with many containers.
    fn usual(hierarchies: &str) -> Option<Self> {
        let controllers =
            hierarchies.lines().filter_map(|line| line.split(':').nth(1)).flat_map(|list| list.split(','));
        let place = |controller: &str| {
            let point = fs::canonicalize(Path::new(ROOT).join(controller)).ok()?;
            let mounted = statfs(&point).is_ok_and(|found| found.filesystem_type() == CGROUP_SUPER_MAGIC);
            mounted.then(|| (controller.to_owned(), point))
        };
        let split: BTreeMap<_, _> =
            controllers.filter(|c| CONTROLLERS.contains(c)).map(place).collect::<Option<_>>()?;
        (!split.is_empty()).then_some(Self::Split(split))
    }

    /// From the text of `/proc/self/mountinfo`.
    fn parse(mountinfo: &str) -> Self {
        let mut split = BTreeMap::new();
        let mut unified = PathBuf::from(ROOT);
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let mut fs = fs.split(' ');
            match fs.next() {
                Some("cgroup2") if split.is_empty() => unified = point.into(),
                Some("cgroup") => {
                    for option in fs.nth(1).unwrap_or_default().split(',') {
                        if CONTROLLERS.contains(&option) {
                            split.entry(option.to_owned()).or_insert_with(|| point.into());
                        }
                    }
                }
                _ => {}
            }
        }
        if split.is_empty() { Self::Unified(unified) } else { Self::Split(split) }
    }

    /// The group's directory below each hierarchy.
    pub(super) fn dirs(&self, cgroup: &Path) -> Vec<PathBuf> {
        match self {
            Self::Unified(root) => vec![below(root, cgroup)],
            Self::Split(mounts) => {
                let mut dirs: Vec<_> = mounts.values().map(|mount| below(mount, cgroup)).collect();
                dirs.sort();
                dirs.dedup();
                dirs
            }
        }
    }

    /// The group's directory below the hierarchy that has the controller.
    pub(super) fn dir(&self, controller: &'static str, cgroup: &Path) -> Result<PathBuf, CgroupError> {
        match self {
            Self::Unified(root) => Ok(below(root, cgroup)),
            Self::Split(mounts) => {
                mounts.get(controller).map(|mount| below(mount, cgroup)).ok_or(CgroupError::NoController(controller))
            }
        }
    }

    pub(super) fn is_unified(&self) -> bool {
        matches!(self, Self::Unified(_))
    }

    /// Kills the whole group with one write, where the kernel can (version 2, Linux 5.14).
    pub(super) fn kill_at_once(&self, cgroup: &Path) -> bool {
        match self {
            Self::Unified(root) => fs::write(below(root, cgroup).join("cgroup.kill"), "1").is_ok(),
            Self::Split(_) => false,
        }
    }

    pub(super) fn set_frozen(&self, cgroup: &Path, frozen: bool) -> Result<(), CgroupError> {
        let (file, value, event, expected) = match (self.is_unified(), frozen) {
            (true, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (true, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
            (false, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
        };
        let dir = match self.dir("freezer", cgroup) {
            Err(CgroupError::NoController(_)) if !frozen => return Ok(()),
            other => other?,
        };
        let (file, event) = (dir.join(file), dir.join(event));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match fs::write(&file, value) {
                Err(err) if !frozen && is_gone(&err) => return Ok(()),
                other => other.map_err(io_error(&file))?,
            }
            let state = match fs::read_to_string(&event) {
                Err(err) if !frozen && is_gone(&err) => return Ok(()),
                other => other.map_err(io_error(&event))?,
            };
            if state.lines().any(|line| line == expected) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(CgroupError::Busy(dir));
            }
            sleep(Duration::from_millis(1));
        }
    }
}

/// The group was not there, or was removed between opening its file and using it.
pub(super) fn is_gone(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(libc::ENODEV)
}

fn below(mount: &Path, cgroup: &Path) -> PathBuf {
    mount.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_alone_is_unified() {
        let text = "28 20 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::parse(text);
        assert_eq!(layout, Layout::Unified("/sys/fs/cgroup".into()));
        assert_eq!(layout.dirs(Path::new("/shoal/x")), [PathBuf::from("/sys/fs/cgroup/shoal/x")]);
    }

    #[test]
    fn what_is_found_under_the_usual_names_is_what_the_mounts_say() {
        let mounts = Layout::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap());
        let usual = Layout::usual(&fs::read_to_string("/proc/self/cgroup").unwrap());
        assert!(usual.is_none_or(|usual| usual == mounts));
        assert_eq!(Layout::usual("1:name=systemd:/\n0::/\n"), None);
    }

    #[test]
    fn controllers_that_share_a_mount_are_one_directory_and_an_idle_version_2_is_ignored() {
        let text = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let layout = Layout::parse(text);
        assert_eq!(
            layout.dirs(Path::new("/a")),
            [PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a"), PathBuf::from("/sys/fs/cgroup/memory/a")]
        );
        assert!(matches!(layout.dir("freezer", Path::new("/a")), Err(CgroupError::NoController("freezer"))));
    }
}
