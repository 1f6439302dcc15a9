//! Launchers: short-lived children in which the container library works.
//!
//! A launcher makes the container's first process, or an exec'd one, as its own sibling, so that it is the
//! supervisor's child. What the library allocates, changes about its process (dumpable, OOM score, directory) or waits
//! for stays in the launcher: the supervisor remains small and goes on serving.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcgroups::common::CgroupConfig;
use libcontainer::capabilities::CapabilityExt;
use libcontainer::container::{Container, ContainerStatus, State};
use libcontainer::notify_socket::{NotifyListener, NotifySocket};
use libcontainer::oci_spec::runtime::{
    Capabilities, Capability, Hook, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, Process, Spec,
};
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::container_main_process::container_main_process;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::user_ns::UserNamespaceConfig;
use libcontainer::validator::Validator;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::executor::{Command, Confinement};
use super::home::ensure_home;
use super::report::{self, Findings, Relay, Report};
use super::stdio::Ends;
use crate::cgroup;
use crate::job::Job;
use crate::protocol::ExecSpec;
use crate::refusal::LaunchError;
use crate::seccomp::Program;
use crate::stage;

/// Name of the socket on which a created container waits for its start.
pub(super) const START_SOCKET: &str = "start.sock";

/// What to launch.
pub(super) enum Order {
    /// The container.
    Create,
    /// A process in it, beside its first.
    Exec { spec: Box<ExecSpec>, first: Pid },
}

/// A launcher at work.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) launcher: Pid,
    pub(super) channel: OwnedFd,
    pub(super) findings: Findings,
}

impl Launch {
    /// Forks the launcher. `oom_score_adj` is what a container gets that names none.
    pub(super) fn start(job: &Job, order: &Order, ends: &Ends, oom_score_adj: &str) -> Result<Self, LaunchError> {
        let failed = |errno| report::setup_error("start a launcher", errno);
        let (channel, theirs) = report::channel().map_err(failed)?;
        // SAFETY: the supervisor has one thread, so the child may do all that the parent may
        match unsafe { fork() }.map_err(failed)? {
            ForkResult::Parent { child } => Ok(Self { launcher: child, channel, findings: Findings::default() }),
            ForkResult::Child => {
                let code = catch_unwind(AssertUnwindSafe(|| run(job, order, ends, &theirs, oom_score_adj)));
                // the supervisor's own exit handlers are not for its children
                // SAFETY: ends this process; nothing that it owns is needed any more
                unsafe { libc::_exit(code.unwrap_or(70)) }
            }
        }
    }
}

fn run(job: &Job, order: &Order, ends: &Ends, channel: &OwnedFd, oom_score_adj: &str) -> i32 {
    let mut keep = ends.raw();
    keep.push(channel.as_raw_fd());
    close_all_but(keep);
    let channel = channel.as_raw_fd();
    let outcome = set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| report::setup_error("prepare the launcher", errno))
        .and_then(|()| match order {
            Order::Create => create(job, ends, channel, oom_score_adj),
            Order::Exec { spec, first } => exec(job, spec, *first, ends, channel, oom_score_adj),
        });
    match outcome {
        Ok(pid) => {
            Report::Ready(pid).send(channel);
            0
        }
        Err(LaunchError::Setup(text)) => {
            Report::Failed(text).send(channel);
            1
        }
        Err(cause) => {
            let text = cause.to_string();
            Report::Cause(cause).send(channel);
            Report::Failed(text).send(channel);
            1
        }
    }
}

/// Nothing of the supervisor's may reach a container, not even for the moment before it runs its command.
fn close_all_but(mut keep: Vec<RawFd>) {
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if fd > from {
            // SAFETY: closes descriptors that this child has a copy of and will not use; their owners live on in the
            // parent only, for the child ends by _exit or exec and drops nothing
            unsafe { libc::syscall(libc::SYS_close_range, from, fd.saturating_sub(1), 0) };
        }
        from = fd.saturating_add(1);
    }
}

fn create(job: &Job, ends: &Ends, channel: RawFd, oom_score_adj: &str) -> Result<i32, LaunchError> {
    let mut spec = load_spec(job)?;
    let rootfs =
        spec.root().as_ref().ok_or_else(|| LaunchError::Config("the OCI configuration has no root".into())).and_then(
            |root| {
                let path = root.path();
                fs::canonicalize(path).map_err(|err| LaunchError::Setup(format!("root {}: {err}", path.display())))
            },
        )?;
    prepare_process(spec.process_mut().as_mut(), &rootfs, oom_score_adj)?;
    let socket = job.run_dir.join(START_SOCKET);
    // left by a run that was never started
    drop(fs::remove_file(&socket));
    let command = Command { channel, first: true, confinement: take_confinement(&mut spec, &job.run_dir) };
    let rootfs = enter_stage(job, &mut spec, rootfs)?;
    let args = args(job, spec, rootfs, ContainerType::InitContainer, ends, &socket, command)?;
    let pid = launch(&args, channel)?;
    prepare_console(ends)?;
    let resources = args.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    if let Some(rules) = resources.and_then(|resources| resources.devices().as_deref()) {
        cgroup::ensure_device_rules(&job.cgroup, rules).map_err(|err| LaunchError::Setup(chain(&err)))?;
    }
    Ok(pid)
}

