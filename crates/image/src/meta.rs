//! The record of images, references and layers, and what of it is still needed.
//!
//! Pure but for reading and writing the one file. Who may change it when is the store's business.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{OpenError, StoreError};
use crate::reference::Reference;

/// Everything that is known for good.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub images: BTreeMap<ImageId, ImageRecord>,
    /// Tags and digest references, each in key form (see [`Reference::key`]).
    pub references: BTreeMap<Reference, ImageId>,
    pub layers: BTreeMap<ChainId, LayerRecord>,
}

/// One image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Bottom first.
    pub layers: Vec<ChainId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tagged: Option<jiff::Timestamp>,
    /// The parsed document; read from its blob on open.
    #[serde(skip)]
    pub config: Arc<ImageConfig>,
}

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// The name of its directory.
    pub number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ChainId>,
    pub diff: DiffId,
    /// Bytes of its files.
    pub size: u64,
    /// What it was unpacked from.
    pub blob: BlobRecord,
    /// The boot in which it was unpacked, until it is known to be on the disk: after a power cut it cannot be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsynced: Option<String>,
}

/// A layer's blob as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobRecord {
    pub digest: Digest,
    pub size: u64,
}

/// What a change left without an owner.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Garbage {
    pub layers: Vec<(ChainId, LayerRecord)>,
    pub blobs: Vec<Digest>,
}

impl Meta {
    /// Reads the record. No file means no images yet.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(StoreError::at("read", path)(error).into()),
        };
        serde_json::from_slice(&content).map_err(|source| OpenError::Damaged { path: path.to_owned(), source })
    }

    /// Drops layers that a power cut may have damaged, and the images that stand on them.
    pub fn drop_untrusted_layers(&mut self, boot: &str) {
        let untrusted = |layer: &LayerRecord| layer.unsynced.as_deref().is_some_and(|then| then != boot);
        self.layers.retain(|_, layer| !untrusted(layer));
        self.drop_incomplete_images();
    }

    /// Drops images without all their layers, and references to no image.
    pub fn drop_incomplete_images(&mut self) {
        let layers = &self.layers;
        self.images.retain(|_, image| image.layers.iter().all(|chain| layers.contains_key(chain)));
        let images = &self.images;
        self.references.retain(|_, id| images.contains_key(id));
    }

    /// The references of one image, tags and digests.
    pub fn references_of(&self, id: &ImageId) -> Vec<Reference> {
        self.references.iter().filter(|(_, image)| *image == id).map(|(reference, _)| reference.clone()).collect()
    }

    /// A layer and all below it, top first. Ends early where one is missing.
    pub fn stack(&self, top: &ChainId) -> Vec<&LayerRecord> {
        let mut stack = Vec::new();
        let mut next = Some(top);
        while let Some(layer) = next.and_then(|chain| self.layers.get(chain)) {
            stack.push(layer);
            next = layer.parent.as_ref();
        }
        stack
    }

    /// Takes out every layer that no image and none of `roots` (with all below them) needs. Returns the layers and
    /// blobs that `before`, the record that is being replaced, has and this one no longer has.
    pub fn sweep(&mut self, before: &Meta, roots: impl IntoIterator<Item = ChainId>) -> Garbage {
        let mut needed: BTreeSet<ChainId> = BTreeSet::new();
        let images = self.images.values().filter_map(|image| image.layers.last().copied());
        for top in images.chain(roots) {
            let mut next = Some(top);
            while let Some(chain) = next.filter(|chain| needed.insert(*chain)) {
                next = self.layers.get(&chain).and_then(|layer| layer.parent);
            }
        }
        self.layers.retain(|chain, _| needed.contains(chain));
        let gone = before.layers.iter().filter(|(chain, _)| !self.layers.contains_key(chain));
        let layers = gone.map(|(chain, layer)| (*chain, layer.clone())).collect();
        let kept = self.blobs();
        let blobs = before.blobs().difference(&kept).copied().collect();
        Garbage { layers, blobs }
    }

    /// Every blob that the record speaks of.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        self.layers.values().map(|layer| layer.blob.digest).chain(self.images.keys().copied()).collect()
    }
}

impl Garbage {
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.blobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(number: u64, parent: Option<&ChainId>, blob: &[u8]) -> LayerRecord {
        let diff = Digest::of(blob);
        let blob = BlobRecord { digest: Digest::of(&[blob, b".gz"].concat()), size: 1 };
        LayerRecord { number, parent: parent.copied(), diff, size: 1, blob, unsynced: None }
    }

    fn two_images_on_one_base() -> (Meta, [ChainId; 3], [ImageId; 2]) {
        let chains = [Digest::of(b"base"), Digest::of(b"left"), Digest::of(b"right")];
        let ids = [Digest::of(b"image left"), Digest::of(b"image right")];
        let mut meta = Meta::default();
        meta.layers.insert(chains[0], layer(1, None, b"base"));
        meta.layers.insert(chains[1], layer(2, Some(&chains[0]), b"left"));
        meta.layers.insert(chains[2], layer(3, Some(&chains[0]), b"right"));
        for (id, top) in ids.iter().zip([chains[1], chains[2]]) {
            meta.images.insert(*id, ImageRecord { layers: vec![chains[0], top], ..ImageRecord::default() });
        }
        (meta, chains, ids)
    }

    #[test]
    fn shared_layers_stay_until_their_last_image_goes() {
        let (before, chains, ids) = two_images_on_one_base();
        let mut meta = before.clone();
        meta.images.remove(&ids[0]);
        let garbage = meta.sweep(&before, []);
        assert_eq!(garbage.layers.iter().map(|(chain, _)| *chain).collect::<Vec<_>>(), [chains[1]]);
        assert_eq!(garbage.blobs.len(), 2, "the layer's blob and the configuration");

        let before = meta.clone();
        meta.images.remove(&ids[1]);
        assert_eq!(meta.sweep(&before, []).layers.len(), 2);
        assert!(meta.blobs().is_empty());
    }

    #[test]
    fn a_container_or_a_running_pull_keeps_its_layers_and_all_below() {
        let (before, chains, ids) = two_images_on_one_base();
        let mut meta = before.clone();
        ids.iter().for_each(|id| drop(meta.images.remove(id)));
        let garbage = meta.sweep(&before, [chains[1]]);
        assert_eq!(garbage.layers.iter().map(|(chain, _)| *chain).collect::<Vec<_>>(), [chains[2]]);
        assert_eq!(meta.stack(&chains[1]).iter().map(|layer| layer.number).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn layers_that_another_boot_left_unsynced_go_with_their_images() {
        let (mut meta, chains, ids) = two_images_on_one_base();
        let reference = Reference::parse("left").expect("valid").key();
        meta.references.insert(reference, ids[0]);
        meta.layers.get_mut(&chains[1]).expect("there").unsynced = Some("earlier boot".to_owned());
        meta.layers.get_mut(&chains[2]).expect("there").unsynced = Some("this boot".to_owned());
        meta.drop_untrusted_layers("this boot");
        assert_eq!(meta.images.keys().copied().collect::<Vec<_>>(), [ids[1]]);
        assert!(meta.references.is_empty());
    }
}
