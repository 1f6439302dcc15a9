//! Volumes of the `local` driver: directories under the data root that outlive containers.

pub(crate) mod api;
mod copy;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::spec::{ContainerSpec, MountKind};
use crate::engine::{Engine, blocking};
use crate::error::{Error, RecordError, Result};
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
    root: PathBuf,
    record: Record,
    known: Mutex<BTreeMap<String, VolumeRecord>>,
    /// One change at a time: a volume is not removed while a container that wants it is being made.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Volumes {
    /// Reads the record, and sweeps directories that no volume has.
    pub fn open(root: PathBuf, record: Record) -> Result<Self, RecordError> {
        let all: Vec<VolumeRecord> = record.load(Kind::Volume)?;
        let known: BTreeMap<_, _> = all.into_iter().map(|volume| (volume.name.clone(), volume)).collect();
        // half-made: the record is written last
        for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !known.contains_key(&name)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(volume = name, %error, "a directory without a volume stays");
            }
        }
        Ok(Self { root, record, known: Mutex::new(known), changing: tokio::sync::Mutex::default() })
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
        self.root.join(name).join("_data")
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
            return Ok((path, false));
        }
        let volume = VolumeRecord { name: name.to_owned(), created: Timestamp::now(), labels, anonymous };
        std::fs::create_dir_all(&path).map_err(Error::at("create", &path))?;
        if let Err(error) = self.record.put(Kind::Volume, name, &volume).await {
            self.delete(name).await;
            return Err(error.into());
        }
        self.known().insert(name.to_owned(), volume);
        Ok((path, true))
    }

    /// Removes a volume and its content; whether it is used is the caller's question.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        self.record.remove(Kind::Volume, name).await?;
        self.known().remove(name);
        self.delete(name).await;
        Ok(())
    }

    async fn delete(&self, name: &str) {
        let (dir, name) = (self.root.join(name), name.to_owned());
        blocking(move || {
            if let Err(error) = std::fs::remove_dir_all(&dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(volume = name, %error, "files of a removed volume stay until the next start");
            }
        })
        .await;
    }
}

impl Engine {
    /// Fills the empty volumes of a new container with what its image has where they are mounted.
    pub(crate) fn populate_volumes(&self, spec: &ContainerSpec) -> Result<()> {
        let wanting: Vec<_> =
            spec.mounts.iter().filter(|m| m.kind == MountKind::Volume && m.copy && is_empty(Path::new(&m.source))).collect();
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
        let root = dir.path().join("volumes");
        std::fs::create_dir_all(root.join("half/_data")).unwrap();
        let record = Record::open(&dir.path().join("db")).unwrap();
        let volumes = Volumes::open(root.clone(), record.clone()).unwrap();
        assert!(!root.join("half").exists());
        let labels = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let (path, new) = volumes.ensure("data", labels.clone(), false).await.unwrap();
        assert!(new && path.is_dir());
        assert!(!volumes.ensure("data", HashMap::new(), true).await.unwrap().1);
        let again = Volumes::open(root, record).unwrap();
        assert_eq!(again.get("data").unwrap().labels, labels);
        again.remove("data").await.unwrap();
        assert!(!path.exists());
        assert_eq!(again.get("data").unwrap_err().to_string(), "get data: no such volume");
    }
}
