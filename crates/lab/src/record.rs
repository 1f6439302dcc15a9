//! What a lab consists of: names, addresses and directories, and the file that remembers it between commands.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::LabError;

/// The lab of those who name none.
pub const DEFAULT_NAME: &str = "lab";
/// Where labs are found by name: each a directory, or a link to one elsewhere.
const LABS: &str = "/var/lib/shoal-lab";
/// Where network namespaces are mounted; `ip netns` knows this place too.
const NAMESPACES: &str = "/run/netns";
const RECORD: &str = "lab.json";

/// A lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    /// Its name.
    pub name: String,
    /// Everything that its nodes keep.
    pub directory: PathBuf,
    /// Whether the directory was made for it.
    pub made_directory: bool,
    /// The addresses of its nodes are from here.
    pub subnet: Ipv4Net,
    /// The shell command of another engine than this program's.
    pub engine: Option<String>,
    /// Its nodes, from number 1.
    pub nodes: Vec<Node>,
}

/// One machine of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// From 1.
    pub number: u32,
    /// Its address on the switch.
    pub address: Ipv4Addr,
    /// Whether it begins as a manager.
    pub manager: bool,
}

impl Lab {
    /// A lab as planned; nothing is made yet.
    pub fn plan(
        name: &str,
        managers: u32,
        workers: u32,
        subnet: Ipv4Net,
        engine: Option<String>,
    ) -> Result<Self, LabError> {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.len() > 32 || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fine) {
            return Err(LabError::Name(name.to_owned()));
        }
        let count = managers.checked_add(workers).filter(|count| *count > 0).ok_or(LabError::Empty)?;
        let nodes: Vec<Node> = (1..=count)
            .zip(subnet.hosts())
            .map(|(number, address)| Node { number, address, manager: number <= managers })
            .collect();
        if nodes.len() < count as usize {
            return Err(LabError::Subnet { nodes: count, subnet });
        }
        let directory = Path::new(LABS).join(name);
        Ok(Self { name: name.to_owned(), directory, made_directory: true, subnet, engine, nodes })
    }

    /// Takes the name and the directory, `elsewhere` or the default one, for this lab.
    pub fn claim(&mut self, elsewhere: Option<&Path>) -> Result<(), LabError> {
        let place = Path::new(LABS).join(&self.name);
        fs::create_dir_all(LABS).map_err(LabError::file(Path::new(LABS)))?;
        let taken = |error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => LabError::Exists(self.name.clone()),
            _ => LabError::File { path: place.clone(), source: error },
        };
        match elsewhere {
            None => fs::create_dir(&place).map_err(taken)?,
            Some(directory) => {
                let directory = std::path::absolute(directory).map_err(LabError::file(directory))?;
                let made = !directory.exists();
                fs::create_dir_all(&directory).map_err(LabError::file(&directory))?;
                let mut entries = fs::read_dir(&directory).map_err(LabError::file(&directory))?;
                if entries.next().is_some() {
                    return Err(LabError::NotEmpty(directory));
                }
                symlink(&directory, &place).map_err(taken)?;
                (self.directory, self.made_directory) = (directory, made);
            }
        }
        let path = self.directory.join(RECORD);
        let text = serde_json::to_vec_pretty(self).expect("plain values always serialise");
        fs::write(&path, text).map_err(LabError::file(&path))
    }

    /// The lab of this name.
    pub fn load(name: &str) -> Result<Self, LabError> {
        let path = Path::new(LABS).join(name).join(RECORD);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(LabError::NoLab(name.to_owned())),
            text => text.map_err(LabError::file(&path))?,
        };
        serde_json::from_slice(&text).map_err(|source| LabError::Record { path, source })
    }

    /// Removes all files of the lab, the record last: what cannot be removed can be tried again.
    pub fn forget(&self) -> Result<(), LabError> {
        for node in &self.nodes {
            remove(&self.home(node.number), fs::remove_dir_all)?;
        }
        remove(&self.directory.join(RECORD), fs::remove_file)?;
        if self.made_directory {
            remove(&self.directory, fs::remove_dir)?;
        }
        let place = Path::new(LABS).join(&self.name);
        if place.is_symlink() { remove(&place, fs::remove_file) } else { Ok(()) }
    }

    /// The node of this number.
    pub fn node(&self, number: u32) -> Result<&Node, LabError> {
        let last = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.iter().find(|node| node.number == number).ok_or(LabError::NoNode(number, last))
    }

    /// The nodes of these numbers.
    pub fn nodes(&self, numbers: &[u32]) -> Result<Vec<&Node>, LabError> {
        numbers.iter().map(|number| self.node(*number)).collect()
    }

    /// A node's directory.
    pub fn home(&self, number: u32) -> PathBuf {
        self.directory.join(number.to_string())
    }

    /// The socket that a node's engine serves.
    pub fn socket(&self, number: u32) -> PathBuf {
        self.home(number).join("sock")
    }

    /// The exec root of a node whose engine is this program's.
    pub fn exec_root(&self, number: u32) -> PathBuf {
        self.home(number).join("run")
    }

    /// Where a node's network namespace is mounted.
    pub fn namespace(&self, number: u32) -> PathBuf {
        Path::new(NAMESPACES).join(format!("shoal-{}-{number}", self.name))
    }

    /// Where the switch's network namespace is mounted.
    pub fn switch(&self) -> PathBuf {
        Path::new(NAMESPACES).join(format!("shoal-{}-switch", self.name))
    }

    /// `shoal lab COMMAND` with this lab's name where it has to be said.
    pub fn command(&self, command: &str) -> String {
        if self.name == DEFAULT_NAME {
            format!("shoal lab {command}")
        } else {
            format!("shoal lab --name {} {command}", self.name)
        }
    }
}

fn remove(path: &Path, how: fn(PathBuf) -> std::io::Result<()>) -> Result<(), LabError> {
    match how(path.to_owned()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(LabError::file(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, managers: u32, workers: u32, subnet: &str) -> Result<Lab, LabError> {
        Lab::plan(name, managers, workers, subnet.parse().unwrap(), None)
    }

    #[test]
    fn managers_come_first_and_node_one_has_the_first_address() {
        let lab = plan("lab", 2, 1, "10.77.0.0/24").unwrap();
        let seen: Vec<_> = lab.nodes.iter().map(|node| (node.number, node.address.to_string(), node.manager)).collect();
        assert_eq!(
            seen,
            [(1, "10.77.0.1".into(), true), (2, "10.77.0.2".into(), true), (3, "10.77.0.3".into(), false)]
        );
        assert!(matches!(lab.node(4), Err(LabError::NoNode(4, 3))));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for name in ["", "Lab", "1lab", "a/b", "a.b", "-x", &"x".repeat(33)] {
            assert!(matches!(plan(name, 1, 0, "10.0.0.0/24"), Err(LabError::Name(_))), "{name:?}");
        }
        assert!(matches!(plan("lab", 0, 0, "10.0.0.0/24"), Err(LabError::Empty)));
        assert!(matches!(plan("lab", 3, 4, "10.0.0.0/29"), Err(LabError::Subnet { nodes: 7, .. })));
    }

    #[test]
    fn a_name_is_said_only_where_it_must() {
        assert_eq!(plan("lab", 1, 0, "10.0.0.0/24").unwrap().command("ls"), "shoal lab ls");
        assert_eq!(plan("two", 1, 0, "10.0.0.0/24").unwrap().command("ls"), "shoal lab --name two ls");
    }
}
