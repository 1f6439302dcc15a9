//! The OCI configuration of a container: what the supervisor is told to run.
//!
//! Everything that has to be looked up (users, namespaces of other containers, devices) is handed in or is done in the
//! sub-modules that say so; putting it together is pure.

mod caps;
mod devices;
mod mounts;
mod resources;
mod seccomp;
pub mod security;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bollard_stubs::models::{HostConfig, HostConfigCgroupnsModeEnum as CgroupNs};
use oci_spec::runtime::{LinuxResources, PosixRlimitType, Process, Spec};
use serde_json::{Value, json};

pub use devices::parse_rule;
pub use mounts::Shm;
pub use seccomp::go_arch;
pub use users::{User, resolve_in};

use crate::container::{ContainerSpec, MountSpec};
use crate::error::{Error, Result};
use crate::host::Host;
use security::{Seccomp, Security};

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where `--init` puts our own first process.
const INIT_PATH: &str = "/sbin/docker-init";

/// A namespace of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    Own,
    /// The host's.
    Host,
    /// The one at this path.
    Join(PathBuf),
}

/// What a configuration is made from beside the container's own record.
#[derive(Debug)]
pub struct Input<'a> {
    /// The record.
    pub spec: &'a ContainerSpec,
    /// The machine.
    pub node: &'a Host,
    /// Mounted root file system.
    pub rootfs: PathBuf,
    /// Whom its process runs as.
    pub user: User,
    /// Its host name.
    pub hostname: &'a str,
    /// Its network namespace.
    pub network: Namespace,
    /// Its process namespace.
    pub pid: Namespace,
    /// Its namespace of shared memory and semaphores.
    pub ipc: Namespace,
    /// Its namespace of host names.
    pub uts: Namespace,
    /// Its `/dev/shm`.
    pub shm: Shm,
    /// Mounts with their sources found and made.
    pub mounts: &'a [MountSpec],
    /// `resolv.conf`, `hostname` and `hosts` of the container.
    pub files: [(PathBuf, &'static str); 3],
    /// Files in memory, and where they go.
    pub private: &'a [(PathBuf, String)],
    /// The binary that `--init` runs.
    pub exe: PathBuf,
}

/// A resource limit's OCI name; `None`: there is none such.
pub fn rlimit(name: &str) -> Option<PosixRlimitType> {
    format!("RLIMIT_{}", name.to_ascii_uppercase()).parse().ok()
}

/// The capabilities of a container.
pub fn capabilities(host: &HostConfig) -> Result<BTreeSet<String>> {
    let list = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
    caps::bounding(&list(&host.cap_add), &list(&host.cap_drop), host.privileged.unwrap_or_default())
}

/// What a request says about security, checked.
pub fn security(host: &HostConfig, node: &Host) -> Result<Security> {
    let security = security::parse(host.security_opt.as_deref().unwrap_or_default(), node.apparmor)?;
    if let Seccomp::Profile(text) = &security.seccomp {
        let facts = seccomp::Facts { caps: &BTreeSet::new(), machine: &node.machine, kernel: &node.kernel };
        seccomp::parse(text, &facts)?;
    }
    Ok(security)
}

/// The OCI configuration.
pub fn build(input: &Input<'_>) -> Result<Spec> {
    let host = &input.spec.host_config;
    let process = container_process(input)?;
    let security = security(host, input.node)?;
    let caps = capabilities(host)?;
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "root": { "path": input.rootfs, "readonly": host.readonly_rootfs.unwrap_or_default() },
        "process": process,
        "mounts": all_mounts(input),
        "linux": linux(input, &security, &caps)?,
        "annotations": host.annotations.clone().unwrap_or_default(),
    });
    if input.uts == Namespace::Own {
        spec["hostname"] = json!(input.hostname);
        let domain = input.spec.config.domainname.as_deref().unwrap_or_default();
        if !domain.is_empty() {
            spec["domainname"] = json!(domain);
        }
    }
    serde_json::from_value(spec).map_err(|e| Error::invalid(format!("container configuration: {e}")))
}

fn container_process(input: &Input<'_>) -> Result<Process> {
    let spec = input.spec;
    let mut args = vec![spec.path.clone()];
    args.extend(spec.args.iter().cloned());
    if spec.host_config.init.unwrap_or_default() {
        let init = [INIT_PATH, shoal_runtime::INIT, "--"].map(str::to_owned);
        args = init.into_iter().chain(args).collect();
    }
    let workdir = spec.config.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/");
    process(&ProcessInput {
        spec,
        node: input.node,
        user: &input.user,
        args,
        env: crate::merge::environment(&spec.config, input.hostname, spec.tty()),
        cwd: workdir.to_owned(),
        tty: spec.tty(),
        privileged: spec.host_config.privileged.unwrap_or_default(),
    })
}

/// What a process is made from, a container's first or an exec'd one.
#[derive(Debug)]
pub struct ProcessInput<'a> {
    /// The record of its container.
    pub spec: &'a ContainerSpec,
    /// The machine.
    pub node: &'a Host,
    /// Whom it runs as.
    pub user: &'a User,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// It has a terminal.
    pub tty: bool,
    /// With all capabilities, whatever the container has.
    pub privileged: bool,
}

