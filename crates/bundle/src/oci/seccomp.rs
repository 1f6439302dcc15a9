//! Which system calls a container may make. The default, `seccomp.json`, allows and denies what Docker's does; a profile
//! of the user's is read in the same format. Pure.

use std::collections::BTreeSet;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};

const DEFAULT: &str = include_str!("seccomp.json");

/// Docker's profile format: OCI's, with rules that depend on capabilities, architecture and kernel.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<LinuxSeccompArg>,
    #[serde(default)]
    includes: When,
    #[serde(default)]
    excludes: When,
}

/// A condition: all that is named must hold for a rule to be included, any for it to be excluded.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct When {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What the conditions are about.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// `CAP_…` names in the bounding set.
    pub caps: &'a BTreeSet<String>,
    /// In Rust's spelling.
    pub machine: &'a str,
    /// `6.1.0-13-amd64`
    pub kernel: &'a str,
}

/// The default profile for a container.
pub fn default(facts: &Facts<'_>) -> LinuxSeccomp {
    resolve(serde_json::from_str(DEFAULT).expect("the built-in profile is tested"), facts)
        .expect("the built-in profile is tested")
}

/// A user's profile, given as JSON.
///
/// # Errors
/// 400 where it is none.
pub fn parse(text: &str, facts: &Facts<'_>) -> Result<LinuxSeccomp> {
    let profile: Profile =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("Decoding seccomp profile failed: {e}")))?;
    if profile.listener_path.is_some() {
        return Err(Error::unsupported("listenerPath in a seccomp profile"));
    }
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(Error::invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use one or the other",
        ));
    }
    resolve(profile, facts)
}

fn resolve(profile: Profile, facts: &Facts<'_>) -> Result<LinuxSeccomp> {
    let mut arches = profile.architectures;
    if let Some(native) = native(facts.machine)
        && let Some(map) = profile.arch_map.into_iter().find(|map| map.architecture == native)
    {
        arches.push(native);
        arches.extend(map.sub_architectures);
    }
    let mut syscalls = Vec::new();
    for rule in profile.syscalls {
        if !rule.name.is_empty() && !rule.names.is_empty() {
            return Err(Error::invalid(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
            ));
        }
        if !rule.applies(facts) {
            continue;
        }
        let names = if rule.names.is_empty() { vec![rule.name] } else { rule.names };
        let mut entry = json!({ "names": names, "action": rule.action });
        if let Some(errno) = rule.errno_ret {
            entry["errnoRet"] = json!(errno);
        }
        if !rule.args.is_empty() {
            entry["args"] = json!(rule.args);
        }
        syscalls.push(entry);
    }
    let whole = json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": arches,
        "flags": profile.flags,
        "syscalls": syscalls,
    });
    serde_json::from_value(whole).map_err(|e| Error::invalid(format!("Decoding seccomp profile failed: {e}")))
}

impl Rule {
    fn applies(&self, facts: &Facts<'_>) -> bool {
        let arch = go_arch(facts.machine);
        let included = self.includes.caps.iter().all(|cap| facts.caps.contains(cap))
            && (self.includes.arches.is_empty() || self.includes.arches.iter().any(|a| a == arch))
            && self.includes.min_kernel.as_deref().is_none_or(|least| version(facts.kernel) >= version(least));
        let excluded = self.excludes.caps.iter().any(|cap| facts.caps.contains(cap))
            || self.excludes.arches.iter().any(|a| a == arch)
            || self.excludes.min_kernel.as_deref().is_some_and(|least| version(facts.kernel) >= version(least));
        included && !excluded
    }
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Go's name of an architecture, which profiles use.
pub fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i686" => "386",
        "powerpc64" | "ppc64le" => "ppc64le",
        other => other,
    }
}

fn native(machine: &str) -> Option<Arch> {
    Some(match machine {
        "x86_64" => Arch::ScmpArchX86_64,
        "aarch64" => Arch::ScmpArchAarch64,
        "powerpc64" | "ppc64le" => Arch::ScmpArchPpc64le,
        "riscv64" => Arch::ScmpArchRiscv64,
        "s390x" => Arch::ScmpArchS390x,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &LinuxSeccomp, action: LinuxSeccompAction) -> BTreeSet<String> {
        let rules = profile.syscalls().iter().flatten().filter(|rule| rule.action() == action);
        rules.flat_map(|rule| rule.names().clone()).collect()
    }

    fn of(caps: &[&str]) -> LinuxSeccomp {
        let caps = caps.iter().map(|cap| (*cap).to_owned()).collect();
        default(&Facts { caps: &caps, machine: "x86_64", kernel: "6.18.0-x" })
    }

    #[test]
    fn the_default_denies_what_changes_the_host_until_a_capability_allows_it() {
        let plain = names(&of(&[]), LinuxSeccompAction::ScmpActAllow);
        assert!(plain.contains("openat") && plain.contains("arch_prctl") && plain.contains("ptrace"));
        for denied in ["mount", "unshare", "bpf", "reboot", "init_module", "keyctl", "io_uring_setup", "chroot"] {
            assert!(!plain.contains(denied), "{denied}");
        }
        assert_eq!(names(&of(&[]), LinuxSeccompAction::ScmpActErrno), ["clone3".to_owned()].into());
        let admin = names(&of(&["CAP_SYS_ADMIN"]), LinuxSeccompAction::ScmpActAllow);
        assert!(admin.contains("mount") && admin.contains("clone3") && !admin.contains("reboot"));
        assert!(names(&of(&["CAP_SYS_CHROOT"]), LinuxSeccompAction::ScmpActAllow).contains("chroot"));
    }

    #[test]
    fn rules_depend_on_architecture_and_kernel() {
        let caps = BTreeSet::new();
        let arm = default(&Facts { caps: &caps, machine: "aarch64", kernel: "4.4.0" });
        let allowed = names(&arm, LinuxSeccompAction::ScmpActAllow);
        assert!(allowed.contains("set_tls") && !allowed.contains("arch_prctl") && !allowed.contains("ptrace"));
        assert_eq!(arm.architectures().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn a_users_profile_is_read_and_a_bad_one_refused() {
        let caps = BTreeSet::new();
        let facts = Facts { caps: &caps, machine: "x86_64", kernel: "6.1" };
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO"}]}"#;
        let profile = parse(text, &facts).unwrap();
        assert_eq!(names(&profile, LinuxSeccompAction::ScmpActErrno), ["chmod".to_owned()].into());
        assert!(parse("{}", &facts).unwrap_err().to_string().starts_with("Decoding seccomp profile failed: "));
    }
}
