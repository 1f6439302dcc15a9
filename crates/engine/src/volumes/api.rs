//! `docker volume`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bollard_stubs::models::{
    Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse, VolumeScopeEnum, VolumeUsageData,
};

use super::VolumeRecord;
use crate::container::filter::matches_label;
use crate::engine::{Engine, blocking, detached};
use crate::error::{Error, Result};
use crate::names;
use crate::options::Filters;

/// What Docker's driver `local` can be told.
const LOCAL_OPTIONS: [&str; 4] = ["type", "o", "device", "size"];

impl Engine {
    /// Volumes, by name. Filters: dangling, driver, label, name.
    pub async fn list_volumes(&self, filters: &Filters) -> Result<VolumeListResponse> {
        check_filters(filters, &["dangling", "driver", "label", "name"])?;
        let dangling = flag(filters, "dangling")?;
        let passes = |volume: &VolumeRecord| {
            let any =
                |name: &str, test: &dyn Fn(&str) -> bool| filters.get(name).is_none_or(|v| v.iter().any(|v| test(v)));
            any("name", &|v| volume.name.contains(v))
                && any("driver", &|v| v == "local")
                && filters.get("label").is_none_or(|v| v.iter().all(|v| matches_label(Some(&volume.labels), v)))
                && dangling.is_none_or(|wanted| self.volume_users(&volume.name).is_empty() == wanted)
        };
        let volumes = self.volumes.all().iter().filter(|v| passes(v)).map(|v| self.volume_body(v)).collect();
        Ok(VolumeListResponse { volumes: Some(volumes), warnings: None })
    }

    /// Makes a volume; one that is there is as good.
    pub async fn create_volume(self: &Arc<Self>, request: VolumeCreateRequest) -> Result<Volume> {
        match request.driver.as_deref().unwrap_or_default() {
            "" | "local" => {}
            driver => return Err(Error::unsupported(format!("the volume driver {driver:?}"))),
        }
        if request.cluster_volume_spec.is_some() {
            return Err(Error::unsupported("cluster volumes"));
        }
        if let Some((option, _)) = request.driver_opts.iter().flatten().next() {
            return Err(if LOCAL_OPTIONS.contains(&option.as_str()) {
                Error::unsupported("options of the volume driver \"local\"")
            } else {
                Error::invalid(format!("create {}: invalid option: {option:?}", request.name.unwrap_or_default()))
            });
        }
        let (name, anonymous) = match request.name.filter(|name| !name.is_empty()) {
            Some(name) => (name, false),
            None => (names::new_id(&mut rand::rng()), true),
        };
        names::check_volume_name(&name)?;
        let labels = request.labels.unwrap_or_default();
        let engine = self.clone();
        detached(async move {
            let (_, new) = engine.volumes.ensure(&name, labels, anonymous).await?;
            if new {
                engine.volume_event(&name, "create", &[("driver", "local".to_owned())]);
            }
            Ok(engine.volume_body(&engine.volumes.get(&name)?))
        })
        .await
    }

    /// One volume.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        Ok(self.volume_body(&self.volumes.get(name)?))
    }

    /// Removes a volume that no container uses. `force`: one that is not there is no error.
    pub async fn remove_volume(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        let (engine, name) = (self.clone(), name.to_owned());
        detached(async move {
            let _changing = engine.volumes.changing.lock().await;
            match engine.volumes.get(&name) {
                Err(Error::NoSuchVolume(_)) if force => return Ok(()),
                other => drop(other?),
            }
            let users = engine.volume_users(&name);
            if !users.is_empty() {
                return Err(Error::Conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
            }
            engine.volumes.remove(&name).await?;
            engine.volume_event(&name, "destroy", &[("driver", "local".to_owned())]);
            Ok(())
        })
        .await
    }

    /// Removes anonymous volumes that no container uses; with the filter `all`, named ones too. Filters: all, label, label!.
    pub async fn prune_volumes(self: &Arc<Self>, filters: &Filters) -> Result<VolumePruneResponse> {
        check_filters(filters, &["all", "label", "label!"])?;
        let all = flag(filters, "all")?.unwrap_or_default();
        let (mut deleted, mut freed) = (Vec::new(), 0_u64);
        for volume in self.volumes.all() {
            let labels = |name: &str| filters.get(name).map(Vec::as_slice).unwrap_or_default();
            let wanted = (all || volume.anonymous)
                && labels("label").iter().all(|l| matches_label(Some(&volume.labels), l))
                && !labels("label!").iter().any(|l| matches_label(Some(&volume.labels), l));
            if !wanted || !self.volume_users(&volume.name).is_empty() {
                continue;
            }
            let size = self.volume_size(&volume.name).await;
            // one that is used or gone by now is left alone
            if self.remove_volume(&volume.name, false).await.is_ok() {
                freed = freed.saturating_add(size);
                deleted.push(volume.name);
            }
        }
        Ok(VolumePruneResponse { volumes_deleted: Some(deleted), space_reclaimed: i64::try_from(freed).ok() })
    }

    fn volume_body(&self, volume: &VolumeRecord) -> Volume {
        Volume {
            name: volume.name.clone(),
            driver: "local".to_owned(),
            mountpoint: self.volumes.data(&volume.name).to_string_lossy().into_owned(),
            created_at: Some(volume.created.to_string()),
            labels: volume.labels.clone(),
            scope: Some(VolumeScopeEnum::LOCAL),
            options: HashMap::new(),
            ..Volume::default()
        }
    }

    /// Every volume with its size and how many containers use it.
    pub(crate) async fn volume_usage(&self) -> Vec<Volume> {
        let mut all = Vec::new();
        for volume in self.volumes.all() {
            let size = i64::try_from(self.volume_size(&volume.name).await).unwrap_or(i64::MAX);
            let ref_count = i64::try_from(self.volume_users(&volume.name).len()).unwrap_or(i64::MAX);
            all.push(Volume { usage_data: Some(VolumeUsageData { size, ref_count }), ..self.volume_body(&volume) });
        }
        all
    }

    async fn volume_size(&self, name: &str) -> u64 {
        let path = self.volumes.data(name);
        blocking(move || tree_size(&path)).await
    }
}

/// Bytes on the disk below a path; what cannot be read counts as nothing.
fn tree_size(path: &Path) -> u64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    let below = if meta.is_dir() { std::fs::read_dir(path).ok() } else { None };
    meta.blocks() * 512 + below.into_iter().flatten().flatten().map(|entry| tree_size(&entry.path())).sum::<u64>()
}

/// Refuses filters that there are none of.
pub(crate) fn check_filters(filters: &Filters, names: &[&str]) -> Result<()> {
    match filters.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
        None => Ok(()),
    }
}

/// A filter that is true or false; `None`: it is not there.
pub(crate) fn flag(filters: &Filters, name: &str) -> Result<Option<bool>> {
    let Some(value) = filters.get(name).and_then(|values| values.first()) else { return Ok(None) };
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(Some(true)),
        "0" | "f" | "false" => Ok(Some(false)),
        _ => Err(Error::invalid(format!("invalid filter '{name}={value}'"))),
    }
}
