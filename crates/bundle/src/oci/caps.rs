//! Capabilities: Docker's defaults, and what a request adds and drops. Pure but for the kernel's highest one.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// All, in the kernel's order: the index is the number.
const ALL: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has that asks for nothing.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The bounding set, as `CAP_…` names.
///
/// # Errors
/// 400 for a name that is none.
pub fn bounding(add: &[String], drop: &[String], privileged: bool) -> Result<BTreeSet<String>> {
    let all: BTreeSet<String> = known().map(full).collect();
    let add = normal(add, "CapAdd", &all)?;
    let drop = normal(drop, "CapDrop", &all)?;
    if privileged {
        return Ok(all);
    }
    let asks_all = |list: &BTreeSet<String>| list.contains("ALL");
    let base: BTreeSet<String> = match (asks_all(&add), asks_all(&drop)) {
        (true, true) => return Ok(all),
        (true, false) => all,
        (false, true) => return Ok(add),
        (false, false) => DEFAULT.iter().map(|name| full(name)).chain(add).collect(),
    };
    Ok(base.difference(&drop).cloned().collect())
}

/// The kernel may be older than the list.
fn known() -> impl Iterator<Item = &'static str> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    let last = last.ok().and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(ALL.len());
    ALL.iter().copied().take(last + 1)
}

fn full(name: &str) -> String {
    format!("CAP_{name}")
}

fn normal(list: &[String], field: &str, all: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for name in list {
        let upper = name.to_ascii_uppercase();
        let name = match upper.as_str() {
            "ALL" | "CAP_ALL" => "ALL".to_owned(),
            _ if upper.starts_with("CAP_") => upper,
            _ => full(&upper),
        };
        if name != "ALL" && !all.contains(&name) {
            return Err(Error::invalid(format!("invalid {field}: unknown capability: {name:?}")));
        }
        names.insert(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> BTreeSet<String> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        bounding(&own(add), &own(drop), false).unwrap()
    }

    #[test]
    fn adding_dropping_and_all() {
        assert_eq!(of(&[], &[]).len(), 14);
        assert!(of(&["net_admin"], &[]).contains("CAP_NET_ADMIN"));
        assert!(!of(&[], &["CAP_CHOWN"]).contains("CAP_CHOWN"));
        assert_eq!(of(&["CHOWN"], &["ALL"]), ["CAP_CHOWN".to_owned()].into());
        let most = of(&["ALL"], &["SYS_ADMIN"]);
        assert!(most.contains("CAP_SYS_PTRACE") && !most.contains("CAP_SYS_ADMIN"));
        let error = bounding(&["NOPE".into()], &[], false).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
        assert!(bounding(&[], &[], true).unwrap().contains("CAP_SYS_ADMIN"));
    }
}
