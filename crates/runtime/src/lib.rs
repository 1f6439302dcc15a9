//! OCI containers, each under a supervisor process of its own.
//!
//! Owns: the supervisor (a re-execution of the binary that reaps one container, owns its stdio, writes its log and
//! records its exit), the protocol spoken with it, its client for the daemon, control groups, and the small `init`
//! that `--init` puts into a container. Leaves to others: what the OCI `config.json` says, root filesystems,
//! networks, and what a container is called.
//!
//! # Life of a container
//!
//! 1. The caller writes a bundle (`config.json`, its root filesystem mounted) and fills a [`Job`].
//! 2. [`Supervisor::spawn`] starts `EXE supervise RUN_DIR`. The supervisor creates the container: namespaces,
//!    mounts and limits are in place, the command has been looked up, and waits.
//! 3. [`Supervisor::attach`] any number of times, then [`Supervisor::start`].
//! 4. [`Supervisor::wait`] gives the [`ExitRecord`]. By then the log is complete, the record is on disk
//!    ([`ExitRecord::load`]), every process and every control group of the container is gone.
//!
//! The supervisor outlives the daemon. A new daemon calls [`Supervisor::connect`] for each container that it knows to
//! have been running; the answer is the live supervisor or the exit record, never nothing.
//!
//! # Entry points for the binary
//!
//! Call these before anything else in `main` (no thread may have been started):
//!
//! ```no_run
//! let args: Vec<String> = std::env::args().collect();
//! match args.get(1).map(String::as_str) {
//!     Some(shoal_runtime::SUPERVISE) => shoal_runtime::supervise_main(&args[2..]),
//!     Some(shoal_runtime::INIT) => shoal_runtime::init_main(&args[2..]),
//!     _ => {}
//! }
//! ```

pub mod cgroup;
mod client;
mod errno;
mod init;
mod job;
mod memory;
mod protocol;
mod record;
mod refusal;
mod seal;
mod seccomp;
mod stage;
mod supervisor;

pub use client::{
    AttachReader, AttachStream, AttachWriter, CallError, ConnectError, Connected, Frame, SpawnError, Supervisor,
};
pub use init::init_main;
pub use job::{ConsoleSize, Job, JsonFileLog, LogConfig};
pub use memory::{limit_free_memory, release_free_memory};
pub use protocol::{AttachOptions, ExecSpec, ExecState, State, Status, Target};
pub use record::{ExitRecord, ExitStatus, RecordError};
pub use refusal::{LaunchError, Refusal};
pub use seal::{SealError, ensure_sealed_exe};
pub use stage::{Stage, StageError, ensure_stage};
pub use supervisor::supervise_main;

/// First argument that makes the binary a supervisor; the second is the run directory.
pub const SUPERVISE: &str = "supervise";

/// First argument that makes the binary a container's pid 1; `--` and the command follow.
pub const INIT: &str = "init";
