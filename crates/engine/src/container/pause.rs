//! Freezing and thawing.

use std::sync::Arc;

use shoal_runtime::Supervisor;

use super::Container;
use super::status::Phase;
use crate::engine::{Engine, detached};
use crate::error::{Error, Result};

impl Engine {
    /// Freezes all processes of a container.
    pub async fn pause(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            if container.phase() == Phase::Paused {
                return Err(Error::Conflict(format!("Container {} is already paused", container.id)));
            }
            container.supervisor()?.pause().await?;
            container.set_status(|data| {
                if data.status.phase == Phase::Running {
                    data.status.phase = Phase::Paused;
                }
            });
            engine.container_event(&container, "pause", &[]);
            Ok(())
        })
        .await
    }

    /// Undoes [`pause`](Self::pause).
    pub async fn unpause(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            if container.phase() != Phase::Paused {
                return Err(Error::Conflict(format!("Container {} is not paused", container.id)));
            }
            let supervisor = container.supervisor()?;
            engine.thaw(&container, &supervisor).await
        })
        .await
    }

    pub(super) async fn thaw(&self, container: &Arc<Container>, supervisor: &Supervisor) -> Result<()> {
        supervisor.resume().await?;
        container.set_status(|data| {
            if data.status.phase == Phase::Paused {
                data.status.phase = Phase::Running;
            }
        });
        self.container_event(container, "unpause", &[]);
        Ok(())
    }
}
