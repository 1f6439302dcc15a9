//! What it costs to run a container: `start_cost [COUNT [crun]]` runs `true` so many times, one after the other, under
//! this crate's supervisor or under crun, and prints milliseconds of processor time (user, system) and of wall clock
//! for each. Processor time counts every process that took part. Needs root and `/bin/busybox`; crun also needs
//! control group hierarchies that it likes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};
use shoal_runtime::{Job, LogConfig, Supervisor};

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u32 = args.next().map_or(20, |count| count.parse().expect("a count"));
    let crun = args.next().is_some();
    let dir = tempfile::tempdir().expect("a directory");
    let (bundle, root) = (dir.path().join("bundle"), dir.path().join("rootfs"));
    for dir in ["bin", "dev", "proc", "sys", "etc"] {
        fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    fs::create_dir_all(&bundle).expect("a directory");
    fs::copy("/bin/busybox", root.join("bin/true")).expect("busybox");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let exe = std::env::current_exe().expect("own path").with_file_name("../shoal-runtime-test");
    let started = Instant::now();
    for number in 0..count {
        let id = format!("start-cost-{}-{number}", std::process::id());
        fs::write(bundle.join("config.json"), spec(&root, &id).to_string()).expect("config.json");
        if crun {
            let status = Command::new("crun").args(["run", "--bundle"]).arg(&bundle).arg(&id).status();
            assert!(status.expect("crun").success());
        } else {
            runtime.block_on(run(&exe, dir.path(), &id));
        }
    }
    let wall = started.elapsed().as_secs_f64() * 1e3 / f64::from(count);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let each = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e3 / f64::from(count);
    println!("user {:.1} ms, system {:.1} ms, wall {wall:.1} ms", each(usage.user_time()), each(usage.system_time()));
}

async fn run(exe: &Path, dir: &Path, id: &str) {
    let job = Job {
        id: id.to_owned(),
        bundle: dir.join("bundle"),
        run_dir: dir.join("run").join(id),
        state_dir: dir.join("state").join(id),
        cgroup: format!("/{id}").into(),
        tty: false,
        open_stdin: false,
        stdin_once: false,
        log: LogConfig::None,
        console_size: None,
        stage: None,
    };
    let (supervisor, _) = Supervisor::spawn(exe, &job).await.expect("created");
    supervisor.start().await.expect("started");
    assert_eq!(supervisor.wait().await.expect("ended").status.code, 0);
    // its parent, this process, reaps it and so gets its times
    while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).is_ok() {
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
    }
}

fn spec(root: &Path, id: &str) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"];
    json!({
        "ociVersion": "1.0.2",
        "hostname": "box",
        "root": {"path": root},
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin", "HOME=/"], "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "pid"}, {"type": "network"},
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "seccomp": seccomp(),
        },
    })
}

/// A filter of the size of Docker's: what the kernel headers name, but for a few.
fn seccomp() -> Value {
    let headers = fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").unwrap_or_default();
    let names = headers.lines().filter_map(|line| line.strip_prefix("#define __NR_")?.split(' ').next());
    let refused = ["mount", "umount2", "kexec_load", "init_module", "bpf", "ptrace", "reboot", "swapon"];
    let names: Vec<&str> = names.filter(|name| !refused.contains(name)).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW"},
        ],
    })
}
