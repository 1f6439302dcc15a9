//! The store: opening it, reading it, and the one way to change its record.

mod change;
mod open;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::config::ImageConfig;
use crate::digest::{ChainId, DiffId, ImageId};
use crate::error::{ResolveError, StoreError, TagError};
use crate::job::Jobs;
use crate::layout::{Layout, TempFile, TempLayer};
use crate::meta::{LayerRecord, Meta};
use crate::reference::Reference;
use crate::registry::{Registry, RegistryConfig};

pub(crate) use change::NewImage;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// A directory that belongs to the store alone; made if it is not there.
    pub root: PathBuf,
    /// The directory below which root file systems are mounted; made if it is not there. Need not survive a reboot.
    pub mounts: PathBuf,
    /// How registries are reached.
    pub registry: RegistryConfig,
}

/// This node's images. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

/// An image as it was when it was looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of the configuration document.
    pub id: ImageId,
    /// The parsed document. [`ImageStore::document`] has its bytes.
    pub config: Arc<ImageConfig>,
    /// Bottom first.
    pub layers: Vec<LayerInfo>,
    /// Its tags.
    pub tags: Vec<Reference>,
    /// Its references by manifest digest.
    pub digests: Vec<Reference>,
    /// When it last got a tag on this node.
    pub last_tagged: Option<jiff::Timestamp>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInfo {
    /// Identifies the layer with all below it.
    pub chain: ChainId,
    /// Digest of the uncompressed tar.
    pub diff: DiffId,
    /// Bytes of its files.
    pub size: u64,
}

pub(crate) struct Inner {
    pub layout: Arc<Layout>,
    pub registry: Registry,
    pub jobs: Jobs,
    /// What readers see. Replaced whole, after the disk has it.
    meta: RwLock<Arc<Meta>>,
    /// Held by whoever changes the record.
    volatile: Mutex<Volatile>,
    boot: String,
    /// Held as long as the store is open.
    _lock: nix::fcntl::Flock<std::fs::File>,
}

/// What matters only while the process lives.
#[derive(Default)]
pub(crate) struct Volatile {
    /// How many pulls and loads need a layer to stay, by chain.
    pub leases: HashMap<ChainId, usize>,
    /// Unpacked, but not part of an image yet.
    pub pending: HashMap<ChainId, Pending>,
    /// The topmost layer under each container's root file system; `None` for an image without layers.
    pub snapshots: HashMap<String, Option<ChainId>>,
}

/// An unpacked layer that no image has yet. Dropped without an image, it goes to the trash.
pub(crate) struct Pending {
    pub record: LayerRecord,
    pub dir: TempLayer,
    pub blob: Arc<TempFile>,
}

impl ImageStore {
    /// The image with this id.
    pub fn get(&self, id: &ImageId) -> Option<Arc<Image>> {
        self.inner.meta().image(id)
    }

    /// All images, newest first, then by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        let meta = self.inner.meta();
        let mut images: Vec<_> = meta.images.keys().filter_map(|id| meta.image(id)).collect();
        images.sort_by(|a, b| b.config.created.cmp(&a.config.created));
        images
    }

    /// The image that a user's words mean: a reference, an id, or the beginning of an id.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>, ResolveError> {
        let meta = self.inner.meta();
        let id = crate::resolve::resolve(&meta, name)?;
        meta.image(&id).ok_or_else(|| ResolveError::NotFound(name.to_owned()))
    }

    /// The bytes of an image's configuration document.
    pub async fn document(&self, id: &ImageId) -> Result<Vec<u8>, StoreError> {
        let path = self.inner.layout.blob(id);
        tokio::fs::read(&path).await.map_err(StoreError::at("read", path))
    }

    /// Gives the image that `source` means another name. An image that had the name loses it.
    pub async fn tag(&self, source: &str, target: &Reference) -> Result<ImageId, TagError> {
        if target.digest().is_some() {
            return Err(TagError::Digest);
        }
        let (source, target) = (source.to_owned(), target.key());
        self.blocking(move |inner| {
            inner.change(|meta, _| {
                let id = crate::resolve::resolve(meta, &source)?;
                meta.set_reference(target, id);
                Ok(id)
            })
        })
        .await
    }

    /// Runs disk work where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Arc<Inner>) -> T + Send + 'static) -> T {
        let inner = self.inner.clone();
        let task = tokio::task::spawn_blocking(move || work(&inner));
        match task.await {
            Ok(done) => done,
            // only a panic gets here: the work is never cancelled
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Image {
    /// Bytes of all layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Tags in familiar form, sorted.
    pub fn repo_tags(&self) -> Vec<String> {
        self.tags.iter().map(Reference::familiar).collect()
    }

    /// Digest references in familiar form, sorted.
    pub fn repo_digests(&self) -> Vec<String> {
        self.digests.iter().map(Reference::familiar).collect()
    }
}

impl Meta {
    fn image(&self, id: &ImageId) -> Option<Arc<Image>> {
        let record = self.images.get(id)?;
        let (digests, tags) = self.references_of(id).into_iter().partition(|reference| reference.digest().is_some());
        let layers = record.layers.iter().filter_map(|chain| {
            let layer = self.layers.get(chain)?;
            Some(LayerInfo { chain: *chain, diff: layer.diff, size: layer.size })
        });
        Some(Arc::new(Image {
            id: *id,
            config: record.config.clone(),
            layers: layers.collect(),
            tags,
            digests,
            last_tagged: record.last_tagged,
        }))
    }

    /// Points a reference (in key form) at an image that is recorded.
    pub(crate) fn set_reference(&mut self, reference: Reference, id: ImageId) {
        if reference.digest().is_none()
            && let Some(image) = self.images.get_mut(&id)
        {
            image.last_tagged = Some(jiff::Timestamp::now());
        }
        self.references.insert(reference, id);
    }
}

impl Inner {
    pub fn meta(&self) -> Arc<Meta> {
        self.meta.read().expect("no reader or writer of the record panics").clone()
    }

    pub fn volatile(&self) -> MutexGuard<'_, Volatile> {
        self.volatile.lock().expect("no change of the record panics")
    }
}
