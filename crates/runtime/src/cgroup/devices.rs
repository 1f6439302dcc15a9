//! Device rules for version 2 hosts, where they are a small program that the kernel runs at each access.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

use super::layout::Layout;
use super::{CgroupError, io_error};

/// Restricts the group to what `rules` allow, later rules over earlier ones. Version 1 hosts need nothing: the
/// container library writes the rules there.
pub(crate) fn ensure_device_rules(cgroup: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    match Layout::get() {
        Layout::Unified(_) => apply(&Layout::get().dir("devices", cgroup)?, rules),
        Layout::Split(_) => Ok(()),
    }
}

/// What every container may do, whatever its rules say: make any device node, and use the harmless ones.
fn defaults() -> Vec<LinuxDeviceCgroup> {
    let any = [(LinuxDeviceType::C, None, None, "m"), (LinuxDeviceType::B, None, None, "m")];
    // null, zero, full, random, urandom, tty, console, ptmx, terminals
    let known = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    let known = known.map(|(major, minor)| (LinuxDeviceType::C, Some(major), Some(minor), "rwm"));
    let terminals = [(LinuxDeviceType::C, Some(136), None, "rwm")];
    let rule = |(typ, major, minor, access): (LinuxDeviceType, Option<i64>, Option<i64>, &str)| {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(typ)
            .access(access)
            .build()
            .expect("every field is set or optional");
        rule.set_major(major).set_minor(minor);
        rule
    };
    any.into_iter().chain(known).chain(terminals).map(rule).collect()
}

fn apply(dir: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    let rules: Vec<_> = rules.iter().cloned().chain(defaults()).collect();
    let group = File::open(dir).map_err(io_error(dir))?;
    let program = load(&plan_program(&rules));
    program
        .and_then(|program| attach(group.as_raw_fd(), program.as_raw_fd()))
        .map_err(|source| CgroupError::Devices { path: dir.to_owned(), source })
}

/// An instruction of the kernel's machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination register in the low half, source in the high half.
    registers: u8,
    offset: i16,
    value: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, value }
}

/// The program: the last rule that says something about an access decides; without one it is allowed. Registers: 2 is
/// the type, 3 the access, 4 and 5 the numbers.
fn plan_program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    const LOAD: u8 = 0x61;
    let mut program = vec![
        instruction(LOAD, 2, 1, 0, 0),
        instruction(0x54, 2, 0, 0, 0xffff),
        instruction(LOAD, 3, 1, 0, 0),
        instruction(0x74, 3, 0, 0, 16),
        instruction(LOAD, 4, 1, 4, 0),
        instruction(LOAD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let rule = plan_rule(rule);
        let decides_always = rule.len() == verdict(true).len();
        program.extend(rule);
        if decides_always {
            // the kernel refuses a program with a part that is never reached
            return program;
        }
    }
    program.extend(verdict(true));
    program
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [instruction(0xb4, 0, 0, 0, i32::from(allow)), instruction(0x95, 0, 0, 0, 0)]
}

/// One rule: jumps behind itself where it does not apply.
fn plan_rule(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    const UNLESS_EQUAL: u8 = 0x55;
    let mut body = Vec::new();
    match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::B => body.push(instruction(UNLESS_EQUAL, 2, 0, 0, 1)),
        LinuxDeviceType::C | LinuxDeviceType::U => body.push(instruction(UNLESS_EQUAL, 2, 0, 0, 2)),
        _ => {}
    }
    let bit = |(letter, bit)| if rule.access().as_deref().is_none_or(|it| it.contains(letter)) { bit } else { 0 };
    let access: i32 = [('m', 1), ('r', 2), ('w', 4)].into_iter().map(bit).sum();
    if access != 7 {
        body.push(instruction(0xbc, 1, 3, 0, 0));
        body.push(instruction(0x54, 1, 0, 0, access));
        body.push(match rule.allow() {
            // allowed if all that is asked for is
            true => instruction(0x5d, 1, 3, 0, 0),
            // denied if any of it is
            false => instruction(0x15, 1, 0, 0, 0),
        });
    }
    for (register, number) in [(4, rule.major()), (5, rule.minor())] {
        if let Some(number) = number.and_then(|number| i32::try_from(number).ok()).filter(|&number| number >= 0) {
            body.push(instruction(UNLESS_EQUAL, register, 0, 0, number));
        }
    }
    let end = body.len() + 2;
    for (at, instruction) in body.iter_mut().enumerate() {
        // jumps are the instructions of class 5; they count from the next one
        if instruction.code & 7 == 5 {
            instruction.offset = i16::try_from(end - at - 1).expect("a rule is a few instructions");
        }
    }
    body.extend(verdict(rule.allow()));
    body
}

