//! The engine of a node as a process: started in the node's network namespace, known by its id and when it began.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use shoal_network::within_namespace;

use crate::error::LabError;
use crate::record::{Lab, Node};

/// How long an engine may take to end.
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A process. An id alone may be another's by now; with the time when it began it is this one's for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Clock ticks from boot to its beginning.
    pub began: u64,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, sleeps or waits.
    Alive,
    /// A signal has stopped it.
    Stopped,
    /// It has ended.
    Gone,
}

/// How to end an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

impl Process {
    /// The process that has this id now.
    fn of(pid: i32) -> Option<Self> {
        let (_, began) = stat(pid)?;
        Some(Self { pid, began })
    }

    /// The engine of a node, as it was last started.
    pub fn load(lab: &Lab, node: &Node) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(lab, node)).ok()?).ok()
    }

    /// What it does now.
    pub fn state(self) -> State {
        match stat(self.pid) {
            Some((_, began)) if began != self.began => State::Gone,
            Some(('Z' | 'X', _)) | None => State::Gone,
            Some(('T' | 't', _)) => State::Stopped,
            Some(_) => State::Alive,
        }
    }

    /// Sends a signal; one that has ended is no error.
    pub fn signal(self, signal: Signal) -> Result<(), LabError> {
        if self.state() == State::Gone {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(LabError::Signal { pid: self.pid, errno }),
        }
    }

    /// Waits until it has ended; whether it has.
    pub fn wait(self) -> bool {
        let end = Instant::now() + END;
        while self.state() != State::Gone {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

/// State and beginning, from the kernel.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 and 22 of proc_pid_stat(5); the name before them may hold anything, parentheses too.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn file(lab: &Lab, node: &Node) -> PathBuf {
    lab.home(node.number).join("process.json")
}

/// Where a node's engine logs to.
pub fn log(lab: &Lab, node: &Node) -> PathBuf {
    lab.home(node.number).join("log")
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Starts a node's engine, in its namespace, in a process group of its own: a terminal's interrupt is for the lab's command.
pub fn start(lab: &Lab, node: &Node) -> Result<Process, LabError> {
    let (home, path) = (lab.home(node.number), log(lab, node));
    fs::create_dir_all(&home).map_err(LabError::file(&home))?;
    let output = File::options().create(true).append(true).open(&path).map_err(LabError::file(&path))?;
    let errors = output.try_clone().map_err(LabError::file(&path))?;
    let mut command = command(lab, node)?;
    command.envs(environment(lab, node)).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let child = within_namespace(&lab.namespace(node.number), move || command.spawn())
        .map_err(|source| LabError::Spawn { node: node.number, source })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    // not waited for, it keeps its entry in /proc even if it ends at once
    let process = Process::of(pid).ok_or(LabError::NotRunning(node.number))?;
    let text = serde_json::to_vec(&process).expect("plain values always serialise");
    fs::write(file(lab, node), text).map_err(LabError::file(&file(lab, node)))?;
    Ok(process)
}

fn command(lab: &Lab, node: &Node) -> Result<Command, LabError> {
    if let Some(line) = &lab.engine {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        return Ok(shell);
    }
    let mut command = Command::new(std::env::current_exe().map_err(LabError::Start)?);
    let home = lab.home(node.number);
    command.args(["daemon", "-H", &format!("unix://{}", lab.socket(node.number).display())]);
    command.arg("--data-root").arg(home.join("data")).arg("--exec-root").arg(lab.exec_root(node.number));
    Ok(command)
}

/// What a node's engine, and what is run in the node, finds in its environment.
pub fn environment(lab: &Lab, node: &Node) -> [(&'static str, String); 4] {
    [
        ("NODE", node.number.to_string()),
        ("ADDR", node.address.to_string()),
        ("DIR", lab.home(node.number).display().to_string()),
        ("SOCK", lab.socket(node.number).display().to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_beginning() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        assert_eq!(process.state(), State::Alive);
        assert_eq!(Process { began: process.began + 1, ..process }.state(), State::Gone);
        process.signal(Signal::SIGSTOP).unwrap();
        while process.state() != State::Stopped {
            std::thread::yield_now();
        }
        process.signal(Signal::SIGKILL).unwrap();
        // nobody has waited for it yet: an ended process all the same
        assert!(process.wait());
        child.wait().unwrap();
        process.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let rest = (4..22).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a) b)) S {rest} 12345 9")), Some(('S', 12345)));
    }
}
