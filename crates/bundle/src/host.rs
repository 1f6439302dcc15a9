//! What this machine offers: control groups, processors, memory, names. Read once at the start.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Facts about the machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// Control groups of version 2 alone; otherwise version 1, perhaps with version 2 beside it.
    pub cgroup2: bool,
    /// Processors.
    pub cpus: usize,
    /// In bytes.
    pub memory: i64,
    /// Its name.
    pub hostname: String,
    /// The release of its kernel.
    pub kernel: String,
    /// What `uname -m` prints.
    pub machine: String,
    /// The name of its distribution.
    pub os_name: String,
    /// The version of its distribution.
    pub os_version: String,
    /// What its control groups can limit.
    pub limits: Limits,
    /// AppArmor is there and enabled.
    pub apparmor: bool,
    /// SELinux is there.
    pub selinux: bool,
    /// Seccomp filters are there.
    pub seccomp: bool,
}

/// Which limits the kernel can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory.
    pub memory: bool,
    /// Memory and swap space together.
    pub swap: bool,
    /// How readily memory is swapped out.
    pub swappiness: bool,
    /// That running out of memory kills nothing.
    pub oom_kill_disable: bool,
    /// Shares of processor time.
    pub cpu_shares: bool,
    /// A ceiling of processor time.
    pub cpu_quota: bool,
    /// On which processors.
    pub cpuset: bool,
    /// How many processes.
    pub pids: bool,
    /// Shares of disk time.
    pub blkio_weight: bool,
}

impl Host {
    /// Reads them.
    pub fn read() -> Self {
        let uname = nix::sys::utsname::uname().ok();
        let word = |get: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            uname.as_ref().map(|u| get(u).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let cgroup2 = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let (os_name, os_version) = os_release();
        Self {
            cgroup2,
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory: memory_total(),
            hostname: word(|u| u.nodename()),
            kernel: word(|u| u.release()),
            machine: word(|u| u.machine()),
            os_name,
            os_version,
            limits: if cgroup2 { limits_v2() } else { limits_v1() },
            apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y')),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        }
    }
}

fn limits_v1() -> Limits {
    let there = |path: &str| Path::new("/sys/fs/cgroup").join(path).exists();
    let cpu = |file: &str| there(&format!("cpu/{file}")) || there(&format!("cpu,cpuacct/{file}"));
    Limits {
        memory: there("memory/memory.limit_in_bytes"),
        swap: there("memory/memory.memsw.limit_in_bytes"),
        swappiness: there("memory/memory.swappiness"),
        oom_kill_disable: there("memory/memory.oom_control"),
        cpu_shares: cpu("cpu.shares"),
        cpu_quota: cpu("cpu.cfs_quota_us"),
        cpuset: there("cpuset/cpuset.cpus"),
        pids: there("pids"),
        blkio_weight: there("blkio/blkio.weight") || there("blkio/blkio.bfq.weight"),
    }
}

fn limits_v2() -> Limits {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
    Limits {
        memory: has("memory"),
        swap: has("memory") && swap_accounting_v2(),
        swappiness: false,
        oom_kill_disable: false,
        cpu_shares: has("cpu"),
        cpu_quota: has("cpu"),
        cpuset: has("cpuset"),
        pids: has("pids"),
        blkio_weight: has("io"),
    }
}

/// The root group has no such file; any other has it, where swap is accounted for.
fn swap_accounting_v2() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    if path != "/" && Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')).join("memory.swap.max").exists() {
        return true;
    }
    let below = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut groups = below.filter(|entry| entry.path().join("memory.max").exists()).peekable();
    groups.peek().is_none() || groups.any(|entry| entry.path().join("memory.swap.max").exists())
}

fn memory_total() -> i64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<i64>().ok());
    kib.unwrap_or_default() * 1024
}

fn os_release() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|v| v.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let name = field("PRETTY_NAME");
    (if name.is_empty() { "Linux".to_owned() } else { name }, field("VERSION_ID"))
}