/// What `bpf` takes to load a program.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    const PROGRAM_LOAD: i32 = 5;
    const CGROUP_DEVICE: u32 = 15;
    const LICENSE: &CStr = c"Apache-2.0";
    let attributes = LoadAttributes {
        kind: CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes, the instructions and the license, all of which outlive the call
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, &attributes, size_of::<LoadAttributes>()) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What `bpf` takes to attach a program.
#[repr(C)]
struct AttachAttributes {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn attach(group: RawFd, program: RawFd) -> Result<(), Errno> {
    const PROGRAM_ATTACH: i32 = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let attributes = AttachAttributes {
        group: group.cast_unsigned(),
        program: program.cast_unsigned(),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the attributes, which outlive the call
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_ATTACH, &attributes, size_of::<AttachAttributes>()) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        allow: bool,
        typ: LinuxDeviceType,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> LinuxDeviceCgroup {
        let builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).access(access);
        let mut rule = builder.build().unwrap();
        rule.set_major(major).set_minor(minor);
        rule
    }

    /// Runs a program as the kernel would.
    fn decide(program: &[Instruction], typ: u32, major: u32, minor: u32, access: u32) -> bool {
        let context = [typ | access << 16, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, value } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let jump = match code {
                0x61 => {
                    registers[to] = context[usize::try_from(offset / 4).unwrap()].into();
                    false
                }
                0x54 => {
                    registers[to] &= value as u64;
                    false
                }
                0x74 => {
                    registers[to] >>= value;
                    false
                }
                0xbc => {
                    registers[to] = registers[from];
                    false
                }
                0xb4 => {
                    registers[to] = value as u64;
                    false
                }
                0x55 => registers[to] != value as u64,
                0x5d => registers[to] != registers[from],
                0x15 => registers[to] == value as u64,
                0x95 => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            };
            at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
        }
    }

    #[test]
    fn the_last_rule_that_applies_decides() {
        let [block, char, mknod, read, write] = [1, 2, 1, 2, 4];
        let rules = [
            rule(false, LinuxDeviceType::A, None, None, "rwm"),
            rule(true, LinuxDeviceType::B, Some(8), None, "r"),
            rule(true, LinuxDeviceType::C, Some(10), None, "rwm"),
            rule(false, LinuxDeviceType::C, Some(10), Some(229), "w"),
        ];
        let program = plan_program(&rules.into_iter().chain(defaults()).collect::<Vec<_>>());
        let cases = [
            (char, 1, 3, read | write, true),
            (char, 1, 1, read, false),
            (char, 1, 1, mknod, true),
            (block, 8, 0, read, true),
            (block, 8, 0, read | write, false),
            (char, 10, 200, write, true),
            (char, 10, 229, write, false),
            (char, 10, 229, read, true),
            (char, 136, 5, read | write, true),
        ];
        for (typ, major, minor, access, allowed) in cases {
            assert_eq!(decide(&program, typ, major, minor, access), allowed, "{typ} {major}:{minor} {access}");
        }
        let open = plan_program(&[rule(true, LinuxDeviceType::A, None, None, "rwm")]);
        assert!(decide(&open, block, 8, 0, write));
    }

    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        // beside version 1, version 2 is mounted here
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = root.into_iter().find(|root| root.join("cgroup.procs").exists()).unwrap();
        let group = root.join(format!("shoal-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let outcome = apply(&group, &[rule(false, LinuxDeviceType::A, None, None, "rwm")]);
        let script = format!(
            "echo $$ > {}/cgroup.procs && echo x > /dev/null && echo null && exec 3< /dev/kmsg && echo kmsg",
            group.display()
        );
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        super::super::remove_tree(&group).unwrap();
        outcome.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "null\n", "{output:?}");
    }
}
