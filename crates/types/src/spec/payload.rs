//! Secrets and configs, and how a container asks for them (swarm-semantics 1.5, 11).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Empty, Labels};

/// A secret or config as a user wants it. Only its labels can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct PayloadSpec {
    /// The name; unique in any case.
    pub name: String,
    /// Labels; always shown.
    pub labels: Labels,
    /// The content.
    #[serde(skip_serializing_if = "Data::is_empty")]
    pub data: Data,
    /// Secrets only: what would provide the content instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<PayloadDriver>,
    /// How the content is expanded on its way into a container; absent: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<PayloadDriver>,
}

/// What provides or expands a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct PayloadDriver {
    /// Its name; `golang` for templates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Bytes that may be secret: never in a log, base64 in JSON, cheap to copy.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Data(Arc<[u8]>);

/// The file that a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct FileTarget {
    /// Its path; relative ones are below `/run/secrets` for secrets, below `/` for configs.
    pub name: String,
    /// The owner: a number.
    #[serde(rename = "UID")]
    pub uid: String,
    /// The group: a number.
    #[serde(rename = "GID")]
    pub gid: String,
    /// Permission bits.
    pub mode: u32,
}

/// A container's wish for a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct SecretReference {
    /// Where it wants it.
    pub file: Option<FileTarget>,
    /// The secret, as the client gave it.
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    /// The name of the same secret.
    pub secret_name: String,
}

/// A container's wish for a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// Where it wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// Not as a file: something else in the spec names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Empty>,
    /// The config, as the client gave it.
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    /// The name of the same config.
    pub config_name: String,
}

/// What both kinds of references say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The identifier, as the client gave it.
    pub id: &'a str,
    /// The name.
    pub name: &'a str,
    /// Where it is wanted.
    pub file: Option<&'a FileTarget>,
}

// === impl Data ===

impl Data {
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        // as Go: line ends in the text are passed over
        let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        STANDARD
            .decode(clean)
            .map(Self::from)
            .map_err(|e| serde::de::Error::custom(format!("illegal base64 data: {e}")))
    }
}

// === impl SecretReference ===

impl SecretReference {
    /// What it says.
    pub fn parts(&self) -> Reference<'_> {
        Reference { id: &self.secret_id, name: &self.secret_name, file: self.file.as_ref() }
    }
}

// === impl ConfigReference ===

impl ConfigReference {
    /// What it says.
    pub fn parts(&self) -> Reference<'_> {
        Reference { id: &self.config_id, name: &self.config_name, file: self.file.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_is_base64_in_json_and_unseen_in_logs() {
        let spec = PayloadSpec { name: "a".into(), data: b"s3cr3t".to_vec().into(), ..PayloadSpec::default() };
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(value, json!({ "Name": "a", "Labels": {}, "Data": "czNjcjN0" }));
        assert_eq!(serde_json::from_value::<PayloadSpec>(value).unwrap(), spec);
        assert!(!format!("{spec:?}").contains("s3cr3t") && format!("{spec:?}").contains("6 bytes"));
        assert!(serde_json::from_value::<PayloadSpec>(json!({ "Data": "*" })).is_err());
        let broken = serde_json::from_value::<PayloadSpec>(json!({ "Data": "czNj\ncjN0" })).unwrap();
        assert_eq!(broken.data, spec.data);
    }

    #[test]
    fn references_read_back_as_docker_writes_them() {
        let file = json!({ "Name": "a", "UID": "0", "GID": "0", "Mode": 292 });
        let secret = json!({ "File": file, "SecretID": "x", "SecretName": "y" });
        let read: SecretReference = serde_json::from_value(secret.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), secret);
        assert_eq!((read.parts().id, read.parts().name, read.parts().file.unwrap().mode), ("x", "y", 0o444));
        let config = json!({ "Runtime": {}, "ConfigID": "x", "ConfigName": "y" });
        let read: ConfigReference = serde_json::from_value(config.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), config);
    }
}
