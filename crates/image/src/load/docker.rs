//! Archives with a `manifest.json`, as `docker save` writes them.

use serde::Deserialize;

use super::Found;
use super::spool::Spool;
use crate::digest::Digest;
use crate::error::LoadError;
use crate::reference::{Reference, is_image_id};

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The archive's images.
pub(super) fn find(spool: &Spool) -> Result<Vec<Found>, LoadError> {
    let entries: Vec<ManifestEntry> = spool.parse("manifest.json")?;
    entries.into_iter().map(|entry| find_image(spool, entry)).collect()
}

fn find_image(spool: &Spool, entry: ManifestEntry) -> Result<Found, LoadError> {
    let document = spool.document(&entry.config)?;
    check_name(&entry.config, Digest::of(&document))?;
    let layers = entry.layers.unwrap_or_default().into_iter().map(|name| {
        let member = spool.member(&name)?.clone();
        // the older layout names a layer's directory after its history, not after its content
        if name.starts_with("blobs/") {
            check_name(&name, member.digest)?;
        }
        Ok(member)
    });
    let layers = layers.collect::<Result<_, LoadError>>()?;
    let tags = entry.repo_tags.unwrap_or_default().into_iter().map(parse_tag);
    Ok(Found { document, layers, tags: tags.collect::<Result<_, _>>()? })
}

/// A name that is a digest must be the content's.
fn check_name(name: &str, actual: Digest) -> Result<(), LoadError> {
    let stem = name.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    if is_image_id(stem) && stem != actual.hex() {
        let (name, expected, actual) = (name.to_owned(), format!("sha256:{stem}"), actual.to_string());
        return Err(LoadError::Digest { name, expected, actual });
    }
    Ok(())
}

fn parse_tag(tag: String) -> Result<Reference, LoadError> {
    match Reference::parse(&tag) {
        Ok(reference) if reference.digest().is_none() => Ok(reference.key()),
        Ok(_) => Err(LoadError::Tag { tag, source: crate::reference::ReferenceError::Format }),
        Err(source) => Err(LoadError::Tag { tag, source }),
    }
}