/// Where the root file system is once this process sees no other's.
fn enter_stage(job: &Job, spec: &mut Spec, rootfs: PathBuf) -> Result<PathBuf, LaunchError> {
    let Some(stage) = &job.stage else { return Ok(rootfs) };
    match stage::enter(stage, &rootfs, spec) {
        Ok(entered) => Ok(entered.unwrap_or(rootfs)),
        Err(errno) => Err(report::setup_error("leave other root file systems behind", errno)),
    }
}

fn exec(
    job: &Job,
    exec: &ExecSpec,
    first: Pid,
    ends: &Ends,
    channel: RawFd,
    oom_score_adj: &str,
) -> Result<i32, LaunchError> {
    let mut process = exec.process.clone();
    let root = PathBuf::from(format!("/proc/{first}/root"));
    prepare_process(Some(&mut process), &root, oom_score_adj)?;
    let mut spec = join_spec(load_spec(job)?, process, first)?;
    let (ended, until_exec) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| report::setup_error("make a pipe", errno))?;
    let socket = job.run_dir.join(format!("exec-{}.sock", std::process::id()));
    let kind = ContainerType::TenantContainer { exec_notify_fd: until_exec.as_raw_fd() };
    let rootfs = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let command = Command { channel, first: false, confinement: take_confinement(&mut spec, &job.run_dir) };
    if let Some(stage) = &job.stage {
        stage::enter_empty(stage).map_err(|errno| report::setup_error("leave root file systems behind", errno))?;
    }
    let args = args(job, spec, rootfs, kind, ends, &socket, command)?;
    let started = launch(&args, channel).and_then(|pid| {
        prepare_console(ends)?;
        let start = NotifySocket::new(&socket).notify_container_start();
        start.map(|()| pid).map_err(|err| LaunchError::Setup(chain(&err)))
    });
    drop(fs::remove_file(&socket));
    let pid = started?;
    drop(until_exec);
    // ends when the command runs, or tells why it does not
    let mut text = String::new();
    fs::File::from(ended).read_to_string(&mut text).map_err(|err| LaunchError::Setup(err.to_string()))?;
    if text.is_empty() { Ok(pid) } else { Err(LaunchError::Setup(text)) }
}

fn load_spec(job: &Job) -> Result<Spec, LaunchError> {
    let path = job.bundle.join("config.json");
    let failed = |err: &dyn std::error::Error| LaunchError::Config(format!("{}: {}", path.display(), chain(err)));
    let mut spec = Spec::load(&path).map_err(|err| failed(&err))?;
    Validator::validate_spec(&spec).map_err(|err| failed(&err))?;
    refuse_unsupported(&spec)?;
    spec.canonicalize_rootfs(&job.bundle).map_err(|err| failed(&err))?;
    Ok(spec)
}

/// What the container library leaves to its callers, or ignores.
fn refuse_unsupported(spec: &Spec) -> Result<(), LaunchError> {
    let some = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty());
    let late = spec.hooks().as_ref().is_some_and(|hooks| some(hooks.poststart()) || some(hooks.poststop()));
    let linux = spec.linux().as_ref();
    let label = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    let selinux = spec.process().as_ref().is_some_and(|process| label(process.selinux_label()))
        || linux.is_some_and(|linux| label(linux.mount_label()));
    let refused = [
        (late, "poststart and poststop hooks"),
        (linux.is_some_and(|linux| linux.intel_rdt().is_some()), "linux.intelRdt"),
        (selinux, "SELinux labels"),
    ];
    match refused.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(LaunchError::Config(format!("{what} are not supported"))),
        None => Ok(()),
    }
}

/// What the container library needs said in its own way.
fn prepare_process(process: Option<&mut Process>, root: &Path, oom_score_adj: &str) -> Result<(), LaunchError> {
    let process = process.ok_or_else(|| LaunchError::Config("the OCI configuration has no process".into()))?;
    ensure_home(process, root);
    // it takes `false` for a reason to load the seccomp filter late, without the privilege that takes
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    limit_capabilities(process);
    // not the supervisor's own
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(oom_score_adj.parse().ok());
    }
    Ok(())
}

/// Where the seccomp profile is compiled already, takes it and what depends on it out of the container library's hands.
fn take_confinement(spec: &mut Spec, run_dir: &Path) -> Option<Confinement> {
    let profile = spec.linux().as_ref()?.seccomp().as_ref()?;
    let filter = Program::load(run_dir, profile)?;
    spec.linux_mut().as_mut()?.set_seccomp(None);
    let process = spec.process_mut().as_mut()?;
    let capabilities = process.capabilities().clone();
    process.set_capabilities(None);
    Some(Confinement { filter, capabilities, no_new_privileges: process.no_new_privileges() == Some(true) })
}

