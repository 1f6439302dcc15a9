//! Images of this node, as Docker's API sees them. The content is the image crate's business; here are who uses an image,
//! events, and bodies.

mod body;
mod fetch;
mod list;

pub use fetch::{FetchError, FetchMessage};
pub(crate) use list::parse_time;

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{EventMessageTypeEnum, ImageHistoryResponseItem, ImageInspect};
use shoal_image::{
    Digest, DistributionInspect, Image, ImageUser, Reference, ReferenceError, RegistryAuth, RemoveOptions, Removed,
    ResolveError,
};

use crate::engine::{Engine, detached};
use crate::error::{Error, Result};

impl Engine {
    /// One image by reference, id or beginning of an id.
    pub async fn inspect_image(&self, name: &str) -> Result<ImageInspect> {
        Ok(body::inspect(&*self.resolve_image(name)?))
    }

    /// How an image came to be, newest step first.
    pub async fn image_history(&self, name: &str) -> Result<Vec<ImageHistoryResponseItem>> {
        Ok(body::history(&*self.resolve_image(name)?))
    }

    /// Gives an image another name: `repo`, with `tag` or `latest`.
    pub async fn tag(self: &Arc<Self>, name: &str, repo: &str, tag: Option<&str>) -> Result<()> {
        self.resolve_image(name)?;
        let mut target = Reference::parse(repo).map_err(reference_error)?;
        if target.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
            target = target.with_tag(tag).map_err(|_| Error::invalid("invalid tag format"))?;
        }
        let target = target.with_default_tag();
        let (engine, name) = (self.clone(), name.to_owned());
        detached(async move {
            let id = engine.images.tag(&name, &target).await?;
            engine.image_event("tag", &id.to_string(), &target.familiar());
            Ok(())
        })
        .await
    }

    /// Removes a name of an image, and with its last name the image.
    pub async fn remove_image(self: &Arc<Self>, name: &str, force: bool, _prune: bool) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        detached(async move {
            let id = engine.resolve_image(&name)?.id.to_string();
            let users = engine.image_users();
            let removed =
                engine.images.remove(&name, RemoveOptions { force }, &users).await.map_err(|error| match error {
                    shoal_image::RemoveError::Resolve(ResolveError::NotFound(_)) => {
                        Error::NoSuchImage(full_name(&name))
                    }
                    other => other.into(),
                })?;
            for item in &removed {
                match item {
                    Removed::Untagged(_) => engine.image_event("untag", &id, &id),
                    // layers are deleted too, but only the image is an event
                    Removed::Deleted(deleted) if *deleted == id => engine.image_event("delete", &id, &id),
                    Removed::Deleted(_) => {}
                }
            }
            Ok(removed)
        })
        .await
    }

    /// What a reference means at its registry, without pulling it.
    pub async fn distribution(&self, name: &str, auth: Option<RegistryAuth>) -> Result<DistributionInspect> {
        let reference = Reference::parse(name).map_err(reference_error)?;
        // here Docker passes the registry's refusals on as they are, other than for a pull
        self.images.distribution_inspect(&reference, auth.as_ref()).await.map_err(|error| match error.code() {
            Some("UNAUTHORIZED") => Error::Unauthorized(error.to_string()),
            Some("DENIED") => Error::Forbidden(error.to_string()),
            _ => error.into(),
        })
    }

    pub(crate) fn resolve_image(&self, name: &str) -> Result<Arc<Image>> {
        self.images.resolve(name).map_err(|error| match error {
            ResolveError::NotFound(_) => Error::NoSuchImage(full_name(name)),
            other => other.into(),
        })
    }

    pub(crate) fn image_users(&self) -> Vec<ImageUser> {
        let all = self.containers.all().into_iter();
        all.map(|container| {
            let data = container.data();
            ImageUser { container: container.id.clone(), image: data.spec.image_id, running: data.status.is_running() }
        })
        .collect()
    }

    /// Emits an event of an image.
    pub(crate) fn image_event(&self, action: &str, id: &str, name: &str) {
        let labels = id.parse::<Digest>().ok().and_then(|id| self.images.get(&id));
        let labels = labels.map(|image| image.config.config.labels.clone()).unwrap_or_default();
        let mut attributes: HashMap<String, String> = labels.into_iter().collect();
        attributes.insert("name".to_owned(), name.to_owned());
        self.events.emit(EventMessageTypeEnum::IMAGE, action, id, attributes);
    }
}

/// `busybox` → `busybox:latest`; what is no reference stays.
pub(crate) fn full_name(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.with_default_tag().familiar())
}

fn reference_error(error: ReferenceError) -> Error {
    Error::InvalidParameter(error.to_string())
}
