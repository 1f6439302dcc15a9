//! Removing a container.

use std::sync::Arc;

use super::Container;
use super::spec::MountKind;
use super::status::Phase;
use crate::engine::{Engine, blocking, detached};
use crate::error::{Error, Result};
use crate::options::RemoveOptions;
use crate::record::Kind;

impl Engine {
    /// Removes a container: its record, its files, its log.
    pub async fn remove(self: &Arc<Self>, name: &str, options: RemoveOptions) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move { engine.apply_remove(&container, options).await }).await
    }

    pub(crate) async fn apply_remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<()> {
        begin(container, options.force)?;
        let removed = self.take_apart(container, options).await;
        if removed.is_err() {
            container.data().removing = false;
        }
        removed
    }

    async fn take_apart(self: &Arc<Self>, container: &Arc<Container>, options: RemoveOptions) -> Result<()> {
        self.end_at_once(container).await?;
        let _operation = container.operation.lock().await;
        // a start that was under way when the removal began
        self.end_at_once(container).await?;
        let spec = container.spec();
        self.forget_files(&container.id).await?;
        self.discard_files(&container.id).await?;
        self.containers.remove(&container.id);
        container.data().attachers.clear();
        self.record.forget(Kind::Container, &container.id);
        if options.volumes {
            for mount in spec.mounts.iter().filter(|m| m.kind == MountKind::Volume && m.anonymous) {
                self.remove_anonymous_volume(&mount.volume).await;
            }
        }
        self.container_event(container, "destroy", &[]);
        container.see(|seen| {
            seen.running = false;
            seen.removed = true;
        });
        Ok(())
    }

    /// The directory goes first and in one step: without it, the record means nothing (see [`crate::adopt`]). The rest
    /// follows in the background, or at the next start.
    async fn discard_files(self: &Arc<Self>, id: &str) -> Result<()> {
        let (engine, owned) = (self.clone(), id.to_owned());
        let discarded = blocking(move || {
            let dir = engine.layout.container(&owned);
            let unique = crate::names::new_id(&mut rand::rng());
            engine.layout.discard(&dir, &unique[..8]).map_err(Error::at("remove", &dir))
        })
        .await?;
        let (engine, id) = (self.clone(), id.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = engine.images.remove_snapshot(&id) {
                tracing::warn!(container = id, %error, "root file system of a removed container stays until the next start");
            }
            if let Some(path) = discarded
                && let Err(error) = std::fs::remove_dir_all(&path)
            {
                tracing::warn!(path = %path.display(), %error, "removed container's files stay until the next start");
            }
        });
        Ok(())
    }
}

/// Only one removal at a time, and only of what may be removed.
fn begin(container: &Container, force: bool) -> Result<()> {
    let mut data = container.data();
    if data.removing {
        return Err(Error::Conflict(format!("removal of container {} is already in progress", container.id)));
    }
    let (state, advice) = match data.status.phase {
        Phase::Running => ("running", "stop the container before removing or force remove"),
        Phase::Restarting => ("restarting", "stop the container before removing or force remove"),
        Phase::Paused => ("paused", "the container must be unpaused before removing or force remove"),
        Phase::Created | Phase::Exited => ("", ""),
    };
    if !force && !state.is_empty() {
        let name = format!("/{}", data.spec.name);
        return Err(Error::Conflict(format!("cannot remove container {name:?}: container is {state}: {advice}")));
    }
    data.removing = true;
    Ok(())
}
