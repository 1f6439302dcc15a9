//! What the tests share: images made by hand, Debian's registry, and registries that misbehave.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shoal_image::{Digest, ImageStore, Progress, ProgressEvent, Reference, RegistryConfig, StoreConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub mod image;

/// A store in a directory of its own.
pub struct Store {
    pub store: ImageStore,
    pub root: PathBuf,
    pub dir: Option<tempfile::TempDir>,
}

/// A file system of a few megabytes; unmounted when dropped.
pub struct SmallDisk {
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

/// Debian's registry on a loopback port; stopped when dropped.
pub struct Registry {
    process: Child,
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// A registry that does what a test wants.
pub struct Fake {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: String,
    pub body: String,
}

/// A raw answer, and what follows it.
pub struct Reply {
    pub head: String,
    pub body: Vec<u8>,
    pub then: Then,
}

pub enum Then {
    Close,
    Stall,
    Endless,
}

/// All of a store under one directory.
pub fn config(root: &Path, registry: RegistryConfig) -> StoreConfig {
    StoreConfig { root: root.to_owned(), mounts: root.join("mounts"), registry }
}

/// Collects progress.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<ProgressEvent>>>);

impl Store {
    pub fn new() -> Self {
        Self::with(RegistryConfig {
            stall_timeout: Duration::from_millis(500),
            max_download_attempts: 1,
            ..RegistryConfig::default()
        })
    }

    pub fn with(registry: RegistryConfig) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Self::at(dir.path(), registry);
        Self { dir: Some(dir), ..store }
    }

    pub fn at(dir: &Path, registry: RegistryConfig) -> Self {
        let root = dir.join("image");
        let store = ImageStore::open(config(&root, registry)).expect("opens");
        Self { store, root, dir: None }
    }

    /// Closes the store and keeps its directory. Waits for the background thread, which may have it open a moment
    /// longer.
    pub fn close(self) -> Option<tempfile::TempDir> {
        let Self { store, root, dir } = self;
        drop(store);
        let lock = std::fs::File::open(root.join("lock")).expect("there");
        lock.lock().expect("free at last");
        dir
    }

    /// The names in one of the store's directories.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let path = self.root.join(dir);
        let mut names: Vec<String> = std::fs::read_dir(path)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Requires that soon (threads that were stopped have to notice it) nothing is left but what is given.
    pub fn assert_only(&self, layers: usize, blobs: usize) {
        let counts = || ["layers", "blobs/sha256", "tmp", "trash"].map(|dir| self.names(dir).len());
        let expected = [layers, blobs, 0, 0];
        wait_for(&format!("{expected:?} in layers, blobs, tmp and trash, not {:?}", counts()), || counts() == expected);
    }
}

impl SmallDisk {
    pub fn mount(bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let options = format!("size={bytes}");
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).expect("made");
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .expect("mounts");
        Self { path, _dir: dir }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).expect("ours to unmount");
    }
}

impl Registry {
    pub fn start() -> Self {
        Self::with("")
    }

    /// `extra` is more of its configuration.
    pub fn with(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let address = free_address();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{extra}",
            storage.display()
        );
        std::fs::write(&config, text).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry runs");
        wait_for("the registry", || TcpStream::connect(address).is_ok());
        Self { process, address, _dir: dir }
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).expect("valid")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().expect("ours to kill");
        self.process.wait().expect("ended");
    }
}

impl Fake {
    pub async fn serve(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, seen) = (Arc::new(handler), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, handler.clone(), seen.clone()));
            }
        });
        Self { address, requests }
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).expect("valid")
    }

    pub fn count(&self, part: &str) -> usize {
        self.requests.lock().expect("no panic").iter().filter(|request| request.path.contains(part)).count()
    }
}

async fn answer<H: Fn(&Request) -> Reply>(
    mut stream: tokio::net::TcpStream,
    handler: Arc<H>,
    seen: Arc<Mutex<Vec<Request>>>,
) {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        text.extend_from_slice(&buffer[..count]);
        // a TLS client hello: answer as an HTTP server does
        if text.first() == Some(&0x16) {
            stream
                .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
                .await
                .ok();
            return;
        }
        if count == 0 {
            return;
        }
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let mut words = head.split(' ');
    let request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        headers: head.to_lowercase(),
        body: String::from_utf8_lossy(&text[end + 4..]).into_owned(),
    };
    let reply = handler(&request);
    seen.lock().expect("no panic").push(request);
    let head = format!("HTTP/1.1 {}\r\nConnection: close\r\n\r\n", reply.head);
    if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(&reply.body).await.is_err() {
        return;
    }
    match reply.then {
        Then::Close => {
            stream.shutdown().await.ok();
        }
        // until the client goes away
        Then::Stall => while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {},
        Then::Endless => while stream.write_all(&[b'x'; 4096]).await.is_ok() {},
    }
}

impl Reply {
    pub fn ok(media_type: &str, body: &[u8]) -> Self {
        let head = format!("200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {}", body.len());
        Self { head, body: body.to_vec(), then: Then::Close }
    }

    pub fn error(status: &str, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self { head: format!("{status}\r\nContent-Length: {}", body.len()), body: body.into_bytes(), then: Then::Close }
    }

    pub fn raw(head: &str, body: &[u8], then: Then) -> Self {
        Self { head: head.to_owned(), body: body.to_vec(), then }
    }
}

impl Events {
    pub fn sink(&self) -> Progress {
        let events = self.0.clone();
        Progress::new(move |event| events.lock().expect("no panic").push(event))
    }

    /// Each event as JSON.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic").iter().map(|event| serde_json::to_string(event).expect("json")).collect()
    }

    /// The distinct states of one layer, in order.
    pub fn states(&self, digest: &Digest) -> Vec<String> {
        let events = self.0.lock().expect("no panic");
        let id = digest.short();
        let mut states: Vec<String> = events
            .iter()
            .filter(|event| event.id.as_deref() == Some(&id))
            .filter_map(|event| event.status.clone())
            .collect();
        states.dedup();
        states
    }
}

pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound")
}

/// Polls for something that no event tells of.
pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_there() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}
