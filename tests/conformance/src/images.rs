//! Builds images without an engine and without a registry: Debian's static busybox, and the `clock` of `examples/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::client::Engine;
use crate::error::{Failure, Result};

/// Where Debian's package `busybox-static` puts its program.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// The search path that images set.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image: its layers and what its configuration says.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name and tag.
    pub reference: String,
    /// Uncompressed layers, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The `config` object of its configuration.
    pub config: Value,
}

/// A layer in the making.
pub struct Layer(Builder<Vec<u8>>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Layer({} bytes)", self.0.get_ref().len())
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    /// Adds an entry of any kind under any name, however odd.
    #[must_use]
    pub fn entry(mut self, kind: EntryType, name: &str, link: &str, data: &[u8], mode: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        // not set_path: it refuses the very names that some tests are about
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).expect("writing to memory does not fail");
        self
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, "", b"", mode)
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, data: &[u8], mode: u32) -> Self {
        self.entry(EntryType::Regular, name, "", data, mode)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"", 0o777)
    }

    /// The layer as a tar archive.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory does not fail")
    }
}

impl Image {
    /// The image's configuration file.
    #[must_use]
    pub fn config_file(&self) -> Vec<u8> {
        let ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> =
            ids.iter().map(|_| json!({"created": "2026-01-01T00:00:00Z", "created_by": "images"})).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let file = json!({
            "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": ids}, "history": history,
        });
        file.to_string().into_bytes()
    }

    /// The image's id.
    #[must_use]
    pub fn id(&self) -> String {
        digest(&self.config_file())
    }

    /// The image as an archive for `docker load`.
    #[must_use]
    pub fn archive(&self) -> Vec<u8> {
        let (config, name) = (self.config_file(), format!("{}.json", hex(&self.config_file())));
        let mut archive = Layer::default().file(&name, &config, 0o644);
        let mut layers = Vec::new();
        for layer in &self.layers {
            let path = format!("{}/layer.tar", hex(layer));
            archive = archive.file(&path, layer, 0o644);
            layers.push(path);
        }
        let manifest = json!([{"Config": name, "RepoTags": [self.reference], "Layers": layers}]);
        archive.file("manifest.json", manifest.to_string().as_bytes(), 0o644).finish()
    }

    /// The image as an archive in OCI layout.
    #[must_use]
    pub fn oci_archive(&self) -> Vec<u8> {
        let config = self.config_file();
        let mut archive = Layer::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
        archive = archive.file(&format!("blobs/sha256/{}", hex(&config)), &config, 0o644);
        let mut layers = Vec::new();
        for layer in &self.layers {
            archive = archive.file(&format!("blobs/sha256/{}", hex(layer)), layer, 0o644);
            layers.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": layer.len()}));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        });
        let manifest = manifest.to_string().into_bytes();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": format!("docker.io/{}", self.reference)},
        }]});
        archive = archive.file(&format!("blobs/sha256/{}", hex(&manifest)), &manifest, 0o644);
        archive.file("index.json", index.to_string().as_bytes(), 0o644).finish()
    }
}

/// The image `busybox:latest`: every applet of Debian's static busybox, and users and groups for the tests of `--user`.
///
/// # Errors
/// busybox-static is not installed.
pub fn busybox() -> Result<Image> {
    Ok(Image {
        reference: "busybox:latest".to_owned(),
        layers: vec![base_layer()?],
        config: json!({"Env": [PATH], "Cmd": ["sh"]}),
    })
}

/// The image `shoal/clock:VERSION`: busybox with the clock on top.
///
/// # Errors
/// busybox-static is not installed, or the clock cannot be built.
pub fn clock(version: &str) -> Result<Image> {
    let program = std::fs::read(clock_program()?)?;
    let layer = Layer::default().directory("usr/bin", 0o755).file("usr/bin/clock", &program, 0o755).finish();
    Ok(Image {
        reference: format!("shoal/clock:{version}"),
        layers: vec![base_layer()?, layer],
        config: json!({"Env": [PATH, format!("CLOCK_VERSION={version}")], "Entrypoint": ["clock"], "StopSignal": "SIGKILL"}),
    })
}

/// The image `shoal/clock:VERSION` with nothing but the clock in it.
///
/// # Errors
/// The clock cannot be built.
pub fn clock_alone(version: &str) -> Result<Image> {
    let program = std::fs::read(clock_program()?)?;
    Ok(Image {
        reference: format!("shoal/clock:{version}"),
        layers: vec![Layer::default().directory("tmp", 0o1777).file("clock", &program, 0o755).finish()],
        config: json!({"Env": [format!("CLOCK_VERSION={version}")], "Entrypoint": ["/clock"], "StopSignal": "SIGKILL"}),
    })
}

/// Loads every image that the tests use.
///
/// # Errors
/// One cannot be built, or the engine refuses it.
pub fn load_all(engine: &Engine) -> Result<()> {
    for image in [busybox()?, clock("1.0")?, clock("2.0")?] {
        engine.load(&image.archive())?;
    }
    Ok(())
}

/// Builds the clock with cargo and says where it is.
///
/// # Errors
/// cargo is not there, or fails.
pub fn clock_program() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--message-format=json", "--manifest-path"]);
    command.arg(root.join("examples/clock/Cargo.toml"));
    // a directory of its own: it need not wait for whatever else is being built
    command.arg("--target-dir").arg(root.join("target/examples"));
    // cargo heeds the configuration of where it runs, and that of the project makes the clock static
    command.current_dir(&root);
    let done = crate::client::finish(command, None)?;
    let messages = done.ok()?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next();
    program.ok_or_else(|| Failure::wrong("cargo built the clock but names no program"))
}

fn base_layer() -> Result<Vec<u8>> {
    let found = BUSYBOX.iter().map(Path::new).find(|path| path.exists());
    let program = found.ok_or_else(|| Failure::wrong("no /bin/busybox here: install busybox-static"))?;
    let mut layer = Layer::default();
    for name in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var"] {
        layer = layer.directory(name, 0o755);
    }
    layer = layer.directory("tmp", 0o1777).file("bin/busybox", &std::fs::read(program)?, 0o755);
    layer = layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nguest:x:405:100:guest:/home:/bin/sh\n", 0o644);
    layer = layer.file("etc/group", b"root:x:0:\nusers:x:100:\nextra:x:250:guest\n", 0o644);
    let mut list = Command::new(program);
    list.arg("--list");
    for applet in crate::client::finish(list, None)?.ok()?.lines().filter(|applet| *applet != "busybox") {
        layer = layer.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(layer.finish())
}

/// The digest of some bytes, as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