/// A process of a container.
pub fn process(input: &ProcessInput<'_>) -> Result<Process> {
    let host = &input.spec.host_config;
    let mut host_caps = host.clone();
    host_caps.privileged = Some(input.privileged);
    let caps = capabilities(&host_caps)?;
    let security = security::parse(host.security_opt.as_deref().unwrap_or_default(), input.node.apparmor)?;
    let mut env = input.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", input.user.home));
    }
    // what execve leaves to a process that is not root
    let active: Vec<&String> = if input.user.uid == 0 { caps.iter().collect() } else { Vec::new() };
    let mut process = json!({
        "terminal": input.tty,
        "user": { "uid": input.user.uid, "gid": input.user.gid, "additionalGids": input.user.groups, "umask": 0o022 },
        "args": input.args,
        "env": env,
        "cwd": input.cwd,
        "capabilities": { "bounding": caps, "effective": active, "permitted": active, "inheritable": [], "ambient": [] },
        "rlimits": rlimits(host),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj.unwrap_or_default(),
    });
    if let Some(profile) = security.apparmor.filter(|name| name != "unconfined") {
        process["apparmorProfile"] = json!(profile);
    }
    serde_json::from_value(process).map_err(|e| Error::invalid(format!("process configuration: {e}")))
}

fn rlimits(host: &HostConfig) -> Vec<Value> {
    let limits = host.ulimits.iter().flatten().filter_map(|limit| {
        let kind = rlimit(limit.name.as_deref().unwrap_or_default())?;
        // -1 is no limit
        let value = |limit: Option<i64>| u64::try_from(limit.unwrap_or_default()).unwrap_or(u64::MAX);
        Some(json!({ "type": kind, "soft": value(limit.soft), "hard": value(limit.hard) }))
    });
    limits.collect()
}

fn all_mounts(input: &Input<'_>) -> Vec<Value> {
    let host = &input.spec.host_config;
    let system = mounts::system(host, input.network == Namespace::Host, input.pid == Namespace::Host, &input.shm);
    let wanted = |path: &Value| input.mounts.iter().any(|mount| path == mount.destination.as_str());
    // what the user mounts there takes the place of ours
    let mut all: Vec<Value> = system.into_iter().filter(|mount| !wanted(&mount["destination"])).collect();
    for (source, destination) in &input.files {
        if !wanted(&json!(destination)) {
            all.push(mounts::file(source, destination, false));
        }
    }
    if host.init.unwrap_or_default() {
        all.push(mounts::file(&input.exe, INIT_PATH, true));
    }
    all.extend(input.mounts.iter().map(mounts::requested));
    all.extend(input.private.iter().map(|(source, target)| mounts::file(source, target, true)));
    all
}

fn linux(input: &Input<'_>, security: &Security, caps: &BTreeSet<String>) -> Result<Value> {
    let host = &input.spec.host_config;
    let privileged = host.privileged.unwrap_or_default();
    let devices = devices::devices(host)?;
    let mut limits = resources::resources(host)?;
    limits.insert("devices".to_owned(), Value::Array(devices.rules));
    let paths = |own: &Option<Vec<String>>, default: &[&str]| match own {
        Some(own) => own.clone(),
        None if privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let mut linux = json!({
        "namespaces": namespaces(input),
        "devices": devices.nodes,
        "resources": limits,
        "sysctl": sysctls(input),
        "maskedPaths": paths(&host.masked_paths, MASKED),
        "readonlyPaths": paths(&host.readonly_paths, READ_ONLY),
        "rootfsPropagation": rootfs_propagation(input.mounts),
    });
    let facts = seccomp::Facts { caps, machine: &input.node.machine, kernel: &input.node.kernel };
    match &security.seccomp {
        Seccomp::Profile(text) => linux["seccomp"] = json!(seccomp::parse(text, &facts)?),
        Seccomp::Default if !privileged && input.node.seccomp => linux["seccomp"] = json!(seccomp::default(&facts)),
        Seccomp::Default | Seccomp::Unconfined => {}
    }
    Ok(linux)
}

/// A mount that receives or shares what is mounted later needs a root that does, too.
fn rootfs_propagation(mounts: &[MountSpec]) -> &'static str {
    let any = |word: &str| mounts.iter().any(|mount| mount.propagation.trim_start_matches('r') == word);
    match (any("shared"), any("slave")) {
        (true, _) => "shared",
        (false, true) => "slave",
        (false, false) => "private",
    }
}

fn namespaces(input: &Input<'_>) -> Vec<Value> {
    let mut all = vec![json!({ "type": "mount" })];
    for (typ, namespace) in [("network", &input.network), ("pid", &input.pid), ("ipc", &input.ipc), ("uts", &input.uts)]
    {
        match namespace {
            Namespace::Own => all.push(json!({ "type": typ })),
            Namespace::Join(path) => all.push(json!({ "type": typ, "path": path })),
            Namespace::Host => {}
        }
    }
    if private_cgroups(&input.spec.host_config, input.node) {
        all.push(json!({ "type": "cgroup" }));
    }
    all
}

/// As Docker's default: a view of its own where control groups are of version 2.
pub fn private_cgroups(host: &HostConfig, node: &Host) -> bool {
    match host.cgroupns_mode {
        Some(CgroupNs::PRIVATE) => true,
        Some(CgroupNs::HOST) => false,
        _ => node.cgroup2 && !host.privileged.unwrap_or_default(),
    }
}

fn sysctls(input: &Input<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // low ports and ping for everyone, in a network of the container's own
    if matches!(&input.network, Namespace::Join(path) if !path.starts_with("/proc")) {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    let own = input.spec.host_config.sysctls.iter().flatten();
    all.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    all
}

/// New limits for a running container.
pub fn limits(host: &HostConfig) -> Result<LinuxResources> {
    let limits = resources::resources(host)?;
    serde_json::from_value(Value::Object(limits)).map_err(|e| Error::invalid(format!("limits: {e}")))
}

#[cfg(test)]
mod tests;
