//! Mounts of a container as OCI has them. Pure.

use std::path::Path;

use bollard_stubs::models::HostConfig;
use serde_json::{Value, json};

use crate::container::{MountKind, MountSpec};

/// Where `/dev/shm` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of so many bytes.
    Own(i64),
    /// A directory of the host: another container's, or the host's.
    Shared(std::path::PathBuf),
    /// There is none.
    None,
}

fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": typ, "source": source, "options": options })
}

/// The kernel's file systems.
pub fn system(host: &HostConfig, host_network: bool, host_pid: bool, shm: &Shm) -> Vec<Value> {
    let privileged = host.privileged.unwrap_or_default();
    let access = if privileged { "rw" } else { "ro" };
    let mut all = Vec::new();
    all.push(match host_pid {
        // a proc of the host's pid namespace can only be mounted by binding
        true => mount("/proc", "bind", "/proc", &["rbind", "nosuid", "noexec", "nodev"]),
        false => mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    });
    all.push(mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]));
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    all.push(mount("/dev/pts", "devpts", "devpts", &pts));
    all.push(match host_network {
        // a sysfs of the host's network namespace can only be mounted by binding
        true => mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", access]),
        false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
    });
    all.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &[access, "nosuid", "noexec", "nodev"]));
    all.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    match shm {
        Shm::Own(size) => {
            let size = format!("size={size}");
            all.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
        Shm::Shared(source) => all.push(json!({
            "destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind", "nosuid", "noexec", "nodev"],
        })),
        Shm::None => {}
    }
    all
}

/// A file of ours in the container.
pub fn file(source: &Path, destination: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind", "rprivate", access] })
}

/// A mount that the user asked for.
pub fn requested(spec: &MountSpec) -> Value {
    if spec.kind == MountKind::Tmpfs {
        let mut options = spec.tmpfs.clone();
        if !spec.rw && !options.iter().any(|option| option == "ro") {
            options.push("ro".to_owned());
        }
        return json!({ "destination": spec.destination, "type": "tmpfs", "source": "tmpfs", "options": options });
    }
    let mut options = vec![if spec.non_recursive { "bind" } else { "rbind" }];
    options.push(if spec.propagation.is_empty() { "rprivate" } else { &spec.propagation });
    if !spec.rw {
        options.push("ro");
        if spec.kind == MountKind::Bind && !spec.non_recursive && !spec.read_only_non_recursive {
            options.push("rro");
        }
    }
    json!({ "destination": spec.destination, "type": "bind", "source": spec.source, "options": options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_mounts() {
        let bind = MountSpec { source: "/a".into(), destination: "/b".into(), ..MountSpec::default() };
        assert_eq!(requested(&bind)["options"], json!(["rbind", "rprivate", "ro", "rro"]));
        let volume = MountSpec { kind: MountKind::Volume, rw: true, ..bind.clone() };
        assert_eq!(requested(&volume)["options"], json!(["rbind", "rprivate"]));
        let tmpfs = MountSpec { kind: MountKind::Tmpfs, tmpfs: vec!["size=1m".into()], ..bind };
        assert_eq!(requested(&tmpfs)["options"], json!(["size=1m", "ro"]));
    }

    #[test]
    fn host_namespaces_are_bound_and_privileged_ones_writable() {
        let options = |host: &HostConfig, shared| {
            let all = system(host, shared, shared, &Shm::Own(64));
            let find = |path: &str| all.iter().find(|m| m["destination"] == path).unwrap().clone();
            (find("/sys")["type"].clone(), find("/sys/fs/cgroup")["options"][0].clone(), find("/proc")["type"].clone())
        };
        assert_eq!(options(&HostConfig::default(), false), (json!("sysfs"), json!("ro"), json!("proc")));
        let privileged = HostConfig { privileged: Some(true), ..HostConfig::default() };
        assert_eq!(options(&privileged, true), (json!("bind"), json!("rw"), json!("bind")));
    }
}
