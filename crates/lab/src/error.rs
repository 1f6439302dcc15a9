//! What can go wrong. One sentence each.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::errno::Errno;
use shoal_network::KernelError;
use shoal_runtime::cgroup::CgroupError;
use thiserror::Error;

use crate::client::CallError;

/// Why a command of the lab is not done.
#[derive(Debug, Error)]
pub enum LabError {
    /// Namespaces and engines are root's.
    #[error("a lab needs root: it makes network namespaces and runs engines")]
    NotRoot,
    /// The name would not do as a part of file names and namespaces.
    #[error("invalid lab name \"{0}\": it has 1 to 32 characters of a-z, 0-9 and -, a letter first")]
    Name(String),
    /// There is no such lab.
    #[error("there is no lab \"{0}\"; see 'shoal lab up --help'")]
    NoLab(String),
    /// There is one already.
    #[error("there is a lab \"{0}\" already; 'shoal lab down --name {0}' removes it")]
    Exists(String),
    /// A lab of nothing, or a swarm without a manager.
    #[error("a lab needs at least one manager; with --no-swarm at least one node")]
    Empty,
    /// More nodes than addresses.
    #[error("{nodes} nodes do not fit into {subnet}")]
    Subnet {
        /// How many.
        nodes: u32,
        /// Into what.
        subnet: Ipv4Net,
    },
    /// The directory holds something.
    #[error("{0} is not empty; a lab removes its directory in the end, so it wants one of its own")]
    NotEmpty(PathBuf),
    /// The lab has no node of that number.
    #[error("the lab has no node {0}; it has 1 to {1}")]
    NoNode(u32, u32),
    /// A file or directory of the lab.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record of the lab makes no sense.
    #[error("{path} is not the record of a lab: {source}")]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The kernel refused something about a namespace or an interface.
    #[error("cannot wire up the lab: {0}")]
    Network(#[from] KernelError),
    /// The engine's program cannot be run.
    #[error("cannot run the engine of node {node}: {source}")]
    Spawn {
        /// Whose.
        node: u32,
        /// Why.
        source: KernelError,
    },
    /// The engine ended, or does not answer.
    #[error("the engine of node {node} {what}; {log} ends with:\n{tail}")]
    Engine {
        /// Whose.
        node: u32,
        /// What it did.
        what: &'static str,
        /// Where it says why.
        log: PathBuf,
        /// What it says there.
        tail: String,
    },
    /// The engine does not run.
    #[error("the engine of node {0} does not run")]
    NotRunning(u32),
    /// The engine does not end.
    #[error("the engine of node {node}, process {pid}, does not end")]
    DoesNotEnd {
        /// Whose.
        node: u32,
        /// Which process.
        pid: i32,
    },
    /// A signal was refused.
    #[error("cannot signal process {pid}: {errno}")]
    Signal {
        /// Which.
        pid: i32,
        /// Why.
        errno: Errno,
    },
    /// Processes of the lab do not die.
    #[error("processes of the lab do not end: {0:?}")]
    Processes(Vec<i32>),
    /// This process is one of those that `down` ends.
    #[error("this shell is inside the lab; leave it first")]
    Inside,
    /// An engine refused something.
    #[error("node {node}: {step}: {source}")]
    Call {
        /// Which.
        node: u32,
        /// What was asked.
        step: &'static str,
        /// Why not.
        source: CallError,
    },
    /// The swarm is there but not whole.
    #[error("the swarm does not get ready: {0}")]
    NotReady(String),
    /// A control group is left.
    #[error("cannot remove the control groups of the lab: {0}")]
    Cgroup(#[from] CgroupError),
    /// A mount is left.
    #[error("cannot unmount {path}: {errno}")]
    Unmount {
        /// Which.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The command of `exec`.
    #[error("cannot run {command}: {source}")]
    Exec {
        /// What.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The client's runtime.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// Making the lab failed, and so did removing what was there of it.
    #[error("{0}; and what was made of it is not all gone: {1}")]
    AndUndo(Box<LabError>, Box<LabError>),
}

impl LabError {
    /// A failure with this file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
