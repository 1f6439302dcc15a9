//! A container's pid 1 for `--init`: runs the command as its child, passes signals on, reaps what nobody else does.

use std::ffi::CString;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork, getpgrp, setpgid, tcsetpgrp};

use crate::errno;

/// What a process does to itself, and what a background process is told about its terminal: not passed on.
const OWN: [Signal; 9] = [
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Runs `-- COMMAND ARG…`, waits for it and ends with its exit code, or 128 plus the signal that killed it; 127 or 126
/// where it cannot be run. To be called by a process of one thread.
pub fn init_main(args: &[String]) -> ! {
    let command = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let code = run(command).unwrap_or_else(|errno| {
        eprintln!("init: {}", errno::text(errno));
        1
    });
    std::process::exit(code)
}

fn run(command: &[String]) -> nix::Result<i32> {
    let command: Result<Vec<CString>, _> = command.iter().map(|arg| CString::new(arg.as_bytes())).collect();
    let Some((program, args)) = command.ok().and_then(|args| args.first().cloned().zip(Some(args))) else {
        eprintln!("init: a command is needed");
        return Ok(2);
    };
    let mut signals = SigSet::all();
    OWN.into_iter().for_each(|signal| signals.remove(signal));
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    for it in [Signal::SIGTTIN, Signal::SIGTTOU] {
        // SAFETY: ignoring has no handler of ours; giving the terminal away from the background then succeeds
        unsafe { signal(it, SigHandler::SigIgn) }?;
    }
    // SAFETY: this process has one thread, so the child may do all that the parent may
    match unsafe { fork() }? {
        ForkResult::Child => exec(&program, &args),
        ForkResult::Parent { child } => follow(child, &signals),
    }
}

fn exec(program: &CString, args: &[CString]) -> nix::Result<i32> {
    // a process group of its own, in the foreground if there is a terminal; a shell could not control its jobs otherwise
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    match tcsetpgrp(std::io::stdin(), getpgrp()) {
        Ok(()) | Err(Errno::ENOTTY | Errno::ENXIO | Errno::EBADF | Errno::EPERM | Errno::EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    for it in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE] {
        // SAFETY: the default action is no handler of ours
        unsafe { signal(it, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let Err(errno) = execvp(program, args);
    eprintln!("init: exec {}: {}", program.to_string_lossy(), errno::text(errno));
    std::process::exit(if errno == Errno::ENOENT { 127 } else { 126 })
}

/// Passes signals on and reaps until the child has ended.
fn follow(child: Pid, signals: &SigSet) -> nix::Result<i32> {
    loop {
        let mut number = 0;
        // SAFETY: reads the set and writes the number, both of which outlive the call
        match unsafe { libc::sigwait(signals.as_ref(), &mut number) } {
            0 if number == libc::SIGCHLD => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            // SAFETY: sends a signal, which may be a real-time one and have no name in nix, to a child not yet reaped
            0 => match Errno::result(unsafe { libc::kill(child.as_raw(), number) }) {
                Ok(_) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            },
            errno => return Err(Errno::from_raw(errno)),
        }
    }
}

/// Reaps all that have ended; the child's code if it is among them.
fn reap(child: Pid) -> nix::Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
