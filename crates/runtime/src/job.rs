//! What a supervisor is asked to run.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Everything a supervisor needs to know about its container. Written to `RUN_DIR/job.json` by
/// [`Supervisor::spawn`](crate::Supervisor::spawn), where it stays for as long as the container is running. All paths
/// are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The container's id: letters, digits, `_`, `-`, `.`.
    pub id: String,
    /// Directory that holds the OCI `config.json`. `root.path` in it names a root filesystem that is mounted already;
    /// a network namespace that it names exists already.
    pub bundle: PathBuf,
    /// Under the exec root, gone after a reboot: socket, job, own complaints. One directory per container; the caller makes
    /// it and removes it once the container has ended.
    pub run_dir: PathBuf,
    /// Under the data root, survives a reboot: exit record, and the place where output for a slow attacher is parked.
    pub state_dir: PathBuf,
    /// The control group, absolute from the root of every hierarchy (`/shoal/ID`). Takes the place of
    /// `linux.cgroupsPath`; made by the supervisor and removed by it once the container has ended.
    pub cgroup: PathBuf,
    /// The container has a terminal (must agree with `process.terminal` in the OCI config).
    pub tty: bool,
    /// Keep stdin open for attachers. Without it the container reads `/dev/null` (or nothing, on a terminal).
    pub open_stdin: bool,
    /// The first attacher's end of input is the container's end of input (pipes only, as in Docker).
    pub stdin_once: bool,
    /// Where stdout and stderr are logged.
    pub log: LogConfig,
    /// Initial size of the terminal.
    pub console_size: Option<ConsoleSize>,
    /// The directory of the stage ([`ensure_stage`](crate::ensure_stage)), where the root file system is mounted on it.
    #[serde(default)]
    pub stage: Option<PathBuf>,
}

impl Job {
    pub(crate) fn job_path(run_dir: &Path) -> PathBuf {
        run_dir.join("job.json")
    }

    /// Complaints of the supervisor itself (a panic, a log file that cannot be written).
    pub fn stderr_path(run_dir: &Path) -> PathBuf {
        run_dir.join("supervisor.log")
    }

    /// Where the durable exit record is written.
    pub fn exit_path(state_dir: &Path) -> PathBuf {
        state_dir.join("exit.json")
    }
}

/// The log driver, as far as it is the supervisor's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogConfig {
    /// Docker's `json-file` format.
    JsonFile(JsonFileLog),
    /// Nothing is kept.
    None,
}

/// A log in Docker's `json-file` format: one object per line, `{"log":…,"stream":…,"time":…}`; lines longer than
/// 16 KiB in parts, where only the last part ends with `\n`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFileLog {
    /// The file; rotated files are `PATH.1` (newest) and up.
    pub path: PathBuf,
    /// Rotate before the file would grow beyond so many bytes; `None`: never.
    pub max_size: Option<u64>,
    /// How many files to keep in all, at least 1. With 1, a full file is truncated.
    pub max_file: u32,
    /// Rotated files are gzip'ed to `PATH.N.gz`.
    pub compress: bool,
    /// Extra attributes of each line (log options `labels`, `env`, `tag`).
    pub attrs: BTreeMap<String, String>,
}

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// The socket of a run directory by a name that fits into a socket address (107 bytes) however deep the directory is.
pub(crate) struct SocketAddress {
    dir: File,
}

impl SocketAddress {
    pub(crate) fn open(run_dir: &Path) -> io::Result<Self> {
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(run_dir)?;
        Ok(Self { dir })
    }

    /// Valid while `self` lives.
    pub(crate) fn path(&self) -> PathBuf {
        self.sibling("supervisor.sock")
    }

    /// Another socket in the directory.
    pub(crate) fn sibling(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()).into()
    }
}
