//! `lab down`: nothing is left. Whatever is there of the lab is looked for, so that a lab that was half made goes as well.
//!
//! A process is the lab's if its network namespace is a node's, or one that a node's engine has mounted under its directory,
//! or if it is in a control group of a node's engine. Names and command lines are never looked at.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shoal_runtime::cgroup;

use crate::error::LabError;
use crate::process::Process;
use crate::record::Lab;
use crate::{mounts, wiring};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// A namespace, as the kernel tells them apart.
type Inode = u64;

/// Removes the lab.
pub fn down(lab: &Lab) -> Result<(), LabError> {
    let namespaces = namespaces(lab)?;
    if own_namespace().is_some_and(|own| namespaces.contains(&own)) {
        return Err(LabError::Inside);
    }
    let foreign = if lab.engine.is_some() { foreign_groups(lab, &namespaces) } else { BTreeSet::new() };
    for node in &lab.nodes {
        if let Some(process) = Process::load(lab, node) {
            process.signal(Signal::SIGKILL)?;
        }
    }
    end_all(&namespaces)?;
    for node in &lab.nodes {
        let group = PathBuf::from(cgroup::parent_of(&lab.exec_root(node.number)));
        cgroup::kill(&group)?;
        cgroup::remove(&group)?;
    }
    foreign.iter().try_for_each(|group| cgroup::remove(group))?;
    mounts::remove(&lab.directory)?;
    wiring::remove(lab)?;
    lab.forget()
}

/// Those of the nodes, and those that their engines have mounted.
fn namespaces(lab: &Lab) -> Result<BTreeSet<Inode>, LabError> {
    let mut paths: Vec<PathBuf> = lab.nodes.iter().map(|node| lab.namespace(node.number)).collect();
    paths.push(lab.switch());
    paths.extend(mounts::below(&lab.directory)?);
    let ours = paths.iter().filter(|path| wiring::is_made(path));
    Ok(ours.filter_map(|path| fs::metadata(path).ok()).map(|found| found.ino()).collect())
}

fn own_namespace() -> Option<Inode> {
    fs::metadata("/proc/self/ns/net").ok().map(|found| found.ino())
}

/// Kills every process in the namespaces until there is none: one may have started another meanwhile.
fn end_all(namespaces: &BTreeSet<Inode>) -> Result<(), LabError> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = inside(namespaces);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(LabError::Processes(left));
        }
        for pid in left {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(LabError::Signal { pid, errno }),
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// The processes in the namespaces. One that has ended is in none.
fn inside(namespaces: &BTreeSet<Inode>) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_inside = |pid: &i32| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net"));
        namespace.is_ok_and(|found| namespaces.contains(&found.ino()))
    };
    pids.filter(is_inside).collect()
}

/// The control groups that an engine, of which nothing is known, has made for its containers: where its processes are and
/// neither it nor this process is.
fn foreign_groups(lab: &Lab, namespaces: &BTreeSet<Inode>) -> BTreeSet<PathBuf> {
    let engines = lab.nodes.iter().filter_map(|node| Process::load(lab, node)).map(|process| process.pid.to_string());
    let known: BTreeSet<PathBuf> =
        engines.chain(["self".to_owned()]).flat_map(|pid| groups(&pid)).chain([PathBuf::from("/")]).collect();
    let found: BTreeSet<PathBuf> = inside(namespaces).iter().flat_map(|pid| groups(&pid.to_string())).collect();
    found.difference(&known).filter(|group| !known.iter().any(|other| other.starts_with(group))).cloned().collect()
}

fn groups(pid: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(Path::new("/proc").join(pid).join("cgroup")).unwrap_or_default();
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(PathBuf::from).collect()
}