/// Takes away the capabilities that this host does not let us give (an old kernel, or a daemon that is itself in a
/// container): as runc does, for asking for "all" would fail otherwise.
fn limit_capabilities(process: &mut Process) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let Some(bounding) = bounding.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else { return };
    let has = |capability: &Capability| bounding >> capability.to_cap().index() & 1 == 1;
    let limit = |set: &Option<Capabilities>| set.as_ref().map(|set| set.iter().copied().filter(has).collect());
    if let Some(mut sets) = process.capabilities().clone() {
        sets.set_bounding(limit(sets.bounding()));
        sets.set_effective(limit(sets.effective()));
        sets.set_inheritable(limit(sets.inheritable()));
        sets.set_permitted(limit(sets.permitted()));
        sets.set_ambient(limit(sets.ambient()));
        process.set_capabilities(Some(sets));
    }
}

/// The spec of a process that joins the container: its namespaces by their first process, its seccomp filter.
fn join_spec(mut spec: Spec, process: Process, first: Pid) -> Result<Spec, LaunchError> {
    let config = |err: &dyn std::error::Error| LaunchError::Config(chain(err));
    let linux =
        spec.linux().as_ref().ok_or_else(|| LaunchError::Config("the OCI configuration has no linux".into()))?;
    let namespaces = linux.namespaces().iter().flatten().map(|namespace| {
        let name = match namespace.typ().to_string().as_str() {
            "network" => "net".to_owned(),
            "mount" => "mnt".to_owned(),
            other => other.to_owned(),
        };
        let path = PathBuf::from(format!("/proc/{first}/ns/{name}"));
        LinuxNamespaceBuilder::default().typ(namespace.typ()).path(path).build()
    });
    let namespaces = namespaces.collect::<Result<Vec<LinuxNamespace>, _>>().map_err(|err| config(&err))?;
    let mut joined = LinuxBuilder::default().namespaces(namespaces).build().map_err(|err| config(&err))?;
    joined.set_seccomp(linux.seccomp().clone());
    joined.set_personality(linux.personality().clone());
    spec.set_process(Some(process)).set_linux(Some(joined)).set_hooks(None);
    Ok(spec)
}

fn args(
    job: &Job,
    spec: Spec,
    rootfs: PathBuf,
    container_type: ContainerType,
    ends: &Ends,
    socket: &Path,
    command: Command,
) -> Result<ContainerArgs, LaunchError> {
    let raw = |end: &Option<OwnedFd>| end.as_ref().map(AsRawFd::as_raw_fd);
    let status = match container_type {
        ContainerType::InitContainer => ContainerStatus::Creating,
        ContainerType::TenantContainer { .. } => ContainerStatus::Running,
    };
    let mut state = State::new(&job.id, status, None, job.bundle.clone());
    state.annotations = spec.annotations().clone();
    Ok(ContainerArgs {
        container_type,
        syscall: SyscallType::default(),
        user_ns_config: UserNamespaceConfig::new(&spec).map_err(|err| LaunchError::Config(chain(&err)))?,
        spec: Rc::new(spec),
        rootfs,
        console_socket: raw(&ends.console),
        notify_listener: NotifyListener::new(socket).map_err(|err| LaunchError::Setup(chain(&err)))?,
        preserve_fds: 0,
        container: Some(Container { state, root: job.run_dir.clone() }),
        cgroup_config: CgroupConfig {
            cgroup_path: job.cgroup.clone(),
            systemd_cgroup: false,
            container_name: job.id.clone(),
        },
        detached: true,
        executor: Box::new(command),
        no_pivot: false,
        stdin: raw(&ends.stdin),
        stdout: raw(&ends.stdout),
        stderr: raw(&ends.stderr),
        as_sibling: true,
        pid_file: None,
    })
}

/// Runs the container library; the new process is the supervisor's child.
fn launch(args: &ContainerArgs, channel: RawFd) -> Result<i32, LaunchError> {
    let process = args.spec.process().as_ref();
    let cwd = process.map(|process| process.cwd().clone()).unwrap_or_default();
    // a second launch in one process does not happen, so none is set yet
    drop(tracing::subscriber::set_global_default(Relay { channel, cwd }));
    if let Some(score) = process.and_then(Process::oom_score_adj) {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|err| LaunchError::Setup(format!("set the OOM score to {score}: {err}")))?;
    }
    // processes of the container, which share its user namespace, must not look into this one
    nix::sys::prctl::set_dumpable(false).map_err(|errno| report::setup_error("hide the launcher", errno))?;
    ensure_keyring(&args.cgroup_config.container_name)?;
    container_main_process(args).map(|pid| pid.as_raw()).map_err(|err| LaunchError::Setup(chain(&err)))
}

/// A session keyring of the container's own: it would share the daemon's otherwise.
fn ensure_keyring(id: &str) -> Result<(), LaunchError> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = CString::new(format!("_ses.{id}")).unwrap_or_default();
    // SAFETY: reads the name, which outlives the call
    match Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }) {
        // a kernel without keyrings has none to share
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(report::setup_error("make a session keyring", errno)),
    }
}

fn prepare_console(ends: &Ends) -> Result<(), LaunchError> {
    ends.prepare_console().map_err(|errno| report::setup_error("prepare the terminal", errno))
}

/// An error with its causes.
fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        let cause = err.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = err.source();
    }
    text
}
