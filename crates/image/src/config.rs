//! The image configuration document as Docker writes it: OCI's, plus health checks, triggers and shells.
//!
//! The document's bytes are kept as they came (their digest is the image id); this is the parsed view of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::DiffId;

/// An image configuration document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture in Go's spelling, such as `amd64`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Variant of the architecture, such as `v7`; often empty.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system in Go's spelling.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// When the image was built, RFC 3339; absent for reproducible builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who built the image.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Version of the Docker engine that built it.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// Defaults for containers made from the image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// The layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
}

/// The layers of an image, bottom first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// Digest of each uncompressed layer.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

/// One line of `docker history`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The build step.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who ran it.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Commit message.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Defaults for containers made from an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`, by name or number.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `port/protocol` keys.
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Program and leading arguments; `None` when the image sets none.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments; `None` when the image sets none.
    pub cmd: Option<Vec<String>>,
    /// Container paths that get an anonymous volume.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Working directory.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that stops a container, such as `SIGTERM` or `15`.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_timeout: Option<i64>,
    /// Health check.
    pub healthcheck: Option<HealthConfig>,
    /// Build triggers.
    pub on_build: Option<Vec<String>>,
    /// Shell for the shell form of commands.
    pub shell: Option<Vec<String>>,
    /// Whether the command is already escaped (Windows).
    pub args_escaped: bool,
}

/// A health check. Durations are nanoseconds; zero means "not set".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `[]` inherit, `["NONE"]` off, `["CMD", …]`, `["CMD-SHELL", command]`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Time between checks.
    pub interval: i64,
    /// Time that one check may take.
    pub timeout: i64,
    /// Time in which failures do not count.
    pub start_period: i64,
    /// Time between checks while starting.
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    pub retries: i64,
}

impl ImageConfig {
    /// Reads a configuration document. Unknown fields are kept only in the document's bytes.
    pub fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(document)
    }
}

/// Go writes absent lists, maps and structures as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_missing_fields_mean_the_default() {
        let config = ImageConfig::parse(
            br#"{"os":"linux","config":{"Env":null,"Cmd":["sh"],"Volumes":null,"Healthcheck":{"Test":["CMD","true"],"Interval":5}},
                "rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .expect("parses");
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.healthcheck.expect("set").interval, 5);
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn a_document_of_the_wrong_shape_is_refused() {
        assert!(ImageConfig::parse(br#"{"rootfs":{"diff_ids":["nonsense"]}}"#).is_err());
        assert!(ImageConfig::parse(b"7").is_err());
    }
}
