//! Registries on loopback: Debian's `docker-registry`, and ones that lie.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Failure, Result};
use crate::http::Address;
use crate::images::{Image, digest};
use crate::launch::Daemon;

/// Debian's registry, on a free port of loopback, with its storage in a directory of its own; both go when this is dropped.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    directory: PathBuf,
    child: Child,
}

/// What is on a push's way besides the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Layers as they are.
    None,
    /// Layers in gzip.
    Gzip,
}

impl Registry {
    /// Starts a registry; `None` where the program is not installed.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start(name: &str) -> Result<Option<Self>> {
        let directory = std::env::temp_dir().join(format!("registry-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Self::serve(directory.clone(), &directory.join("storage"), |program| Command::new(program))
    }

    /// Another registry with the same storage, in a daemon's network namespace.
    ///
    /// # Errors
    /// It does not answer.
    pub fn again(&self, daemon: &Daemon) -> Result<Option<Self>> {
        let directory = daemon.directory().join("registry");
        fs::create_dir_all(&directory)?;
        Self::serve(directory, &self.directory.join("storage"), |program| daemon.inside(program))
    }

    fn serve(directory: PathBuf, storage: &Path, command: impl Fn(&str) -> Command) -> Result<Option<Self>> {
        let Some(program) = PROGRAM.into_iter().find(|path| Path::new(path).exists()) else { return Ok(None) };
        let port = free_port()?;
        let host = format!("127.0.0.1:{port}");
        let storage = storage.display();
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {storage}\nhttp:\n  addr: {host}\n"
        );
        fs::write(directory.join("config.yml"), text)?;
        let child = command(program)
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Self { host, directory, child };
        let end = Instant::now() + Duration::from_secs(20);
        // seen from its own network namespace, wherever that is
        let sockets = format!("/proc/{}/net/tcp", registry.child.id());
        let listening = format!("0100007F:{port:04X} 00000000:0000 0A");
        while !fs::read_to_string(&sockets).is_ok_and(|lines| lines.contains(&listening)) {
            if Instant::now() > end {
                return Err(Failure::wrong("docker-registry does not listen"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(registry))
    }

    /// Reads every blob of an image and throws it away; how many seconds that takes.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn read_all(&self, repository: &str, tag: &str) -> Result<f64> {
        let address = Address::Tcp(self.host.clone());
        let start = Instant::now();
        let manifest = address
            .request("GET", &format!("/v2/{repository}/manifests/{tag}"), &[("Accept", MANIFEST)], b"")?
            .json()?;
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let digest = layer["digest"].as_str().unwrap_or_default();
            let mut stream = address.open("GET", &format!("/v2/{repository}/blobs/{digest}"), &[], b"")?;
            std::io::copy(&mut stream, &mut std::io::sink())?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Pushes an image under this name and tag; the digest of its manifest.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn push(&self, image: &Image, repository: &str, tag: &str, compression: Compression) -> Result<String> {
        let (manifest, blobs) = manifest_of(image, compression)?;
        for blob in &blobs {
            self.put_blob(repository, blob)?;
        }
        self.put_manifest(repository, tag, MANIFEST, &manifest)?;
        Ok(digest(&manifest))
    }

    /// Pushes a list of manifests: one of another machine first, and the image of this digest for ours.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn push_list(&self, repository: &str, tag: &str, entries: &[(&str, &str, usize)]) -> Result<()> {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(architecture, digest, size)| json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"architecture": architecture, "os": "linux"}}))
            .collect();
        let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": entries}).to_string();
        self.put_manifest(repository, tag, LIST, list.as_bytes())
    }

    fn put_blob(&self, repository: &str, blob: &[u8]) -> Result<()> {
        let address = Address::Tcp(self.host.clone());
        let begun = address.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"")?.status(202)?;
        let location = begun.header("location").unwrap_or_default().to_owned();
        let path = location.split_once(&self.host).map_or(location.as_str(), |(_, path)| path);
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}digest={}", digest(blob));
        address.request("PUT", &path, &[("Content-Type", "application/octet-stream")], blob)?.status(201).map(drop)
    }

    fn put_manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &[u8]) -> Result<()> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        Address::Tcp(self.host.clone())
            .request("PUT", &path, &[("Content-Type", kind)], manifest)?
            .status(201)
            .map(drop)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let ended =
            self.child.kill().and_then(|()| self.child.wait()).and_then(|_| fs::remove_dir_all(&self.directory));
        if let Err(error) = ended {
            eprintln!("taking down a registry: {error}");
        }
    }
}

