//! What a container can and cannot do to the machine that it is on.

use serde_json::json;

use crate::client::Api;
use crate::cx::Cx;
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, capabilities_are_dockers_default_set),
    case!(Engine, capabilities_can_be_added_and_dropped),
    case!(Engine, another_user_has_no_effective_capabilities),
    case!(Engine, seccomp_filters_system_calls),
    case!(Engine, kernel_interfaces_are_masked_or_read_only),
    case!(Engine, devices_are_the_harmless_ones),
    case!(Engine, namespaces_are_the_containers_own),
    case!(Engine, a_privileged_container_has_all_capabilities),
    case!(Engine, no_new_privileges_is_set_on_demand),
    case!(Engine, nothing_of_the_daemon_leaks_in),
];

const STATUS: &str = "grep -E '^(CapEff|CapBnd|CapInh|CapPrm|Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t' ' '";

fn status(cx: &Cx<'_>, name: &str, settings: serde_json::Value, field: &str) -> Result<String> {
    let lines = cx.shell(name, STATUS, settings)?;
    let found = lines.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
    Ok(found.unwrap_or_default().to_owned())
}

/// Docker's fourteen.
const DEFAULT: &str = "00000000a80425fb";

fn capabilities_are_dockers_default_set(cx: &Cx<'_>) -> Result<()> {
    let seen = cx.shell("c", STATUS, json!({}))?;
    for field in ["CapEff", "CapBnd", "CapPrm"] {
        ensure!(seen.contains(&format!("{field}: {DEFAULT}")), "{field} in {seen}");
    }
    Ok(())
}

fn capabilities_can_be_added_and_dropped(cx: &Cx<'_>) -> Result<()> {
    let add = json!({"HostConfig": {"CapAdd": ["NET_ADMIN"]}});
    same!(status(cx, "add", add, "CapEff")?, "00000000a80435fb", "with NET_ADMIN");
    let drop = json!({"HostConfig": {"CapDrop": ["CAP_CHOWN"]}});
    same!(status(cx, "drop", drop, "CapBnd")?, "00000000a80425fa", "without CHOWN");
    let only = json!({"HostConfig": {"CapDrop": ["ALL"], "CapAdd": ["NET_RAW"]}});
    same!(status(cx, "only", only, "CapEff")?, "0000000000002000", "NET_RAW alone");
    let (code, _) =
        cx.run_to_end("chown", json!({"Cmd": ["chown", "405", "/etc/passwd"], "HostConfig": {"CapDrop": ["ALL"]}}))?;
    same!(code, 1, "chown without its capability");
    Ok(())
}

fn another_user_has_no_effective_capabilities(cx: &Cx<'_>) -> Result<()> {
    same!(status(cx, "c", json!({"User": "405"}), "CapEff")?, "0000000000000000", "effective");
    same!(status(cx, "d", json!({"User": "405"}), "CapBnd")?, DEFAULT, "bounding");
    Ok(())
}

