//! Opening the store: after a crash at any instant, what is half-made goes and what is recorded is whole.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{ImageStore, Inner, StoreConfig, Volatile};
use crate::config::ImageConfig;
use crate::digest::{ChainId, Digest};
use crate::error::{OpenError, StoreError};
use crate::job::Jobs;
use crate::layout::{Layout, read_dir};
use crate::meta::Meta;
use crate::registry::Registry;
use crate::snapshot;
use crate::trash::{self, Chore, Janitor};

impl ImageStore {
    /// Opens the store, sweeping what a crash left behind. Blocks for as long as that takes (milliseconds).
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        let registry = Registry::new(config.registry)?;
        fs::create_dir_all(&config.root).map_err(StoreError::at("create", &config.root))?;
        let root = fs::canonicalize(&config.root).map_err(StoreError::at("find", &config.root))?;
        let lock = lock(&root)?;
        let (janitor, chores) = Janitor::new();
        let layout = Arc::new(Layout::ensure(&root, &config.mounts, janitor)?);
        snapshot::check_file_system(&layout)?;

        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut meta = Meta::read(&layout.record())?;
        meta.drop_untrusted_layers(&boot);
        load_documents(&layout, &mut meta);
        let snapshots = find_snapshots(&layout, &meta)?;
        let roots: Vec<ChainId> = snapshots.values().flatten().copied().collect();
        let recorded = meta.clone();
        meta.sweep(&recorded, roots);
        discard_unknown(&layout, &meta)?;

        let volatile = Volatile { snapshots, ..Volatile::default() };
        let inner = Arc::new(Inner {
            layout,
            jobs: Jobs::new(registry.config.max_concurrent_downloads),
            registry,
            meta: RwLock::new(Arc::new(meta)),
            volatile: Mutex::new(volatile),
            boot,
            _lock: lock,
        });
        let weak = Arc::downgrade(&inner);
        let sync = move || weak.upgrade().iter().for_each(|inner| inner.sync_layers());
        trash::start(chores, inner.layout.trash(), sync)?;
        inner.change(|_, _| Ok::<_, StoreError>(()))?;
        inner.layout.janitor.ask(Chore::EmptyTrash);
        inner.layout.janitor.ask(Chore::SyncLayers);
        Ok(Self { inner })
    }
}

fn lock(root: &Path) -> Result<Flock<File>, OpenError> {
    let path = root.join("lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::at("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => OpenError::InUse(root.to_owned()),
        errno => StoreError::at("lock", path)(errno).into(),
    })
}

/// Reads each image's document; an image whose document is gone or damaged is no image.
fn load_documents(layout: &Layout, meta: &mut Meta) {
    meta.images.retain(|id, record| {
        let document = fs::read(layout.blob(id)).ok().filter(|document| Digest::of(document) == *id);
        match document.as_deref().map(ImageConfig::parse) {
            Some(Ok(config)) => {
                record.config = Arc::new(config);
                true
            }
            _ => {
                tracing::error!(%id, "the image's configuration is damaged: the image is dropped");
                false
            }
        }
    });
    meta.drop_incomplete_images();
}

/// The topmost layer of each container's root file system.
fn find_snapshots(layout: &Layout, meta: &Meta) -> Result<HashMap<String, Option<ChainId>>, StoreError> {
    let chains: HashMap<u64, ChainId> = meta.layers.iter().map(|(chain, layer)| (layer.number, *chain)).collect();
    let containers = read_dir(&layout.root.join("snapshots"))?;
    let found = containers.into_iter().map(|container| {
        let top = snapshot::top_layer(layout, &container).and_then(|number| chains.get(&number).copied());
        (container, top)
    });
    Ok(found.collect())
}

/// Moves to the trash whatever the record does not speak of.
fn discard_unknown(layout: &Layout, meta: &Meta) -> Result<(), StoreError> {
    let numbers: BTreeSet<String> = meta.layers.values().map(|layer| layer.number.to_string()).collect();
    let blobs: BTreeSet<String> = meta.blobs().iter().map(Digest::hex).collect();
    for (dir, known) in [("layers", numbers), ("blobs/sha256", blobs)] {
        for entry in read_dir(&layout.root.join(dir))?.iter().filter(|entry| !known.contains(*entry)) {
            layout.discard(&layout.root.join(dir).join(entry))?;
        }
    }
    Ok(())
}
