//! Changing the record: one at a time, on disk before anyone sees it, and what nobody needs any more goes with it.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use super::{Inner, Volatile};
use crate::config::ImageConfig;
use crate::digest::{ChainId, Digest, ImageId};
use crate::error::StoreError;
use crate::layout::write_atomic;
use crate::meta::{Garbage, ImageRecord, Meta};
use crate::reference::Reference;
use crate::trash::Chore;

/// Keeps layers, recorded or pending, until dropped.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    chains: Vec<ChainId>,
}

/// An image whose layers are all recorded or pending, under a lease.
pub(crate) struct NewImage {
    pub id: ImageId,
    pub document: Vec<u8>,
    pub config: ImageConfig,
    /// References to point at it, in key form.
    pub references: Vec<Reference>,
}

impl Inner {
    /// Applies `change` to a copy of the record, writes the copy, and only then lets readers see it. When `change` or
    /// the disk fails, everything is as before. Blocks on the disk.
    pub fn change<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Meta, &mut Volatile) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut volatile = self.volatile();
        let before = self.meta();
        let mut meta = Meta::clone(&before);
        let result = change(&mut meta, &mut volatile)?;
        self.publish(&before, meta, &volatile)?;
        Ok(result)
    }

    fn publish(&self, before: &Meta, mut meta: Meta, volatile: &Volatile) -> Result<Garbage, StoreError> {
        let leased = volatile.leases.keys().copied();
        let garbage = meta.sweep(before, leased.chain(volatile.snapshots.values().flatten().copied()));
        let content = serde_json::to_vec(&meta).expect("the record has only string keys");
        write_atomic(&self.layout.record(), &self.layout.temp_path("record"), &content)?;
        *self.meta.write().expect("no reader or writer of the record panics") = Arc::new(meta);
        self.discard(&garbage);
        Ok(garbage)
    }

    /// Deletes what the record no longer speaks of. A failure only leaves files that the next start sweeps.
    fn discard(&self, garbage: &Garbage) {
        let layers = garbage.layers.iter().map(|(_, layer)| self.layout.layer(layer.number));
        for path in layers.chain(garbage.blobs.iter().map(|digest| self.layout.blob(digest))) {
            if let Err(error) = self.layout.discard(&path) {
                tracing::warn!(%error, "an unused file stays until the next start");
            }
        }
    }

    /// Records an image with its references, and makes its pending layers permanent.
    pub fn commit_image(&self, image: &NewImage) -> Result<(), StoreError> {
        let mut volatile = self.volatile();
        let before = self.meta();
        let mut meta = Meta::clone(&before);
        let chains = Digest::chains(&image.config.rootfs.diff_ids);
        for chain in &chains {
            if let Some(pending) = volatile.pending.get(chain) {
                meta.layers.insert(*chain, pending.record.clone());
            }
        }
        let record = meta.images.entry(image.id).or_insert_with(|| ImageRecord {
            layers: chains.clone(),
            last_tagged: None,
            config: Arc::new(image.config.clone()),
        });
        record.layers.clone_from(&chains);
        image.references.iter().for_each(|reference| meta.set_reference(reference.clone(), image.id));

        let linked = self.link_blobs(image, &chains, &volatile)?;
        if let Err(error) = self.publish(&before, meta, &volatile) {
            linked.iter().for_each(|digest| drop(fs::remove_file(self.layout.blob(digest))));
            return Err(error);
        }
        for pending in chains.iter().filter_map(|chain| volatile.pending.remove(chain)) {
            pending.dir.keep();
        }
        self.layout.janitor.ask(Chore::SyncLayers);
        Ok(())
    }

    /// Puts the document and the pending layers' blobs in their final place; returns those that were not there before.
    fn link_blobs(&self, image: &NewImage, chains: &[ChainId], volatile: &Volatile) -> Result<Vec<Digest>, StoreError> {
        let mut linked = Vec::new();
        let undo = |linked: &[Digest]| linked.iter().for_each(|digest| drop(fs::remove_file(self.layout.blob(digest))));
        for pending in chains.iter().filter_map(|chain| volatile.pending.get(chain)) {
            let (digest, blob) = (pending.record.blob.digest, &pending.blob.path);
            match fs::hard_link(blob, self.layout.blob(&digest)) {
                Ok(()) => linked.push(digest),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    undo(&linked);
                    return Err(StoreError::at("keep", blob)(error));
                }
            }
        }
        let path = self.layout.blob(&image.id);
        if !path.exists() {
            write_atomic(&path, &self.layout.temp_path("document"), &image.document).inspect_err(|_| undo(&linked))?;
            linked.push(image.id);
        }
        Ok(linked)
    }

    /// Keeps these layers from being swept, whether they are recorded, pending or still to come.
    pub fn lease(self: &Arc<Self>, chains: Vec<ChainId>) -> Lease {
        let mut volatile = self.volatile();
        for chain in &chains {
            *volatile.leases.entry(*chain).or_default() += 1;
        }
        Lease { inner: self.clone(), chains }
    }

    /// Drops layers that nothing needs, if there are any.
    pub fn collect(&self) -> Result<(), StoreError> {
        let volatile = self.volatile();
        let before = self.meta();
        let mut trial = Meta::clone(&before);
        let leased = volatile.leases.keys().copied();
        if trial.sweep(&before, leased.chain(volatile.snapshots.values().flatten().copied())).is_empty() {
            return Ok(());
        }
        self.publish(&before, trial, &volatile).map(drop)
    }

    /// Writes layers out to the disk and records that they are there.
    pub(super) fn sync_layers(&self) {
        let unsynced: Vec<ChainId> =
            self.meta().layers.iter().filter(|(_, layer)| layer.unsynced.is_some()).map(|(chain, _)| *chain).collect();
        if unsynced.is_empty() {
            return;
        }
        let synced = File::open(self.layout.root.join("layers"))
            .and_then(|dir| Ok(nix::unistd::syncfs(dir)?))
            .map_err(StoreError::at("sync", &self.layout.root));
        let recorded = synced.and_then(|()| {
            self.change(|meta, _| {
                for chain in &unsynced {
                    meta.layers.entry(*chain).and_modify(|layer| layer.unsynced = None);
                }
                Ok::<_, StoreError>(())
            })
        });
        if let Err(error) = recorded {
            tracing::warn!(%error, "new layers would not survive a power cut yet");
        }
    }

    /// The boot to note with a layer that is not yet known to be on the disk.
    pub fn boot(&self) -> &str {
        &self.boot
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut dropped = Vec::new();
        {
            let mut volatile = self.inner.volatile();
            for chain in &self.chains {
                let Some(count) = volatile.leases.get_mut(chain) else { continue };
                *count -= 1;
                if *count == 0 {
                    volatile.leases.remove(chain);
                    dropped.extend(volatile.pending.remove(chain));
                }
            }
        }
        // outside the lock: it goes to the trash
        drop(dropped);
        if let Err(error) = self.inner.collect() {
            tracing::warn!(%error, "unused layers stay until the next change");
        }
    }
}
