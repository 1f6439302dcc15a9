//! Volumes of the `local` driver: directories under the data root that outlive containers.

pub(crate) mod api;
mod copy;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::spec::{ContainerSpec, MountKind};
use crate::engine::Engine;
use crate::error::{Error, RecordError, Result};
use crate::layout::Layout;
use crate::record::{Kind, Record};

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub name: String,
    pub created: Timestamp,
    #[serde(default)]
    pub labels: HashMap<String, String>,
    /// Made for a container that named none.
    #[serde(default)]
    pub anonymous: bool,
}

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    layout: Layout,
    record: Record,
    known: Mutex<BTreeMap<String, VolumeRecord>>,
    /// One change at a time: a volume is not removed while a container that wants it is being made.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Volumes {
    /// Reads the record, and sweeps directories that were made for volumes that never came to be.
    pub fn open(layout: &Layout, record: Record) -> Result<Self, RecordError> {
        let all: Vec<VolumeRecord> = record.load(Kind::Volume)?;
        let known: BTreeMap<_, _> = all.into_iter().map(|volume| (volume.name.clone(), volume)).collect();
        for entry in std::fs::read_dir(layout.volumes()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if known.contains_key(&name) {
                continue;
            }
            // a half-made volume is empty; what is not empty is someone's data, whoever forgot it
            let removed =
                std::fs::remove_dir(entry.path().join("_data")).and_then(|()| std::fs::remove_dir(entry.path()));
            if let Err(error) = removed {
                tracing::warn!(path = %entry.path().display(), %error, "a directory that is no volume stays");
            }
        }
        let changing = tokio::sync::Mutex::default();
        Ok(Self { layout: layout.clone(), record, known: Mutex::new(known), changing })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, VolumeRecord>> {
        self.known.lock().expect("no holder panics")
    }

    /// All, by name.
    pub fn all(&self) -> Vec<VolumeRecord> {
        self.known().values().cloned().collect()
    }

    /// One.
    pub fn get(&self, name: &str) -> Result<VolumeRecord> {
        self.known().get(name).cloned().ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// Where its content is.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        self.get(name).map(|volume| self.data(&volume.name))
    }

    fn data(&self, name: &str) -> PathBuf {
        self.layout.volumes().join(name).join("_data")
    }

    /// Makes a volume that is not there. Says where its content is, and whether it is new.
    pub async fn ensure(
        &self,
        name: &str,
        mut labels: HashMap<String, String>,
        anonymous: bool,
    ) -> Result<(PathBuf, bool)> {
        if anonymous {
            // how Docker's tools tell volumes that nobody named
            labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
        }
        let path = self.data(name);
        let _changing = self.changing.lock().await;
        if self.known().contains_key(name) {
            // gone where a removal was interrupted
            std::fs::create_dir_all(&path).map_err(Error::at("create", &path))?;
            return Ok((path, false));
        }
        let volume = VolumeRecord { name: name.to_owned(), created: Timestamp::now(), labels, anonymous };
        std::fs::create_dir_all(&path).map_err(Error::at("create", &path))?;
        if let Err(error) = self.record.put(Kind::Volume, name, &volume).await {
            delete(self.discard(name)?);
            return Err(error.into());
        }
        self.known().insert(name.to_owned(), volume);
        Ok((path, true))
    }

    /// Removes a volume and its content; whether it is used is the caller's question. Interrupted, it leaves an empty
    /// volume or none.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        let trash = self.discard(name)?;
        self.record.remove(Kind::Volume, name).await?;
        self.known().remove(name);
        delete(trash);
        Ok(())
    }

    fn discard(&self, name: &str) -> Result<Option<PathBuf>> {
        let dir = self.layout.volumes().join(name);
        let unique = crate::names::new_id(&mut rand::rng());
        self.layout.discard(&dir, &unique[..8]).map_err(Error::at("remove", &dir))
    }
}

/// Deletes in the background what has been taken out of the way.
fn delete(trash: Option<PathBuf>) {
    let Some(path) = trash else { return };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "removed files stay until the next start");
        }
    });
}

impl Engine {
    /// Fills the empty volumes of a new container with what its image has where they are mounted.
    pub(crate) fn populate_volumes(&self, spec: &ContainerSpec) -> Result<()> {
        let wanting: Vec<_> = spec
            .mounts
            .iter()
            .filter(|m| m.kind == MountKind::Volume && m.copy && is_empty(Path::new(&m.source)))
            .collect();
        if wanting.is_empty() {
            return Ok(());
        }
        let rootfs = self.images.ensure_mounted(&spec.id)?.path;
        let copied = wanting.iter().try_for_each(|mount| {
            copy::populate(&rootfs, &mount.destination, Path::new(&mount.source))
                .map_err(Error::at("copy the image's content to", &mount.source))
        });
        self.images.ensure_unmounted(&spec.id)?;
        copied
    }

    /// The containers that mount a volume.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let all = self.containers.all().into_iter();
        let users = all.filter(|c| c.spec().mounts.iter().any(|m| m.kind == MountKind::Volume && m.volume == name));
        users.map(|container| container.id.clone()).collect()
    }

    /// Removes a volume that came with a container, unless another container uses it too.
    pub(crate) async fn remove_anonymous_volume(&self, name: &str) {
        let _changing = self.volumes.changing.lock().await;
        if !self.volume_users(name).is_empty() {
            return;
        }
        match self.volumes.remove(name).await {
            Ok(()) => self.volume_event(name, "destroy", &[("driver", "local".to_owned())]),
            Err(Error::NoSuchVolume(_)) => {}
            Err(error) => tracing::warn!(volume = name, %error, "an anonymous volume stays"),
        }
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn volumes_outlive_the_daemon_and_half_made_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), dir.path());
        layout.ensure().map_err(|(_, e)| e).unwrap();
        let root = layout.volumes();
        std::fs::create_dir_all(root.join("half/_data")).unwrap();
        std::fs::create_dir_all(root.join("lost/_data/content")).unwrap();
        let record = Record::open(&dir.path().join("db")).unwrap();
        let volumes = Volumes::open(&layout, record.clone()).unwrap();
        assert!(!root.join("half").exists());
        assert!(root.join("lost/_data/content").exists(), "someone's data is never swept");
        let labels = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let (path, new) = volumes.ensure("data", labels.clone(), false).await.unwrap();
        assert!(new && path.is_dir());
        assert!(!volumes.ensure("data", HashMap::new(), true).await.unwrap().1);
        let again = Volumes::open(&layout, record).unwrap();
        assert_eq!(again.get("data").unwrap().labels, labels);
        again.remove("data").await.unwrap();
        assert!(!path.exists());
        assert_eq!(again.get("data").unwrap_err().to_string(), "get data: no such volume");
    }
}
