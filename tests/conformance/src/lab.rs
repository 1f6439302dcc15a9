//! Several engines on one machine, through `shoal lab`: any engine, with the lab's own program around it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::{Engine, finish};
use crate::error::{Failure, Result};
use crate::http::Address;
use crate::images;
use crate::launch::Kind;

/// How Debian's dockerd runs in a node of a lab.
const REFERENCE: &str = "rm -f $DIR/pidfile; exec dockerd -H unix://$SOCK --data-root $DIR/data --exec-root $DIR/run --pidfile $DIR/pidfile";

/// What a lab is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many managers; they are the first nodes.
    pub managers: usize,
    /// How many workers.
    pub workers: usize,
    /// Whether they are one swarm from the beginning.
    pub swarm: bool,
}

/// A lab that goes when this is dropped. Nodes are numbered from 1.
#[derive(Debug)]
pub struct Lab {
    /// What its engines are.
    pub kind: Kind,
    program: PathBuf,
    name: String,
    directory: PathBuf,
    engines: Vec<Engine>,
}

impl Lab {
    /// Makes a lab with `program`, which is `shoal`, of `kind` of engines, and loads busybox into each.
    ///
    /// # Errors
    /// The lab's program fails; the failure has its sentence.
    pub fn up(program: &Path, kind: &Kind, shape: &Shape) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("cf{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        let mut lab = Self { kind: kind.clone(), program: program.to_owned(), name, directory, engines: Vec::new() };
        let (managers, workers) = (shape.managers.to_string(), shape.workers.to_string());
        let place = lab.directory.display().to_string();
        let mut arguments = vec!["up", "--managers", &managers, "--workers", &workers, "--dir", &place];
        if !shape.swarm {
            arguments.push("--no-swarm");
        }
        if *kind == Kind::Reference {
            arguments.extend(["--engine", REFERENCE]);
        }
        lab.run(&arguments)?;
        let busybox = images::busybox()?.archive();
        for number in 1..=shape.managers + shape.workers {
            let engine = Engine::connect(Address::Unix(lab.home(number).join("sock")))?;
            engine.load(&busybox)?;
            lab.engines.push(engine);
        }
        Ok(lab)
    }

    /// One command of `shoal lab`; what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["lab", "--name", &self.name]).args(arguments);
        finish(command, None)?.ok()
    }

    /// `cut`, `mend`, `kill`, `stop`, `start`, `pause` or `resume` of nodes.
    ///
    /// # Errors
    /// The command fails.
    pub fn act(&self, verb: &str, nodes: &[usize]) -> Result<()> {
        let nodes: Vec<String> = nodes.iter().map(usize::to_string).collect();
        let mut arguments = vec![verb];
        arguments.extend(nodes.iter().map(String::as_str));
        if nodes.is_empty() { Ok(()) } else { self.run(&arguments).map(drop) }
    }

    /// Runs a program in a node's network namespace; what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn inside(&self, node: usize, command: &[&str]) -> Result<String> {
        self.run(&[&["exec", &node.to_string()], command].concat())
    }

    /// A node's engine.
    #[must_use]
    pub fn engine(&self, node: usize) -> &Engine {
        &self.engines[node - 1]
    }

    /// The numbers of all nodes.
    pub fn nodes(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.engines.len()
    }

    /// A node's address.
    #[must_use]
    pub fn address(&self, node: usize) -> String {
        format!("10.77.0.{node}")
    }

    /// The directory that everything of a node lies under.
    #[must_use]
    pub fn home(&self, node: usize) -> PathBuf {
        self.directory.join(node.to_string())
    }

    /// The process of a node's engine, for what has to happen faster than the lab's program does it.
    ///
    /// # Errors
    /// The lab has noted none.
    pub fn pid(&self, node: usize) -> Result<u64> {
        let noted = std::fs::read(self.home(node).join("process.json"))?;
        let noted: serde_json::Value = serde_json::from_slice(&noted)?;
        noted["pid"].as_u64().ok_or_else(|| Failure::wrong(format!("no process in {noted}")))
    }

    /// The last lines of each engine's log, none of them endless.
    #[must_use]
    pub fn log_tails(&self, count: usize) -> String {
        let tail = |node: usize| {
            let log = std::fs::read(self.home(node).join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<String> = log.lines().map(|line| line.chars().take(240).collect()).collect();
            format!("node {node}:\n{}\n", lines[lines.len().saturating_sub(count)..].join("\n"))
        };
        self.nodes().map(tail).collect()
    }

    /// Removes the lab and demands that nothing of it is left.
    ///
    /// # Errors
    /// Something is.
    pub fn down(&self) -> Result<()> {
        self.run(&["down"])?;
        let mark = self.directory.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&mark)).collect();
        crate::ensure!(left.is_empty(), "mounts are left: {left:?}");
        crate::ensure!(!self.directory.exists(), "{mark} is left");
        for place in ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/memory"].into_iter().map(Path::new) {
            for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
                let left = entry.file_name().to_string_lossy().contains(&self.name);
                crate::ensure!(!left, "{} is left", entry.path().display());
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let gone = |error: &Failure| error.to_string().contains("there is no lab");
        match self.run(&["down"]) {
            Err(error) if !gone(&error) => eprintln!("taking down lab {}: {error}", self.name),
            _ => {}
        }
    }
}
