//! Devices: what every container may use, and what a request adds.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use bollard_stubs::models::{DeviceMapping, HostConfig};
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Type, major, minor (`None`: any) and access that every container has.
const BASE: &[(&str, Option<i64>, Option<i64>, &str)] = &[
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(1), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
];

/// Device nodes to make, and access rules for the control group.
#[derive(Debug, Default)]
pub struct Devices {
    pub nodes: Vec<Value>,
    pub rules: Vec<Value>,
}

/// The devices of a container.
pub fn devices(host: &HostConfig) -> Result<Devices> {
    let mut all = Devices::default();
    if host.privileged.unwrap_or_default() {
        all.rules.push(json!({ "allow": true, "access": "rwm" }));
        collect(Path::new("/dev"), Path::new("/dev"), "rwm", &mut all, true)?;
        all.rules.truncate(1);
        return Ok(all);
    }
    all.rules.push(json!({ "allow": false, "access": "rwm" }));
    for (kind, major, minor, access) in BASE {
        all.rules.push(rule(kind, *major, *minor, access));
    }
    for mapping in host.devices.iter().flatten() {
        add(mapping, &mut all)?;
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        all.rules.push(parse_rule(text)?);
    }
    Ok(all)
}

fn rule(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> Value {
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (name, number) in [("major", major), ("minor", minor)] {
        if let Some(number) = number {
            rule[name] = json!(number);
        }
    }
    rule
}

fn add(mapping: &DeviceMapping, all: &mut Devices) -> Result<()> {
    let source = mapping.path_on_host.as_deref().unwrap_or_default();
    let target = mapping.path_in_container.as_deref().filter(|t| !t.is_empty()).unwrap_or(source);
    let access = mapping.cgroup_permissions.as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
    check_access(access)?;
    let failed = |why: &str| {
        Error::invalid(format!("error gathering device information while adding custom device {source:?}: {why}"))
    };
    let meta = fs::metadata(source).map_err(|e| failed(&crate::words::io(&e)))?;
    let kind = meta.file_type();
    if kind.is_dir() {
        return collect(Path::new(source), Path::new(target), access, all, false);
    }
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(failed("not a device node"));
    }
    push(&meta, Path::new(target), access, all);
    Ok(())
}

fn push(meta: &fs::Metadata, target: &Path, access: &str, all: &mut Devices) {
    let kind = if meta.file_type().is_block_device() { "b" } else { "c" };
    let (major, minor) = (major(meta.rdev()) as i64, minor(meta.rdev()) as i64);
    all.nodes.push(json!({
        "path": target, "type": kind, "major": major, "minor": minor,
        "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
    }));
    all.rules.push(rule(kind, Some(major), Some(minor), access));
}

/// All devices of a directory and below. The host's own terminals, shared memory and mounts below `/dev` are not devices
/// to hand on.
fn collect(source: &Path, target: &Path, access: &str, all: &mut Devices, host_dev: bool) -> Result<()> {
    const SKIPPED: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    for entry in fs::read_dir(source).map_err(Error::at("list", source))? {
        let entry = entry.map_err(Error::at("list", source))?;
        let name = entry.file_name();
        // gone meanwhile, or a link: udev's links are made of what is there
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        let kind = meta.file_type();
        let skipped = host_dev && SKIPPED.iter().any(|skip| name.to_str() == Some(skip));
        if kind.is_dir() && !skipped {
            collect(&entry.path(), &target.join(&name), access, all, false)?;
        } else if (kind.is_char_device() || kind.is_block_device()) && !skipped {
            push(&meta, &target.join(&name), access, all);
        }
    }
    Ok(())
}

fn check_access(access: &str) -> Result<()> {
    let ok = !access.is_empty() && access.len() <= 3 && access.chars().all(|c| "rwm".contains(c));
    if ok { Ok(()) } else { Err(Error::invalid(format!("invalid device mode: {access}"))) }
}

/// `c 1:3 rwm`, `b *:* r`.
pub fn parse_rule(text: &str) -> Result<Value> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else { return Err(invalid()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().map(|n| Some(n.into())).map_err(|_| invalid()),
    };
    check_access(access).map_err(|_| invalid())?;
    Ok(rule(kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_a_node_and_a_rule() {
        let mapping = DeviceMapping {
            path_on_host: Some("/dev/null".into()),
            path_in_container: Some("/dev/hole".into()),
            cgroup_permissions: Some("r".into()),
        };
        let all = devices(&HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() }).unwrap();
        assert_eq!(all.nodes[0]["path"], "/dev/hole");
        assert_eq!(
            *all.rules.last().unwrap(),
            json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "r" })
        );
        assert_eq!(all.rules[0], json!({ "allow": false, "access": "rwm" }));
    }

    #[test]
    fn wrong_devices_and_rules_are_refused() {
        let of = |path: &str| {
            let mapping = DeviceMapping { path_on_host: Some(path.into()), ..DeviceMapping::default() };
            devices(&HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() }).unwrap_err().to_string()
        };
        let start = "error gathering device information while adding custom device";
        assert_eq!(of("/dev/nosuch"), format!("{start} \"/dev/nosuch\": no such file or directory"));
        assert_eq!(of("/etc/passwd"), format!("{start} \"/etc/passwd\": not a device node"));
        assert_eq!(parse_rule("c *:3 rw").unwrap(), json!({ "allow": true, "type": "c", "minor": 3, "access": "rw" }));
        for bad in ["", "c 1 r", "x 1:1 r", "c 1:x r", "c 1:1 q", "c 1:1 r r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }
}
