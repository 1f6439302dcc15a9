//! A container to try things on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_runtime::{
    AttachReader, ConsoleSize, ExecSpec, ExitRecord, Frame, Job, JsonFileLog, LogConfig, SpawnError, Supervisor, cgroup,
};
use tempfile::TempDir;

const APPLETS: &str = "sh sleep true false echo cat yes head seq kill ls stty id mount ps dd tail test printf env touch \
                       mkdir readlink nproc tr sort wc od sync trap usleep";
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The binary of `tests/helper/bin.rs`.
pub fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shoal-runtime-test"))
}

pub struct Container {
    pub dir: TempDir,
    pub job: Job,
    pub spec: Value,
}

impl Container {
    pub fn new(args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let id = format!("shoal-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = |name: &str| dir.path().join(name);
        let job = Job {
            bundle: path("bundle"),
            run_dir: path("run"),
            state_dir: path("state"),
            cgroup: PathBuf::from(format!("/{id}")),
            id,
            tty: false,
            open_stdin: false,
            stdin_once: false,
            log: LogConfig::JsonFile(JsonFileLog {
                path: path("log"),
                max_size: None,
                max_file: 1,
                compress: false,
                attrs: BTreeMap::new(),
            }),
            console_size: None,
            stage: None,
        };
        fs::create_dir_all(&job.bundle).unwrap();
        make_rootfs(&path("rootfs"));
        let spec = spec(args, &path("rootfs"));
        Self { dir, job, spec }
    }

    pub fn shell(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    pub fn with_tty(mut self, height: u16, width: u16) -> Self {
        self.job.tty = true;
        self.job.open_stdin = true;
        self.job.console_size = Some(ConsoleSize { height, width });
        self.spec["process"]["terminal"] = json!(true);
        self
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn write_bundle(&self) {
        fs::write(self.job.bundle.join("config.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
    }

    /// Creates the container.
    pub async fn spawn(&self) -> Result<(Supervisor, i32), SpawnError> {
        self.write_bundle();
        Supervisor::spawn(exe(), &self.job).await
    }

    /// Creates and starts it.
    pub async fn start(&self) -> Supervisor {
        let (supervisor, _) = self.spawn().await.unwrap();
        supervisor.start().await.unwrap();
        supervisor
    }

    /// Runs it to its end.
    pub async fn run(&self) -> ExitRecord {
        self.start().await.wait().await.unwrap()
    }

    /// `(stream, text)` of each entry of the log.
    pub fn log(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap();
        let field = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|entry| (field(&entry, "stream"), field(&entry, "log")))
            .collect()
    }

    pub fn stdout(&self) -> String {
        self.log().into_iter().filter(|(stream, _)| stream == "stdout").map(|(_, text)| text).collect()
    }

    /// Waits until the container has written this.
    pub async fn wait_for_output(&self, text: &str) {
        eventually("the container writes", || self.stdout().contains(text)).await;
    }

    /// Nothing is left of it in any control group.
    pub fn assert_no_cgroup(&self) {
        assert_eq!(cgroup::pids(&self.job.cgroup).unwrap(), Vec::<i32>::new());
        let name = self.job.cgroup.strip_prefix("/").unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            assert!(!hierarchy.unwrap().path().join(name).exists());
        }
    }

    pub fn exec(&self, id: &str, args: &[&str]) -> ExecSpec {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(args);
        process["terminal"] = json!(false);
        ExecSpec { id: id.into(), process: serde_json::from_value(process).unwrap(), open_stdin: false }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("supervisor: {:?}", fs::read_to_string(Job::stderr_path(&self.job.run_dir)));
        }
        cgroup::kill(&self.job.cgroup).and_then(|()| cgroup::remove(&self.job.cgroup)).unwrap();
    }
}

/// Asks until it is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All that is written to a stream: stdout, stderr, and the last frame.
pub async fn read_all(reader: &mut AttachReader) -> (String, String, Frame) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match reader.next().await {
            Frame::Stdout(data) => stdout.extend_from_slice(&data),
            Frame::Stderr(data) => stderr.extend_from_slice(&data),
            last => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(stdout), text(stderr), last);
            }
        }
    }
}

/// Reads until this has been written to stdout.
pub async fn read_until(reader: &mut AttachReader, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        match reader.next().await {
            Frame::Stdout(data) => read.push_str(std::str::from_utf8(&data).unwrap()),
            other => panic!("{other:?} after {read:?}"),
        }
    }
    read
}

fn make_rootfs(root: &Path) {
    for dir in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n").unwrap();
}

fn spec(args: &[&str], rootfs: &Path) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "hostname": "box",
        "root": {"path": rootfs, "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "oomScoreAdj": 0,
        },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "pid"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}
