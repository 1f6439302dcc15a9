//! Seccomp filters, compiled once.
//!
//! Compiling Docker's profile costs more processor time than all the rest of starting a container, and nearly every
//! container has the same one. So the daemon compiles a profile when it first sees it and hands the program to each
//! supervisor (`RUN_DIR/seccomp.bpf`); its launchers load that. A profile that asks for more than a plain program
//! (a listener for notifications) is left to the container library, as is one that does not compile: the library
//! then tells why.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;

/// Name of the program's file in a run directory.
const FILE: &str = "seccomp.bpf";
/// How many profiles are remembered.
const REMEMBERED: usize = 16;

/// The part of an OCI configuration that matters here.
#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    linux: Option<PeekLinux>,
}

#[derive(Deserialize)]
struct PeekLinux {
    #[serde(default)]
    seccomp: Option<LinuxSeccomp>,
}

/// Puts the compiled profile of a bundle into a run directory; takes an old one away where there is none to put.
pub(crate) fn ensure_program(bundle: &Path, run_dir: &Path) -> io::Result<()> {
    let path = run_dir.join(FILE);
    // what is wrong with the configuration is for the launcher to tell
    let config = fs::read(bundle.join("config.json")).unwrap_or_default();
    let profile = serde_json::from_slice::<Peek>(&config).ok().and_then(|peek| peek.linux?.seccomp);
    match profile.and_then(|profile| program(&profile)) {
        Some(program) => fs::write(path, &*program),
        None => match fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        },
    }
}

/// From the cache, or compiled; `None`: the library should do it.
fn program(profile: &LinuxSeccomp) -> Option<Arc<[u8]>> {
    static CACHE: Mutex<Vec<(LinuxSeccomp, Arc<[u8]>)>> = Mutex::new(Vec::new());
    if !is_plain(profile) {
        return None;
    }
    // held while compiling: fifty containers that start at once compile once
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = cache.iter().find(|(known, _)| known == profile) {
        return Some(Arc::clone(program));
    }
    let program: Arc<[u8]> = export(&compile(profile).ok()?)?.into();
    if cache.len() == REMEMBERED {
        cache.remove(0);
    }
    cache.push((profile.clone(), Arc::clone(&program)));
    Some(program)
}

fn is_plain(profile: &LinuxSeccomp) -> bool {
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    let rules = profile.syscalls().iter().flatten();
    let waits = |flag: &LinuxSeccompFilterFlag| *flag == LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv;
    !notifies(profile.default_action())
        && !rules.map(LinuxSyscall::action).any(notifies)
        && profile.listener_path().is_none()
        && !profile.flags().iter().flatten().any(waits)
}

/// A profile's rules in the library's form.
fn compile(profile: &LinuxSeccomp) -> Result<ScmpFilterContext, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default)?;
    for arch in profile.architectures().iter().flatten() {
        let name = serde_json::to_value(arch).ok().and_then(|name| name.as_str().map(str::to_owned));
        filter.add_arch(name.unwrap_or_default().parse::<ScmpArch>()?)?;
    }
    // a tree instead of a chain; older libraries know only the chain
    filter.set_ctl_optimize(2).map(drop).unwrap_or_default();
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret());
        if action == default {
            continue;
        }
        // a name that is not known here cannot be called here either
        for syscall in rule.names().iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            add(&mut filter, action, syscall, rule.args().as_deref().unwrap_or_default())?;
        }
    }
    Ok(filter)
}

/// The kernel's program for a filter.
fn export(filter: &ScmpFilterContext) -> Option<Vec<u8>> {
    let mut file = File::from(memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC).ok()?);
    filter.export_bpf(&file).ok()?;
    file.rewind().ok()?;
    let mut program = Vec::new();
    file.read_to_end(&mut program).ok()?;
    Some(program)
}

fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    syscall: ScmpSyscall,
    args: &[LinuxSeccompArg],
) -> Result<(), SeccompError> {
    let comparison = |arg: &LinuxSeccompArg| {
        let index = u32::try_from(arg.index()).unwrap_or(u32::MAX);
        ScmpArgCompare::new(index, operator(arg.op(), arg.value_two()), arg.value())
    };
    let distinct: HashSet<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    match (args.is_empty(), distinct.len() == args.len()) {
        (true, _) => filter.add_rule(action, syscall).map(drop),
        (false, true) => {
            let all: Vec<_> = args.iter().map(comparison).collect();
            filter.add_rule_conditional(action, syscall, &all).map(drop)
        }
        // one argument compared twice cannot be one rule; it means "or", as in runc
        (false, false) => {
            args.iter().try_for_each(|arg| filter.add_rule_conditional(action, syscall, &[comparison(arg)]).map(drop))
        }
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    let errno = errno.and_then(|errno| i32::try_from(errno).ok()).unwrap_or(libc::EPERM);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(u16::try_from(errno).unwrap_or(u16::MAX)),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
    }
}

fn operator(operator: LinuxSeccompOperator, second: Option<u64>) -> ScmpCompareOp {
    match operator {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        // the mask comes first, then what to find under it
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(second.unwrap_or(0)),
    }
}

/// A compiled profile, ready to be put on a process.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Instructions of eight bytes, as the kernel has them.
    instructions: Vec<u64>,
    flags: libc::c_uint,
}

impl Program {
    /// The program of a run directory, for this profile.
    pub(crate) fn load(run_dir: &Path, profile: &LinuxSeccomp) -> Option<Self> {
        let bytes = fs::read(run_dir.join(FILE)).ok()?;
        let (instructions, rest) = bytes.as_chunks::<8>();
        let flag = |flag: &LinuxSeccompFilterFlag| match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 32,
        };
        let whole = rest.is_empty() && !instructions.is_empty() && instructions.len() <= usize::from(u16::MAX);
        whole.then(|| Self {
            instructions: instructions.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect(),
            flags: profile.flags().iter().flatten().map(flag).fold(0, |flags, flag| flags | flag),
        })
    }

    /// Puts it on this process, for good.
    pub(crate) fn apply(&self) -> Result<(), Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.instructions.len()).map_err(|_| Errno::E2BIG)?,
            filter: self.instructions.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel reads the program, which outlives the call; an instruction is eight bytes, aligned to four
        let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, &program) };
        Errno::result(done).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile(value: serde_json::Value) -> LinuxSeccomp {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_profile_is_compiled_once_and_found_again() {
        let one =
            profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"}]}));
        let first = program(&one).unwrap();
        assert!(!first.is_empty() && first.len().is_multiple_of(8));
        assert!(Arc::ptr_eq(&first, &program(&one).unwrap()));
        let other = profile(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
        assert_ne!(*first, *program(&other).unwrap());
    }

    #[test]
    fn what_needs_a_listener_is_left_to_the_library() {
        let notify =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        assert!(program(&profile(notify)).is_none());
        let listener = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"});
        assert!(program(&profile(listener)).is_none());
    }

    #[test]
    fn the_program_of_an_earlier_run_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        fs::write(&config, json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}).to_string()).unwrap();
        ensure_program(dir.path(), dir.path()).unwrap();
        assert!(Program::load(dir.path(), &profile(json!({"defaultAction": "SCMP_ACT_ALLOW"}))).is_some());
        fs::write(&config, json!({"linux": {}}).to_string()).unwrap();
        ensure_program(dir.path(), dir.path()).unwrap();
        assert!(!dir.path().join(FILE).exists());
    }
}
