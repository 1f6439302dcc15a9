//! A machine for each test: an engine with its own roots in network and mount namespaces of its own, and one small image.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bollard_stubs::models::{ContainerCreateBody, ContainerInspectResponse, ContainerState, HostConfig};
use bytes::Bytes;
use futures::StreamExt;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use shoal_engine::{
    AttachOptions, Attached, Engine, EngineConfig, FetchMessage, LogsOptions, RemoveOptions, WaitCondition,
};
use shoal_image::Digest;
use tempfile::TempDir;

const APPLETS: &str = "sh sleep true false echo cat yes head seq kill ls id mount ps dd tail test printf env touch mkdir \
                       hostname wc stat grep trap wget ip";
/// Long enough for a loaded machine; no test waits so long for what comes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The machine.
pub struct Machine {
    pub dir: TempDir,
    /// Unique on the real machine, for what namespaces do not hide (control groups).
    pub name: String,
    pub engine: Arc<Engine>,
}

/// Runs a test on a machine of its own, and removes its containers whatever becomes of it.
pub fn on_machine<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Arc<Machine>) -> F + Send + 'static) {
    in_namespaces(|dir, name| async move {
        let engine = open(dir.path(), &name).await;
        load_image(&engine).await;
        let machine = Arc::new(Machine { dir, name, engine });
        run_and_clean(machine.clone(), test(machine)).await;
    });
}

/// The same without an engine: the test opens it.
pub fn in_namespaces<F: Future<Output = ()>>(test: impl FnOnce(TempDir, String) -> F + Send + 'static) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root");
        run("mount --make-rprivate /");
        run("ip link set lo up");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let name = format!("t{:x}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(test(TempDir::new().expect("a directory"), name));
    };
    thread::Builder::new().spawn(body).expect("a thread").join().expect("the test");
}

/// Runs a test to its end or its panic, then removes all containers.
pub async fn run_and_clean(machine: Arc<Machine>, test: impl Future<Output = ()> + Send + 'static) {
    let outcome = tokio::spawn(test).await;
    let all = shoal_engine::ListOptions { all: true, ..Default::default() };
    for container in machine.engine.list(all).await.expect("a list") {
        let options = RemoveOptions { force: true, volumes: true };
        // one that is just going is as good as gone
        machine.engine.remove(&container.id.expect("an id"), options).await.ok();
    }
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        std::fs::remove_dir(Path::new(root).join(&machine.name)).ok();
    }
    for controller in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        std::fs::remove_dir(controller.path().join(&machine.name)).ok();
    }
    outcome.expect("the test");
}

pub fn config(dir: &Path, name: &str) -> EngineConfig {
    let mut config = EngineConfig::new(dir.join("data"), dir.join("exec"), env!("CARGO_BIN_EXE_shoal-engine-test"));
    config.cgroup_parent = format!("/{name}");
    config.bridge.name = name.to_owned();
    config
}

pub async fn open(dir: &Path, name: &str) -> Arc<Engine> {
    Engine::open(config(dir, name)).await.expect("the engine opens")
}

/// Loads `busybox:latest`; `/data` in it has a file, `nobody` is a user.
pub async fn load_image(engine: &Arc<Engine>) {
    let archive = archive("busybox:latest", json!({ "Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"] }));
    load(engine, archive).await;
}

pub async fn load(engine: &Arc<Engine>, archive: Vec<u8>) {
    let stream = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(archive))]);
    let messages: Vec<FetchMessage> = engine.load(stream, true).collect().await;
    assert!(!messages.iter().any(|m| matches!(m, FetchMessage::Failed { .. })), "{messages:?}");
}

