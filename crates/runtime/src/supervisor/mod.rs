//! The supervisor process of one container.
//!
//! One thread, one loop around `poll`. [`Core`] holds the state; `requests` answers clients, `events` follows the
//! kernel, `ending` brings the container to its end. Whatever may block or allocate much is done by a launcher, a
//! forked child.

mod client;
mod core;
mod ending;
mod events;
mod executor;
mod home;
mod launch;
mod log;
mod outbox;
mod process;
mod report;
mod requests;
mod stdio;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::prctl::{set_child_subreaper, set_name};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdin, setsid};

use self::core::Core;
use crate::job::Job;

/// The process that [`Supervisor::spawn`](crate::Supervisor::spawn) starts: creates the container of a run directory,
/// serves its socket (descriptor 0) and leaves when the container has ended. To be called by a process of one thread.
pub fn supervise_main(args: &[String]) -> ! {
    let code = match args {
        [run_dir] => match run(Path::new(run_dir)) {
            Ok(()) => 0,
            Err(err) => {
                eprintln!("supervisor: {err}");
                1
            }
        },
        _ => {
            eprintln!("supervisor: one argument is needed, the run directory");
            2
        }
    };
    std::process::exit(code)
}

fn run(run_dir: &Path) -> io::Result<()> {
    let job: Job = serde_json::from_slice(&fs::read(Job::job_path(run_dir))?)?;
    close_inherited();
    // what is made for containers, and what they start with, does not depend on the daemon's habits
    umask(Mode::from_bits_truncate(0o022));
    let listener = take_listener()?;
    // a session of its own: what is sent to the daemon's terminal or process group does not come here
    setsid()?;
    std::env::set_current_dir("/")?;
    set_name(c"shoal-supervise")?;
    // in the host's pid namespace, the container's orphans come here to be reaped
    set_child_subreaper(true)?;
    let signals = block_signals()?;
    let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj")?.trim().to_owned();
    // rather any of its processes than the one that knows them; refused in a user namespace
    drop(fs::write("/proc/self/oom_score_adj", "-999"));
    Core::new(job, listener, signals, oom_score_adj).run();
    Ok(())
}

/// Whatever the daemon left open by mistake ends here.
fn close_inherited() {
    // SAFETY: this process has just begun and has opened nothing that it keeps
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// The socket that was bound before this process began. Descriptor 0 becomes `/dev/null`.
fn take_listener() -> io::Result<UnixListener> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    dup2_stdin(fs::File::open("/dev/null")?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// No signal ends a supervisor but `SIGKILL`; children are followed by `SIGCHLD`.
fn block_signals() -> nix::Result<SignalFd> {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGPIPE] {
        blocked.add(signal);
    }
    blocked.thread_block()?;
    let mut followed = SigSet::empty();
    followed.add(Signal::SIGCHLD);
    SignalFd::with_flags(&followed, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
