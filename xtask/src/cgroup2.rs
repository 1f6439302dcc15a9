//! `cargo xtask cgroup2`: the runtime's tests where control groups are version 2 alone, whatever this machine has: under
//! Debian's own kernel, in an emulated machine that holds nothing but busybox and the tests.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use conformance::client::finish;
use conformance::error::{Failure, Result};
use serde_json::Value;

use crate::packages::{self, For};
use crate::shell::{cargo, demand_root, root, run, say, watch};

/// The kernel is not installed, only unpacked: the machine keeps its own.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What an emulated machine is too slow for (100 MB of output), and what it cannot know: how much of an executable
/// supervisors share, where only one runs.
const SKIPPED: &[&str] = &["a_hundred_megabytes", "many_empty_lines", "keeps_less_than_three_mebibytes"];
const PASSED: &str = "the tests have passed";

/// The first program of the machine. It moves from the first root, which cannot be left, to another; then the tests run.
const INIT: &str = "#!/bin/busybox sh
if [ ! -e /moved ]; then
  /bin/busybox mount -t tmpfs -o mode=755,size=80% root /new
  /bin/busybox cp -a /bin /etc /init /tests /helper /new/
  cd /new && /bin/busybox mkdir -p dev proc sys tmp run .HELPER_DIR && /bin/busybox ln -s /helper .HELPER
  /bin/busybox touch moved
  exec /bin/busybox switch_root /new /init
fi
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# as systemd leaves it: the root group without processes of its own
mkdir /sys/fs/cgroup/init
echo 1 > /sys/fs/cgroup/init/cgroup.procs
ip link set lo up
/tests --test-threads 2 SKIPPED && echo PASSED
poweroff -f
";

/// Builds the tests and a machine, and runs them in it; whether all passed.
///
/// # Errors
/// The machine cannot be made.
pub fn check() -> Result<bool> {
    demand_root()?;
    if !cfg!(target_arch = "x86_64") {
        return Err(Failure::wrong("this needs an x86-64 machine: it runs Debian's kernel for those"));
    }
    packages::ensure(For::Emulation)?;
    let dir = root().join("target/cgroup2");
    let kernel = kernel(&dir)?;
    let (tests, helper) = tests()?;
    let disk = dir.join("initrd");
    pack(&dir.join("root"), &tests, &helper, &disk)?;
    let mut machine = Command::new("qemu-system-x86_64");
    machine.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "3072", "-smp", "2", "-nographic", "-no-reboot"]);
    machine.arg("-kernel").arg(kernel).arg("-initrd").arg(disk);
    machine.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    let mut passed = false;
    watch(&mut machine, |line| passed |= line.trim_end() == PASSED)?;
    Ok(passed)
}

/// Debian's kernel, downloaded once.
fn kernel(dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join("kernel");
    if !unpacked.exists() {
        say("downloading Debian's kernel");
        fs::create_dir_all(dir)?;
        let mut depends = Command::new("apt-cache");
        depends.args(["depends", KERNEL]);
        let depends = finish(depends, None)?.ok()?;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")?.trim().into());
        let package = package.ok_or_else(|| Failure::wrong(format!("{KERNEL} depends on no kernel")))?;
        run(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(dir))?;
        let archive = only(dir, |name| name.starts_with(package))?;
        // under its name only once it is whole
        let begun = dir.join("kernel.part");
        run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&begun))?;
        fs::rename(begun, &unpacked)?;
    }
    only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))
}

fn only(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let found = fs::read_dir(dir)?.flatten().find(|entry| wanted(&entry.file_name().to_string_lossy()));
    found.map(|entry| entry.path()).ok_or_else(|| Failure::wrong(format!("{} has no such file", dir.display())))
}

/// The program of the runtime's container tests, and the one that they run as supervisor, each for itself.
fn tests() -> Result<(PathBuf, PathBuf)> {
    say("building the runtime's tests");
    let words = ["test", "--no-run", "--package", "shoal-runtime", "--test", "containers"];
    let output = cargo(&words).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output()?;
    let messages: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |name: &str| {
        let built = messages.iter().filter(|message| message["target"]["name"] == name);
        let path = built.filter_map(|message| message["executable"].as_str()).next_back();
        path.map(PathBuf::from).ok_or_else(|| Failure::wrong(format!("cargo built no {name}")))
    };
    Ok((program("containers")?, program("shoal-runtime-test")?))
}

/// Makes the machine's first file system. The helper is found by the path that the tests were built with.
fn pack(dir: &Path, tests: &Path, helper: &Path, disk: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    for name in ["bin", "etc", "new"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox"))?;
    symlink("busybox", dir.join("bin/sh"))?;
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    for (from, name) in [(tests, "tests"), (helper, "helper")] {
        run(Command::new("strip").arg("-o").arg(dir.join(name)).arg(from))?;
    }
    let skipped: Vec<String> = SKIPPED.iter().map(|name| format!("--skip {name}")).collect();
    let init = INIT
        .replace("HELPER_DIR", &helper.parent().unwrap_or(helper).display().to_string())
        .replace("HELPER", &helper.display().to_string())
        .replace("SKIPPED", &skipped.join(" "))
        .replace("PASSED", PASSED);
    fs::write(dir.join("init"), init)?;
    fs::set_permissions(dir.join("init"), fs::Permissions::from_mode(0o755))?;
    let mut archive = Command::new("sh");
    archive.args(["-c", "find . | busybox cpio -o -H newc | gzip -1"]).current_dir(dir).stdout(File::create(disk)?);
    run(&mut archive)
}
