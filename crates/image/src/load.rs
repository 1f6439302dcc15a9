//! Loading archives: what `docker save` and OCI tools write, plain or compressed.
//!
//! The archive is spooled first, since the document that explains it may come last. Nothing is recorded until an image
//! is whole.

mod docker;
mod oci;
mod spool;

use std::io::Read;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::{ExtractError, LoadError};
use crate::extract;
use crate::job::Wanted;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::Descriptor;
use crate::store::{ImageStore, Inner, NewImage};
use spool::{Member, Spool};

/// One image of a loaded archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The tags that it got.
    pub tags: Vec<Reference>,
}

/// An image of the archive, not yet in the store.
struct Found {
    document: Vec<u8>,
    /// Bottom first.
    layers: Vec<Member>,
    tags: Vec<Reference>,
}

impl ImageStore {
    /// Loads every image of an archive. On an error the images before the bad one stay; of that one nothing does.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Unpin + Send + 'static,
        progress: &Progress,
    ) -> Result<Vec<Loaded>, LoadError> {
        let progress = progress.clone();
        let archive = SyncIoBridge::new(archive);
        self.blocking(move |inner| load(inner, archive, &progress)).await
    }
}

fn load(inner: &Arc<Inner>, archive: impl Read, progress: &Progress) -> Result<Vec<Loaded>, LoadError> {
    let spool = Spool::read(archive, &inner.layout)?;
    let found = if spool.has("manifest.json") {
        docker::find(&spool)?
    } else if spool.has("index.json") {
        oci::find(&spool)?
    } else if spool.has("repositories") {
        return Err(LoadError::Legacy);
    } else {
        return Err(LoadError::NoImage);
    };
    drop(spool);
    found.into_iter().map(|found| load_image(inner, found, progress)).collect()
}

fn load_image(inner: &Arc<Inner>, found: Found, progress: &Progress) -> Result<Loaded, LoadError> {
    let Found { document, layers, tags } = found;
    let id = Digest::of(&document);
    let malformed = |reason: String| LoadError::Malformed { name: format!("image config {id}"), reason };
    let config = ImageConfig::parse(&document).map_err(|error| malformed(error.to_string()))?;
    if !matches!(config.os.as_str(), "" | "linux") {
        return Err(LoadError::Platform { os: config.os });
    }
    let diffs = &config.rootfs.diff_ids;
    if diffs.len() != layers.len() {
        let (expected, got) = (layers.len(), diffs.len());
        return Err(malformed(format!("invalid manifest, layers length mismatch: expected {expected}, got {got}")));
    }
    let chains = Digest::chains(diffs);
    let lease = inner.lease(chains.clone());
    for (index, (member, chain)) in layers.iter().zip(&chains).enumerate() {
        let blob = Descriptor::of(member.digest, member.size);
        let parent = index.checked_sub(1).map(|below| chains[below]);
        load_layer(inner, member, &Wanted { blob, diff: diffs[index], chain: *chain, parent }, progress)?;
    }
    let before: Vec<Option<ImageId>> = tags.iter().map(|tag| inner.meta().references.get(tag).copied()).collect();
    inner.commit_image(&NewImage { id, document, config, references: tags.clone() })?;
    drop(lease);
    for (tag, before) in tags.iter().zip(before) {
        if let Some(old) = before.filter(|old| *old != id) {
            progress.output(format!(
                "The image {} already exists, renaming the old one with ID {old} to empty string\n",
                tag.familiar()
            ));
        }
        progress.output(format!("Loaded image: {}\n", tag.familiar()));
    }
    if tags.is_empty() {
        progress.output(format!("Loaded image ID: {id}\n"));
    }
    Ok(Loaded { id, tags })
}

fn load_layer(inner: &Arc<Inner>, member: &Member, wanted: &Wanted, progress: &Progress) -> Result<(), LoadError> {
    if inner.has_layer(&wanted.chain) {
        return Ok(());
    }
    let id = wanted.diff.short();
    let dir = inner.layout.temp_layer()?;
    let reader =
        spool::Reporting::new(member.open()?, |bytes| progress.bytes(&id, "Loading layer", bytes, member.size));
    let unpacked = extract::unpack(reader, &dir.path(), &inner.layout)?;
    if unpacked.diff != wanted.diff {
        return Err(ExtractError::DiffId { expected: wanted.diff, actual: unpacked.diff }.into());
    }
    progress.bytes(&id, "Loading layer", member.size, member.size);
    Ok(inner.keep_layer(wanted, dir, member.file.clone(), unpacked)?)
}