/// Where Debian's package puts its program.
const PROGRAM: [&str; 2] = ["/usr/bin/docker-registry", "/bin/docker-registry"];
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An image's manifest, and its blobs with the configuration first.
fn manifest_of(image: &Image, compression: Compression) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let config = image.config_file();
    let mut layers = Vec::new();
    let mut blobs = vec![config.clone()];
    for layer in &image.layers {
        let (kind, blob) = match compression {
            Compression::None => ("application/vnd.docker.image.rootfs.diff.tar", layer.clone()),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(layer)?;
                ("application/vnd.docker.image.rootfs.diff.tar.gzip", encoder.finish()?)
            }
        };
        layers.push(json!({"mediaType": kind, "digest": digest(&blob), "size": blob.len()}));
        blobs.push(blob);
    }
    let config = json!({"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest(&config), "size": config.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    Ok((manifest.to_string().into_bytes(), blobs))
}

/// How a lying registry lies about the last layer of its only image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The bytes are others than the digest says.
    Corrupt,
    /// More bytes come than the manifest says.
    TooLong,
    /// The connection ends in the middle, every time.
    CutShort,
    /// The connection ends in the middle the first time, and a range is served afterwards.
    CutOnce,
    /// Nothing comes any more after some bytes.
    Stalls,
    /// The layer is answered with 500.
    Broken,
    /// The manifest is no manifest.
    NoManifest,
    /// It wants this user and password (basic).
    WantsPassword,
}

/// A registry that lies; it ends when this is dropped.
#[derive(Debug)]
pub struct Liar {
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// How often a layer was asked for.
    pub asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

/// What a liar serves: bodies with their content type, by path.
type Shelf = BTreeMap<String, (&'static str, Vec<u8>)>;

impl Liar {
    /// Serves the image as `liar:1`, with this lie.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(image: &Image, lie: Lie) -> Result<Self> {
        let (manifest, blobs) = manifest_of(image, Compression::Gzip)?;
        let mut shelf = Shelf::new();
        let last = format!("/v2/liar/blobs/{}", digest(blobs.last().map_or(&[], Vec::as_slice)));
        for blob in blobs {
            shelf.insert(format!("/v2/liar/blobs/{}", digest(&blob)), ("application/octet-stream", blob));
        }
        let manifest = if lie == Lie::NoManifest { b"{\"schemaVersion\": 2}".to_vec() } else { manifest };
        shelf.insert(format!("/v2/liar/manifests/{}", digest(&manifest)), (MANIFEST, manifest.clone()));
        shelf.insert("/v2/liar/manifests/1".to_owned(), (MANIFEST, manifest));
        shelf.insert("/v2/".to_owned(), ("application/json", b"{}".to_vec()));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (shelf, count, ended) = (Arc::new(shelf), Arc::clone(&asked), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (shelf, last, count, ended) =
                    (Arc::clone(&shelf), last.clone(), Arc::clone(&count), Arc::clone(&ended));
                // a client that hangs up is part of the play
                thread::spawn(move || serve(&stream, &shelf, &last, lie, &count, &ended).is_ok());
            }
        });
        Ok(Self { host, asked, stop })
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if TcpStream::connect(&self.host).is_err() {
            eprintln!("a lying registry is gone already");
        }
    }
}

/// Answers the requests of one connection.
fn serve(
    stream: &TcpStream,
    shelf: &Shelf,
    last: &str,
    lie: Lie,
    asked: &AtomicUsize,
    ended: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let (method, path) = (head.split(' ').next().unwrap_or_default(), head.split(' ').nth(1).unwrap_or_default());
        if lie == Lie::WantsPassword && !head.to_lowercase().contains("authorization: basic dxnlcjpzzwnyzxq=") {
            write!(
                out,
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"liar\"\r\nContent-Length: 2\r\n\r\n{{}}"
            )?;
            continue;
        }
        let Some((kind, body)) = shelf.get(path) else {
            write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{{}}")?;
            continue;
        };
        let length = body.len();
        let header =
            format!("Content-Type: {kind}\r\nDocker-Content-Digest: {}\r\nAccept-Ranges: bytes\r\n", digest(body));
        if method == "HEAD" {
            write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n")?;
            continue;
        }
        if path != last {
            write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n")?;
            out.write_all(body)?;
            continue;
        }
        let time = asked.fetch_add(1, Ordering::Relaxed);
        match lie {
            Lie::Corrupt => {
                let mut body = body.clone();
                body[length / 2] ^= 0xff;
                write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n")?;
                out.write_all(&body)?;
            }
            Lie::TooLong => {
                write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {}\r\n\r\n", length + 100_000)?;
                out.write_all(body)?;
                out.write_all(&[b'x'; 100_000])?;
            }
            Lie::Broken => write!(out, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{{}}")?,
            Lie::CutOnce if time > 0 => {
                let range = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                let from = range
                    .and_then(|range| range.split('-').next().and_then(|from| from.parse::<usize>().ok()))
                    .unwrap_or(0)
                    .min(length);
                let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
                write!(
                    out,
                    "HTTP/1.1 {status}\r\n{header}Content-Range: bytes {from}-{}/{length}\r\nContent-Length: {}\r\n\r\n",
                    length - 1,
                    length - from
                )?;
                out.write_all(&body[from..])?;
            }
            Lie::CutShort | Lie::CutOnce => {
                write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n")?;
                out.write_all(&body[..length / 2])?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
            Lie::Stalls => {
                write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n")?;
                out.write_all(&body[..length / 2])?;
                while !ended.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(100));
                }
                return stream.shutdown(std::net::Shutdown::Both);
            }
            Lie::NoManifest | Lie::WantsPassword => {
                write!(out, "HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n")?;
                out.write_all(body)?;
            }
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
