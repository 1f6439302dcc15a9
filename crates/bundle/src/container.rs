//! What a container was made as: the durable part, written at creation, renaming and updating.

use bollard_stubs::models::{ContainerConfig, HostConfig};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shoal_image::ImageId;
use shoal_network::{NetworkMode, PortBinding};

/// A container as it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What its root file system is made from.
    pub image_id: ImageId,
    /// Merged with the image's.
    pub config: ContainerConfig,
    /// With defaults filled in.
    pub host_config: HostConfig,
    /// Program and arguments.
    pub path: String,
    /// The arguments of the program.
    pub args: Vec<String>,
    /// In the order of their destinations.
    pub mounts: Vec<MountSpec>,
    /// Its place in the network.
    pub network: NetworkSpec,
    /// Where its output goes.
    pub log: LogSpec,
    /// Where its private files go (secrets, configs).
    #[serde(default)]
    pub files: Vec<String>,
}

/// Which network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkSpec {
    /// One of the node's three networks.
    Own {
        /// Which of them.
        mode: NetworkMode,
        /// As asked for.
        mac: Option<String>,
    },
    /// The namespace of another container, by id.
    Container(String),
}

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountKind,
    /// Of a volume.
    pub volume: String,
    /// On the host; for a volume, its directory.
    pub source: String,
    /// In the container, absolute.
    pub destination: String,
    /// As asked for (`ro,z`), for `inspect`.
    pub mode: String,
    /// It can be written.
    pub rw: bool,
    /// `rprivate` and its like; empty: the default.
    pub propagation: String,
    /// Not what is mounted below the source.
    pub non_recursive: bool,
    /// What is mounted below the source stays writable in a read-only mount.
    pub read_only_non_recursive: bool,
    /// Fill an empty volume with what the image has there.
    pub copy: bool,
    /// The source is made if it is not there (`-v`).
    pub create_source: bool,
    /// The volume goes with the container.
    pub anonymous: bool,
    /// Of a tmpfs: mount options.
    pub tmpfs: Vec<String>,
    /// Came from the `Mounts` list, not from `Binds`, `Volumes` or the image.
    pub from_list: bool,
}

/// Kind of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A path of the host.
    #[default]
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
}

/// The log driver with its options, read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogSpec {
    /// `json-file`; otherwise `none`.
    pub json_file: bool,
    /// Bytes after which a file is full; `None`: never.
    pub max_size: Option<u64>,
    /// How many files are kept.
    pub max_file: u32,
    /// Full files are compressed.
    pub compress: bool,
    /// Attributes of each line, from `labels`, `env`, `tag`.
    pub attrs: std::collections::BTreeMap<String, String>,
}

impl MountKind {
    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

impl ContainerSpec {
    /// Whether output and input are a terminal.
    pub fn tty(&self) -> bool {
        self.config.tty.unwrap_or_default()
    }

    /// Whether it goes when it ends.
    pub fn auto_remove(&self) -> bool {
        self.host_config.auto_remove.unwrap_or_default()
    }

    /// The image as it was named.
    pub fn image_name(&self) -> &str {
        self.config.image.as_deref().unwrap_or_default()
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// Ports that a running container publishes, in `docker ps` order.
pub fn published(endpoint: Option<&shoal_network::Endpoint>) -> &[PortBinding] {
    endpoint.and_then(|e| e.bridge.as_ref()).map_or(&[], |place| &place.ports)
}
