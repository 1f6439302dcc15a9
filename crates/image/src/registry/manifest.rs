//! Manifests and manifest lists: reading them and choosing from them. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use crate::digest::Digest;

pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What we ask a registry for.
pub(super) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json";

/// An operating system and CPU, in Go's spelling.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Windows build; empty elsewhere.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Such as `v7`; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// A manifest as a registry sent it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Image { config: Descriptor, layers: Vec<Descriptor> },
    List(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Descriptor {
    /// A pointer without a media type.
    pub fn of(digest: Digest, size: u64) -> Self {
        Self { media_type: String::new(), digest, size, platform: None, annotations: None }
    }
}

impl Document {
    /// Reads a manifest. `announced` is the media type that came with it; some servers announce nothing useful.
    pub fn parse(bytes: &[u8], announced: &str) -> Result<Self, RegistryError> {
        let malformed = |reason: &str| RegistryError::Manifest(reason.to_owned());
        let announced = announced.split(';').next().unwrap_or_default().trim();
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| RegistryError::Manifest(error.to_string()))?;
        let is_known = |kind: &str| [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX].contains(&kind);
        let media_type = if is_known(announced) { announced } else { raw.media_type.as_str() };
        // a document that is both can mean one image to us and another to whoever signed it
        let (config, layers) = match (raw.schema_version, raw.config, raw.layers, raw.manifests) {
            (Some(1), ..) => return Err(RegistryError::MediaType(announced.to_owned())),
            (_, _, Some(_), Some(_)) | (_, Some(_), _, Some(_)) => {
                return Err(malformed("it is both an image and a list"));
            }
            (_, None, None, Some(list)) => {
                return Self::of(bytes, media_type, [DOCKER_LIST, OCI_INDEX], OCI_INDEX, Content::List(list));
            }
            (_, Some(config), layers, None) => (config, layers.unwrap_or_default()),
            _ if is_known(media_type) => return Err(malformed("it has neither a configuration nor a list")),
            _ => {
                return Err(RegistryError::MediaType(if announced.is_empty() {
                    raw.media_type
                } else {
                    announced.to_owned()
                }));
            }
        };
        Self::of(bytes, media_type, [DOCKER_MANIFEST, OCI_MANIFEST], OCI_MANIFEST, Content::Image { config, layers })
    }

    fn of(
        bytes: &[u8],
        media_type: &str,
        fitting: [&str; 2],
        default: &str,
        content: Content,
    ) -> Result<Self, RegistryError> {
        let media_type = if media_type.is_empty() { default } else { media_type };
        if !fitting.contains(&media_type) {
            return Err(RegistryError::MediaType(media_type.to_owned()));
        }
        Ok(Self { digest: Digest::of(bytes), media_type: media_type.to_owned(), size: bytes.len() as u64, content })
    }
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: String::new(),
            variant: variant.to_owned(),
        }
    }

    /// Reads `os[/architecture[/variant]]`, as the API's `platform` parameter; parts that are not given are this
    /// machine's.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let fits =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !parts.iter().all(fits) {
            return None;
        }
        let host = Self::host();
        let lower = |part: &str| part.to_ascii_lowercase();
        let canonical = |architecture: &str| match architecture {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => lower(other),
        };
        match parts[..] {
            [os] if ["linux", "windows", "darwin", "freebsd"].contains(&lower(os).as_str()) => {
                Some(Self { os: lower(os), ..host })
            }
            [architecture] => Some(Self { architecture: canonical(architecture), variant: String::new(), ..host }),
            [os, architecture] => {
                Some(Self { os: lower(os), architecture: canonical(architecture), variant: String::new(), ..host })
            }
            [os, architecture, variant] => {
                Some(Self { os: lower(os), architecture: canonical(architecture), variant: lower(variant), ..host })
            }
            _ => None,
        }
    }

    /// How well something for `self` runs where `wanted` is asked for: higher is better, `None` is not at all.
    fn rank(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        // a CPU runs what was made for its older variants; no variant means the architecture's baseline
        let level =
            |variant: &str, none: u32| variant.strip_prefix('v').and_then(|level| level.parse().ok()).unwrap_or(none);
        let baseline = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        let (have, want) = (level(&self.variant, baseline), level(&wanted.variant, baseline));
        (have <= want).then_some(have)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// The best image of a list for a platform.
pub(crate) fn select<'a>(list: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let ranked = list.iter().filter_map(|entry| {
        let rank = match &entry.platform {
            Some(platform) => platform.rank(wanted)?,
            // an index of one image may leave its platform out
            None if list.len() == 1 => 0,
            None => return None,
        };
        Some((rank, entry))
    });
    // of equals the first, as in Docker
    ranked.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> Descriptor {
        Descriptor { platform: Platform::parse(platform), ..Descriptor::of(Digest::of(b"x"), 1) }
    }

    fn chosen(list: &[&str], wanted: &str) -> Option<String> {
        let list: Vec<Descriptor> = list.iter().map(|platform| entry(platform)).collect();
        let wanted = Platform::parse(wanted).expect("valid");
        select(&list, &wanted).and_then(|entry| entry.platform.as_ref()).map(Platform::to_string)
    }

    #[test]
    fn the_best_runnable_image_of_a_list_is_chosen() {
        let list = ["linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "linux/amd64", "windows/amd64"];
        assert_eq!(chosen(&list, "linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(chosen(&list, "linux/arm/v6").as_deref(), Some("linux/arm/v5"));
        assert_eq!(chosen(&list, "linux/arm").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen(&list, "linux/arm64").as_deref(), Some("linux/arm64/v8"));
        assert_eq!(chosen(&list, "linux/s390x"), None);
        assert_eq!(chosen(&["linux/amd64/v3"], "linux/amd64"), None, "made for a newer CPU");
    }

    #[test]
    fn platforms_are_read_in_their_common_spellings() {
        assert_eq!(Platform::parse("Linux/x86_64").expect("valid").to_string(), "linux/amd64");
        assert_eq!(Platform::parse("linux").expect("valid"), Platform::host());
        for bad in ["", "linux/", "a/b/c/d", "linux/amd 64"] {
            assert_eq!(Platform::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn documents_of_no_or_two_kinds_are_refused() {
        let image = format!(r#"{{"mediaType":"","digest":"{}","size":1}}"#, Digest::of(b"x"));
        let parse = |json: &str, kind: &str| Document::parse(json.as_bytes(), kind).map(|document| document.media_type);
        assert_eq!(
            parse(&format!(r#"{{"config":{image},"layers":[]}}"#), "text/plain").expect("an image"),
            OCI_MANIFEST
        );
        assert_eq!(
            parse(r#"{"manifests":[]}"#, &format!("{DOCKER_LIST}; charset=utf-8")).expect("a list"),
            DOCKER_LIST
        );
        assert!(matches!(
            parse(&format!(r#"{{"config":{image},"manifests":[]}}"#), OCI_INDEX),
            Err(RegistryError::Manifest(_))
        ));
        assert!(matches!(parse(r#"{"manifests":[]}"#, OCI_MANIFEST), Err(RegistryError::MediaType(_))));
        assert!(matches!(parse(r#"{"schemaVersion":1}"#, "x"), Err(RegistryError::MediaType(_))));
        assert!(matches!(parse("nonsense", OCI_MANIFEST), Err(RegistryError::Manifest(_))));
        let negative = image.replace("\"size\":1", "\"size\":-1");
        assert!(matches!(
            parse(&format!(r#"{{"config":{negative},"layers":[]}}"#), OCI_MANIFEST),
            Err(RegistryError::Manifest(_))
        ));
    }
}
