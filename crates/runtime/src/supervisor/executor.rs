//! The last step in the new process: find the command, put the process into a clean state, run it.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libcontainer::capabilities::drop_privileges;
use libcontainer::oci_spec::runtime::{LinuxCapabilities, Process, Spec};
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{AccessFlags, eaccess, execve};

use super::report::{Report, setup_error};
use crate::errno;
use crate::refusal::LaunchError;
use crate::seccomp::Program;

/// Runs the command as runc does, with its messages.
#[derive(Clone)]
pub(super) struct Command {
    /// Where an exact error goes.
    pub(super) channel: RawFd,
    /// The container's first process: once it has been started there is nobody to tell but its stderr.
    pub(super) first: bool,
    /// What the container library was not asked to do.
    pub(super) confinement: Option<Confinement>,
}

/// A compiled seccomp filter, which is loaded here, and what has to come after it.
#[derive(Clone)]
pub(super) struct Confinement {
    pub(super) filter: Program,
    pub(super) capabilities: Option<LinuxCapabilities>,
    /// The process has given up new privileges, so the filter needs none and can come last.
    pub(super) no_new_privileges: bool,
}

impl Confinement {
    fn apply(&self) -> Result<(), LaunchError> {
        let load = || self.filter.apply().map_err(|errno| setup_error("load the seccomp filter", errno));
        if !self.no_new_privileges {
            load()?;
        }
        if let Some(capabilities) = &self.capabilities {
            drop_privileges(capabilities, create_syscall().as_ref())
                .map_err(|err| LaunchError::Setup(format!("drop capabilities: {err}")))?;
        }
        if self.no_new_privileges { load() } else { Ok(()) }
    }
}

impl Executor for Command {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let confined = self.confinement.as_ref().map_or(Ok(()), Confinement::apply);
        let found = confined.and_then(|()| process(spec)).and_then(find).map(drop);
        found.map_err(|cause| {
            let text = cause.to_string();
            Report::Cause(cause).send(self.channel);
            ExecutorValidationError::ArgValidationError(text)
        })
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // the environment is handed to execve as the spec has it
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let cause = match process(spec).and_then(run) {
            Ok(never) => match never {},
            Err(cause) => cause,
        };
        if self.first {
            eprintln!("{cause}");
            std::process::exit(255);
        }
        let text = cause.to_string();
        Report::Cause(cause).send(self.channel);
        Err(ExecutorError::Other(text))
    }
}

fn process(spec: &Spec) -> Result<&Process, LaunchError> {
    spec.process().as_ref().ok_or_else(|| LaunchError::Config("the OCI configuration has no process".into()))
}

/// Where the command is, by the container's `PATH`.
fn find(process: &Process) -> Result<PathBuf, LaunchError> {
    let name = process.args().as_ref().and_then(|args| args.first()).map_or("", String::as_str);
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Errno::EACCES) => Err(LaunchError::CommandNotExecutable(format!("exec: {name:?}: permission denied"))),
            Err(Errno::EISDIR) => Err(LaunchError::CommandNotExecutable(format!("exec: {name:?}: is a directory"))),
            Err(errno) => {
                Err(LaunchError::CommandNotFound(format!("exec: {name:?}: stat {name}: {}", errno::text(errno))))
            }
        };
    }
    let env = process.env().as_deref().unwrap_or_default();
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    let found = dirs.map(|dir| Path::new(dir).join(name)).find(|path| !name.is_empty() && check(path).is_ok());
    found.ok_or_else(|| LaunchError::CommandNotFound(format!("exec: {name:?}: executable file not found in $PATH")))
}

/// A file that may be executed.
fn check(path: &Path) -> Result<(), Errno> {
    let meta = fs::metadata(path).map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
    if meta.is_dir() {
        return Err(Errno::EISDIR);
    }
    eaccess(path, AccessFlags::X_OK)
}

fn run(process: &Process) -> Result<std::convert::Infallible, LaunchError> {
    let path = find(process)?;
    let strings = |list: &Option<Vec<String>>| -> Vec<CString> {
        // an entry with a zero byte cannot be said to the kernel
        list.iter().flatten().filter_map(|entry| CString::new(entry.as_bytes()).ok()).collect()
    };
    let (args, env) = (strings(process.args()), strings(process.env()));
    let failed = |errno| {
        let text = format!("exec {}: {}", path.display(), errno::text(errno));
        match errno {
            Errno::ENOENT => LaunchError::CommandNotFound(text),
            _ => LaunchError::CommandNotExecutable(text),
        }
    };
    reset_signals().map_err(failed)?;
    let command = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    execve(&command, &args, &env).map_err(failed)
}

/// The supervisor blocks signals, the Rust runtime ignores `SIGPIPE`, and whoever started the daemon may have ignored
/// others; a command expects none of that.
fn reset_signals() -> nix::Result<()> {
    // a kernel sigaction: handler, flags, restorer, mask
    let default = [0u64; 4];
    for number in 1..=64 {
        // SAFETY: reads the action, which outlives the call; the default action is no handler of ours. By system call,
        // for the C library keeps two signals to itself. Two others cannot be set, which does no harm.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &default, std::ptr::null_mut::<u64>(), 8) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(args: &[&str], path: &str) -> Result<PathBuf, LaunchError> {
        let mut process = Process::default();
        process.set_args(Some(args.iter().map(|&arg| arg.to_owned()).collect()));
        process.set_env(Some(vec![format!("PATH={path}")]));
        find(&process)
    }

    #[test]
    fn a_bare_name_is_looked_up_and_directories_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("true")).unwrap();
        let path = format!("{}:/nosuch:/bin", dir.path().display());
        assert_eq!(find_in(&["true"], &path).unwrap(), Path::new("/bin/true"));
    }

    #[test]
    fn failures_have_dockers_words_and_codes() {
        let cases = [
            ("nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
            ("/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory", 127),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied", 126),
            ("/etc", "exec: \"/etc\": is a directory", 126),
            ("", "exec: \"\": executable file not found in $PATH", 127),
        ];
        for (name, text, code) in cases {
            let err = find_in(&[name], "/bin").unwrap_err();
            assert_eq!((err.to_string().as_str(), err.exit_code()), (text, code));
        }
    }
}
