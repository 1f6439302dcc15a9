//! Starts an engine of its own for a test run: in a network namespace of its own, with everything it keeps under one directory,
//! and takes all of it away again.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Engine, finish};
use crate::error::{Failure, Result};
use crate::http::Address;

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How long a daemon may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

/// Which engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shoal: the path of its binary.
    Shoal(PathBuf),
    /// Debian's dockerd, from the package `docker.io`.
    Reference,
}

/// A daemon with a network namespace and a directory of its own; both go when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    kind: Kind,
    namespace: String,
    directory: PathBuf,
    extra: Vec<String>,
    child: Option<Child>,
}

impl Daemon {
    /// Makes the namespace and the directory, without starting anything yet. `name` tells daemons of one process apart.
    ///
    /// # Errors
    /// `ip` is missing or refuses: not root, for one.
    pub fn new(kind: Kind, name: &str) -> Result<Self> {
        let namespace = format!("{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&namespace);
        fs::create_dir_all(&directory)?;
        ip(&["netns", "add", &namespace])?;
        let daemon = Self { kind, namespace, directory, extra: Vec::new(), child: None };
        ip(&["-n", &daemon.namespace, "link", "set", "lo", "up"])?;
        Ok(daemon)
    }

    /// Adds an option to the daemon's command line.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.extra.push(option.to_owned());
        self
    }

    /// The directory that everything lies under.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the daemon serves.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::Unix(self.directory.join("engine.sock"))
    }

    /// The daemon's process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A command that runs in the daemon's network namespace.
    #[must_use]
    pub fn inside(&self, program: &str) -> Command {
        // not `ip netns exec`: it mounts a fresh /sys, without the cgroup hierarchies
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program);
        command
    }

    /// Starts the daemon, unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// It does not; the failure has the last lines of its log.
    pub fn start(&mut self) -> Result<Engine> {
        if self.child.is_some() {
            return Engine::connect(self.address());
        }
        let path = |name: &str| self.directory.join(name).display().to_string();
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = match &self.kind {
            Kind::Shoal(binary) => {
                let mut command = self.inside(&binary.display().to_string());
                command.arg("daemon");
                command
            }
            Kind::Reference => self.inside("dockerd"),
        };
        command.args([
            "-H",
            &self.address().url(),
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("run"),
            "--pidfile",
            &path("pid"),
        ]);
        command.args(&self.extra).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Where there is a user to become, the standard library forks. Otherwise it calls posix_spawn, and that of glibc leaves
        // signals 32 and 33 ignored in the child: dockerd would hand that on to its containers.
        command.uid(0);
        self.child = Some(command.spawn()?);
        let end = Instant::now() + START;
        loop {
            match Engine::connect(self.address()) {
                Ok(engine) => return Ok(engine),
                Err(error) => {
                    let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()).flatten();
                    if ended.is_some() || Instant::now() > end {
                        return Err(Failure::wrong(format!("{error}; its log ends with:\n{}", self.log_tail(8))));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    /// Kills the daemon with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends the daemon with SIGTERM and waits until it is gone.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let mut kill = Command::new("kill");
        kill.arg(child.id().to_string());
        finish(kill, None)?.ok()?;
        let end = Instant::now() + STOP;
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Err(Failure::wrong(format!("the daemon did not end within {STOP:?} of SIGTERM")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The last lines of the daemon's log.
    #[must_use]
    pub fn log_tail(&self, count: usize) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Removes all that a daemon, which has ended, leaves: its containers' processes, its mounts, its namespace and its directory.
///
/// # Errors
/// The kernel refuses.
pub fn clear(namespace: &str, directory: &Path) -> Result<()> {
    let (mark, own) = (directory.display().to_string(), std::process::id());
    // supervisors and shims outlive their daemon; they and nothing else have the directory in their arguments
    for process in fs::read_dir("/proc")?.flatten() {
        let pid = process.file_name().to_string_lossy().parse::<u32>().unwrap_or(own);
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if pid != own && String::from_utf8_lossy(&arguments).contains(&mark) {
            let mut kill = Command::new("kill");
            kill.args(["-KILL", &pid.to_string()]);
            finish(kill, None)?;
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(&mark));
    for point in below.collect::<Vec<_>>().into_iter().rev() {
        let mut umount = Command::new("umount");
        umount.args(["-l", point]);
        finish(umount, None)?;
    }
    if Path::new("/run/netns").join(namespace).exists() {
        ip(&["netns", "del", namespace])?;
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // one that would not end has been killed: the rest has to go all the same
        for outcome in [self.stop(), clear(&self.namespace, &self.directory)] {
            if let Err(error) = outcome {
                eprintln!("taking down {}: {error}", self.directory.display());
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    finish(command, None)?.ok().map(drop)
}
