//! What is done to single nodes: cables, engines, and commands inside.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::error::LabError;
use crate::process::{How, Process, State, environment};
use crate::record::{Lab, Node};
use crate::{up, wiring};

/// Pulls out cables.
pub fn cut(lab: &Lab, nodes: &[u32]) -> Result<(), LabError> {
    lab.nodes(nodes)?.into_iter().try_for_each(|node| wiring::cut(lab, node))
}

/// Plugs in cables.
pub fn mend(lab: &Lab, nodes: &[u32]) -> Result<(), LabError> {
    lab.nodes(nodes)?.into_iter().try_for_each(|node| wiring::mend(lab, node))
}

/// Starts engines that do not run.
pub fn start(lab: &Lab, nodes: &[u32]) -> Result<(), LabError> {
    up::start(lab, &lab.nodes(nodes)?)
}

/// Ends engines, all at the same time, and waits until they are gone. One that does not run is no error.
pub fn end(lab: &Lab, nodes: &[u32], how: How) -> Result<(), LabError> {
    let signal = if how == How::Kill { Signal::SIGKILL } else { Signal::SIGTERM };
    let mut ending = Vec::new();
    for node in lab.nodes(nodes)? {
        if let Some(process) = Process::load(lab, node) {
            process.signal(signal)?;
            // one that is stalled must go on to end in order
            process.signal(Signal::SIGCONT)?;
            ending.push((node, process));
        }
    }
    for (node, process) in ending {
        if !process.wait() {
            return Err(LabError::DoesNotEnd { node: node.number, pid: process.pid });
        }
    }
    Ok(())
}

/// Stalls engines.
pub fn pause(lab: &Lab, nodes: &[u32]) -> Result<(), LabError> {
    signal(lab, nodes, Signal::SIGSTOP)
}

/// Lets stalled engines go on.
pub fn resume(lab: &Lab, nodes: &[u32]) -> Result<(), LabError> {
    signal(lab, nodes, Signal::SIGCONT)
}

fn signal(lab: &Lab, nodes: &[u32], signal: Signal) -> Result<(), LabError> {
    let running = |node: &Node| Process::load(lab, node).filter(|process| process.state() != State::Gone);
    for node in lab.nodes(nodes)? {
        running(node).ok_or(LabError::NotRunning(node.number))?.signal(signal)?;
    }
    Ok(())
}

/// Becomes the command, in the node's network namespace. Comes back only if that fails.
///
/// Only the network is the node's: `/sys` stays as it is, with the control groups in it.
pub fn exec(lab: &Lab, number: u32, command: &[String]) -> Result<(), LabError> {
    let node = lab.node(number)?;
    let namespace = lab.namespace(number);
    let file = File::open(&namespace).map_err(LabError::file(&namespace))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::file(&namespace)(errno.into()))?;
    let shell = || std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let program = command.first().cloned().unwrap_or_else(shell);
    let source = Command::new(&program)
        .args(command.iter().skip(1))
        .envs(environment(lab, node))
        .env("DOCKER_HOST", format!("unix://{}", lab.socket(number).display()))
        .exec();
    Err(LabError::Exec { command: program, source })
}
