//! Renaming a container.

use std::sync::Arc;

use super::spec::ContainerSpec;
use crate::engine::{Engine, detached};
use crate::error::{Error, Result};
use crate::names;
use crate::record::Kind;

impl Engine {
    /// Gives a container another name.
    pub async fn rename(self: &Arc<Self>, name: &str, new_name: &str) -> Result<()> {
        if new_name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let container = self.containers.find(name)?;
        let new = names::check_container_name(new_name)?.to_owned();
        let engine = self.clone();
        detached(async move {
            let _operation = container.operation.lock().await;
            let old = container.spec();
            if old.name == new {
                return Err(Error::invalid("Renaming a container with the same name as its current name"));
            }
            engine.containers.reserve(&new, &container.id)?;
            let spec = ContainerSpec { name: new.clone(), ..(*old).clone() };
            if let Err(error) = engine.record.put(Kind::Container, &container.id, &spec).await {
                engine.containers.release(&new, &container.id);
                return Err(error.into());
            }
            container.data().spec = Arc::new(spec);
            engine.containers.release(&old.name, &container.id);
            engine.network.rename(&container.id, &new);
            engine.container_event(&container, "rename", &[("oldName", format!("/{}", old.name))]);
            Ok(())
        })
        .await
    }
}