/// A `docker load` archive with busybox in it.
pub fn archive(reference: &str, config: serde_json::Value) -> Vec<u8> {
    let layer = layer();
    let diff = Digest::of(&layer);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let config = serde_json::to_vec(&config).expect("json");
    let name = format!("{}.json", Digest::of(&config).hex());
    let manifest = json!([{ "Config": name, "RepoTags": [reference], "Layers": ["layer.tar"] }]);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in
        [(name.as_str(), &config), ("layer.tar", &layer), ("manifest.json", &manifest.to_string().into_bytes())]
    {
        append(&mut tar, name, data, 0o644);
    }
    tar.into_inner().expect("an archive")
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "data", "root"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if dir == "data" { 0o750 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, dir, std::io::empty()).expect("a directory");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|p| Path::new(p).exists()).expect("busybox-static");
    append(&mut tar, "bin/busybox", &std::fs::read(busybox).expect("busybox"), 0o755);
    for applet in APPLETS.split_whitespace() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a link");
    }
    append(&mut tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nowhere:/bin/false\n", 0o644);
    append(&mut tar, "etc/group", b"root:x:0:\nnogroup:x:65534:\nextra:x:77:nobody\n", 0o644);
    append(&mut tar, "data/from-image", b"content\n", 0o640);
    tar.into_inner().expect("a layer")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, data).expect("a file");
}

pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output().expect("runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A container of a shell script, without a network, since that is quicker.
pub fn shell(script: &str) -> ContainerCreateBody {
    let host = HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() };
    with_host(script, host)
}

pub fn with_host(script: &str, host: HostConfig) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

impl Machine {
    /// Creates and starts a container.
    pub async fn start(&self, name: &str, body: ContainerCreateBody) -> String {
        let id = self.engine.create(Some(name), None, body).await.expect("create").id;
        self.engine.start(name).await.expect("start");
        id
    }

    /// Runs a container to its end; gives its exit code and all it wrote.
    pub async fn run(&self, name: &str, body: ContainerCreateBody) -> (i64, String) {
        self.engine.create(Some(name), None, body).await.expect("create");
        let wait = self.engine.wait(name, WaitCondition::NextExit).expect("wait");
        self.engine.start(name).await.expect("start");
        let code = wait.done().await.status_code;
        (code, self.log(name).await)
    }

    pub async fn log(&self, name: &str) -> String {
        let options = LogsOptions { stdout: true, stderr: true, ..LogsOptions::default() };
        let lines = Box::pin(self.engine.logs(name, options).await.expect("logs"));
        let lines: Vec<_> =
            lines.map(|line| String::from_utf8_lossy(&line.expect("a line").line).into_owned()).collect().await;
        lines.concat()
    }

    /// Waits for a line in a log.
    pub async fn wait_for_line(&self, name: &str, wanted: &str) {
        let options = LogsOptions { stdout: true, stderr: true, follow: true, ..LogsOptions::default() };
        let mut lines = Box::pin(self.engine.logs(name, options).await.expect("logs"));
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = lines.next().await {
                if line.expect("a line").line.starts_with(wanted.as_bytes()) {
                    return true;
                }
            }
            false
        });
        assert!(found.await.expect("in time"), "{wanted:?} in the log of {name}");
    }

    pub async fn inspect(&self, name: &str) -> ContainerInspectResponse {
        self.engine.inspect(name, false).await.expect("inspect")
    }

    pub async fn state(&self, name: &str) -> ContainerState {
        self.inspect(name).await.state.expect("a state")
    }

    pub async fn attach(&self, name: &str) -> Attached {
        let options =
            AttachOptions { stream: true, stdin: true, stdout: true, stderr: true, ..AttachOptions::default() };
        self.engine.attach(name, options).await.expect("attach")
    }

    /// Waits until a look at a container shows what is wanted.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&ContainerInspectResponse) -> bool) {
        let events = self.engine.events(shoal_engine::EventsOptions::default()).expect("events");
        let mut events = Box::pin(events);
        let reached = async {
            while !wanted(&self.inspect(name).await) {
                events.next().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} does not become {what}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// All that comes out.
pub async fn read_all(attached: &mut Attached) -> String {
    let mut all = Vec::new();
    while let Some(output) = attached.output.next().await {
        all.extend_from_slice(&output.bytes);
    }
    String::from_utf8_lossy(&all).into_owned()
}
