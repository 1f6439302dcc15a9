//! What a reference means at its registry, without pulling it.

use serde::Serialize;

use super::auth::RegistryAuth;
use super::error::RegistryError;
use super::manifest::{Content, Platform};
use super::session::Session;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::PullError;
use crate::reference::Reference;
use crate::store::ImageStore;

/// The answer to `GET /distribution/{name}/json`, in the API's shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DistributionInspect {
    /// The manifest or manifest list.
    pub descriptor: ManifestDescriptor,
    /// What it runs on.
    pub platforms: Vec<Platform>,
}

/// A pointer to a manifest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDescriptor {
    /// Its kind.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl ImageStore {
    /// Asks a registry what `reference` (its `latest` if it has neither tag nor digest) means. What a registry answers
    /// to that is passed on in its own words, as Docker does here, not in those of a pull.
    pub async fn distribution_inspect(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<DistributionInspect, PullError> {
        let (session, document) = Session::start(&self.inner.registry, reference, auth).await?;
        let platforms = match &document.content {
            Content::List(list) => list.iter().filter_map(|entry| entry.platform.clone()).collect(),
            Content::Image { config, .. } => {
                let config = session.config(config).await?;
                let config = ImageConfig::parse(&config).map_err(|error| RegistryError::Manifest(error.to_string()))?;
                vec![Platform {
                    architecture: config.architecture,
                    os: config.os,
                    os_version: String::new(),
                    variant: config.variant,
                }]
            }
        };
        let descriptor =
            ManifestDescriptor { media_type: document.media_type, digest: document.digest, size: document.size };
        Ok(DistributionInspect { descriptor, platforms })
    }
}