fn seccomp_filters_system_calls(cx: &Cx<'_>) -> Result<()> {
    same!(status(cx, "c", json!({}), "Seccomp")?, "2", "seccomp mode");
    let unconfined = json!({"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}});
    same!(status(cx, "free", unconfined, "Seccomp")?, "0", "seccomp mode when unconfined");
    // the capability alone does not do: the filter goes by it
    let (code, _) = cx.run_to_end("unshare", json!({"Cmd": ["unshare", "-U", "true"]}))?;
    ensure!(code != 0, "a user namespace was made");
    Ok(())
}

fn kernel_interfaces_are_masked_or_read_only(cx: &Cx<'_>) -> Result<()> {
    let line = "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && echo $f $(head -c 1 $f | wc -c); done; \
        for d in /proc/acpi /proc/scsi /sys/firmware; do [ -e $d ] && echo $d $(ls $d | wc -l); done; \
        for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/x /proc/bus/x /proc/fs/x /sys/x; do \
        (echo 1 >$f) 2>/dev/null && echo wrote $f; done; mount -t tmpfs none /tmp 2>/dev/null && echo mounted; true";
    let seen = cx.shell("c", line, json!({}))?;
    for line in seen.lines() {
        ensure!(line.ends_with(" 0"), "{line:?} in {seen}");
    }
    Ok(())
}

fn devices_are_the_harmless_ones(cx: &Cx<'_>) -> Result<()> {
    let seen = cx.shell("c", "ls /dev | tr '\\n' ' '; head -c 4 /dev/zero | wc -c; echo x >/dev/null; mknod /dev/sda b 8 0 && head -c 1 /dev/sda 2>&1", json!({}));
    let Err(error) = seen else { return Err(Failure::wrong(format!("a disk could be read: {seen:?}"))) };
    let text = error.to_string();
    ensure!(text.contains("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 4"), "{text}");
    ensure!(text.contains("ot permitted"), "{text}");
    Ok(())
}

fn namespaces_are_the_containers_own(cx: &Cx<'_>) -> Result<()> {
    let line = "for name in pid net mnt uts ipc; do readlink /proc/self/ns/$name; done; ps | wc -l";
    let seen = cx.shell("c", line, json!({}))?;
    same!(seen.lines().count(), 6, "lines of {seen}");
    for (name, line) in ["pid", "net", "mnt", "uts", "ipc"].iter().zip(seen.lines()) {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}"))?.display().to_string();
        ensure!(own != line, "{name} is the machine's: {line}");
    }
    let processes: usize = seen.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or_default();
    ensure!(processes <= 5, "{processes} lines of ps");
    let host = cx.shell(
        "host",
        "readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid",
        json!({"HostConfig": {"PidMode": "host", "IpcMode": "host"}}),
    )?;
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).map(|path| path.display().to_string());
    same!(host, format!("{}\n{}", own("ipc")?, own("pid")?), "namespaces when the host's are asked for");
    Ok(())
}

/// The most capabilities that a container can have here: those that this process could still get.
///
/// # Errors
/// An engine of old insists on all that the kernel knows; where the machine withholds some the test is skipped.
pub fn most_capabilities(cx: &Cx<'_>) -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default().trim().to_owned();
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    if cx.engine.api < Api(1, 44) && u64::from_str_radix(&bounding, 16)?.count_ones() <= last {
        return Err(Failure::Skipped("this machine withholds some capabilities".to_owned()));
    }
    Ok(bounding)
}

fn a_privileged_container_has_all_capabilities(cx: &Cx<'_>) -> Result<()> {
    let most = most_capabilities(cx)?;
    let privileged = json!({"HostConfig": {"Privileged": true}});
    same!(status(cx, "c", privileged.clone(), "CapEff")?, most, "capabilities");
    same!(status(cx, "d", privileged.clone(), "Seccomp")?, "0", "seccomp mode");
    cx.shell("mount", "mount -t tmpfs none /tmp && ls /dev/kmsg", privileged).map(drop)
}

fn no_new_privileges_is_set_on_demand(cx: &Cx<'_>) -> Result<()> {
    same!(status(cx, "c", json!({}), "NoNewPrivs")?, "0", "without");
    same!(status(cx, "d", json!({"HostConfig": {"SecurityOpt": ["no-new-privileges"]}}), "NoNewPrivs")?, "1", "with");
    Ok(())
}

fn nothing_of_the_daemon_leaks_in(cx: &Cx<'_>) -> Result<()> {
    let seen = cx.shell("c", "ls /proc/self/fd | wc -l; env | sort | cut -d= -f1 | tr '\\n' ' '; ulimit -n >/dev/null; grep SigBlk /proc/self/status | tr -s '\\t' ' '; grep SigIgn /proc/self/status | tr -s '\\t' ' '", json!({}))?;
    let lines: Vec<&str> = seen.lines().collect();
    let open: usize = lines.first().and_then(|line| line.trim().parse().ok()).unwrap_or_default();
    // three, and the directory that ls reads
    ensure!(open <= 4, "{open} open files");
    ensure!(seen.contains("HOME HOSTNAME PATH PWD SHLVL "), "environment in {seen}");
    ensure!(
        seen.contains("SigBlk: 0000000000000000") && seen.contains("SigIgn: 0000000000000000"),
        "signals in {seen}"
    );
    Ok(())
}
