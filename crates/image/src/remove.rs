//! Removing images: Docker's rules for what untags, what deletes and what is in the way.

use serde::Serialize;

use crate::digest::ImageId;
use crate::error::RemoveError;
use crate::meta::Meta;
use crate::reference::Reference;
use crate::resolve::{is_id_prefix, resolve};
use crate::store::ImageStore;

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// The container's full id.
    pub container: String,
    /// The image that it was made from.
    pub image: ImageId,
    /// Whether it runs.
    pub running: bool,
}

/// How to remove an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Override what can be overridden: several names, stopped containers.
    pub force: bool,
}

/// What was removed, in the shape of the API's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Removed {
    /// A reference, in familiar form.
    Untagged(String),
    /// An image id or a layer's chain id.
    Deleted(String),
}

impl ImageStore {
    /// Removes what `name` means: one name of an image, and the image itself with its last name. `users` are all
    /// containers of this node. Images have no parents here, so Docker's `noprune` changes nothing.
    pub async fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        users: &[ImageUser],
    ) -> Result<Vec<Removed>, RemoveError> {
        let (name, users) = (name.to_owned(), users.to_vec());
        self.blocking(move |inner| {
            inner.change(|meta, volatile| {
                let before = meta.clone();
                let mut removed = plan_remove(meta, &name, options, &users)?;
                // the layers that go with the image are known only after the sweep
                let leased = volatile.leases.keys().copied().chain(volatile.snapshots.values().flatten().copied());
                let garbage = meta.sweep(&before, leased);
                let mut layers = garbage.layers;
                layers.sort_by_key(|(chain, _)| std::cmp::Reverse(before.stack(chain).len()));
                removed.extend(layers.iter().map(|(chain, _)| Removed::Deleted(chain.to_string())));
                Ok(removed)
            })
        })
        .await
    }
}

/// Takes references and perhaps the image out of `meta`. Pure.
fn plan_remove(
    meta: &mut Meta,
    name: &str,
    options: RemoveOptions,
    users: &[ImageUser],
) -> Result<Vec<Removed>, RemoveError> {
    let id = resolve(meta, name)?;
    let users: Vec<&ImageUser> = users.iter().filter(|user| user.image == id).collect();
    let references = meta.references_of(&id);
    let mut removed = Vec::new();
    if is_id_prefix(&id, name) {
        find_running(&id, &users)?;
        if !are_one_repository(&references) && !options.force {
            return Err(must_force(&id, "image is referenced in multiple repositories".to_owned()));
        }
        find_stopped(&id, &users, options)?;
        untag(meta, references, &mut removed);
        delete(meta, &id, &mut removed);
        return Ok(removed);
    }

    if let (false, true, Some(user)) = (options.force, are_one_repository(&references), users.first()) {
        let container = short(&user.container);
        return Err(RemoveError::ReferenceInUse { reference: name.to_owned(), container, image: id.short() });
    }
    let reference = Reference::parse(name).map_err(crate::error::ResolveError::from)?.key();
    let orphans = orphaned_digests(&references, &reference);
    untag(meta, std::iter::once(reference).chain(orphans), &mut removed);
    // with its last name the image goes too, unless a container still needs it
    let is_needed = find_running(&id, &users).and_then(|()| find_stopped(&id, &users, options)).is_err();
    if meta.references_of(&id).is_empty() && !is_needed {
        delete(meta, &id, &mut removed);
    }
    Ok(removed)
}

fn untag(meta: &mut Meta, references: impl IntoIterator<Item = Reference>, removed: &mut Vec<Removed>) {
    for reference in references {
        meta.references.remove(&reference);
        removed.push(Removed::Untagged(reference.familiar()));
    }
}

fn delete(meta: &mut Meta, id: &ImageId, removed: &mut Vec<Removed>) {
    meta.images.remove(id);
    removed.push(Removed::Deleted(id.to_string()));
}

/// Docker's "single reference": at most one tag, and digests only of that tag's repository.
fn are_one_repository(references: &[Reference]) -> bool {
    let tags = references.iter().filter(|reference| reference.digest().is_none()).count();
    let one_name = references.windows(2).all(|pair| pair[0].name() == pair[1].name());
    references.len() <= 1 || (tags <= 1 && one_name)
}

/// The digest references that a tag leaves without any tag of their repository.
fn orphaned_digests(references: &[Reference], gone: &Reference) -> Vec<Reference> {
    let same_repository: Vec<&Reference> =
        references.iter().filter(|reference| *reference != gone && reference.name() == gone.name()).collect();
    let is_tag = gone.digest().is_none();
    let tags_remain = same_repository.iter().any(|reference| reference.digest().is_none());
    if is_tag && !tags_remain { same_repository.into_iter().cloned().collect() } else { Vec::new() }
}

fn find_running(id: &ImageId, users: &[&ImageUser]) -> Result<(), RemoveError> {
    users.iter().find(|user| user.running).map_or(Ok(()), |user| {
        let reason = format!("image is being used by running container {}", short(&user.container));
        Err(RemoveError::CannotForce { image: id.short(), reason })
    })
}

fn find_stopped(id: &ImageId, users: &[&ImageUser], options: RemoveOptions) -> Result<(), RemoveError> {
    users.first().filter(|_| !options.force).map_or(Ok(()), |user| {
        Err(must_force(id, format!("image is being used by stopped container {}", short(&user.container))))
    })
}

fn must_force(id: &ImageId, reason: String) -> RemoveError {
    RemoveError::MustForce { image: id.short(), reason }
}

fn short(container: &str) -> String {
    container.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::meta::ImageRecord;

    fn meta(names: &[&str]) -> (Meta, ImageId) {
        let id = Digest::of(b"image");
        let mut meta = Meta::default();
        meta.images.insert(id, ImageRecord::default());
        for name in names {
            meta.references.insert(Reference::parse(name).expect("valid").key(), id);
        }
        (meta, id)
    }

    fn user(id: ImageId, running: bool) -> ImageUser {
        ImageUser { container: "c".repeat(64), image: id, running }
    }

    const FORCE: RemoveOptions = RemoveOptions { force: true };
    const GENTLY: RemoveOptions = RemoveOptions { force: false };

    #[test]
    fn the_last_tag_takes_its_digests_and_the_image_with_it() {
        let digest = Digest::of(b"manifest");
        let (mut meta, id) = meta(&["app:1", &format!("app@{digest}")]);
        let removed = plan_remove(&mut meta, "app:1", GENTLY, &[]).expect("removed");
        let untagged = |name: &str| Removed::Untagged(name.to_owned());
        assert_eq!(removed, [untagged("app:1"), untagged(&format!("app@{digest}")), Removed::Deleted(id.to_string())]);
        assert!(meta.images.is_empty() && meta.references.is_empty());
    }

    #[test]
    fn one_of_two_tags_only_untags_even_in_use() {
        let (mut meta, id) = meta(&["app:1", "app:2"]);
        let removed = plan_remove(&mut meta, "app:1", GENTLY, &[user(id, true)]).expect("removed");
        assert_eq!(removed, [Removed::Untagged("app:1".to_owned())]);
        assert!(meta.images.contains_key(&id));
    }

    #[test]
    fn the_last_tag_of_an_image_in_use_needs_force_and_leaves_a_running_containers_image() {
        let (mut meta, id) = meta(&["app:1"]);
        let error = plan_remove(&mut meta, "app:1", GENTLY, &[user(id, true)]).expect_err("in use");
        assert_eq!(
            error.to_string(),
            format!(
                "conflict: unable to remove repository reference \"app:1\" (must force) - container cccccccccccc is using its referenced image {}",
                id.short()
            )
        );
        let removed = plan_remove(&mut meta, "app:1", FORCE, &[user(id, true)]).expect("forced");
        assert_eq!(removed, [Removed::Untagged("app:1".to_owned())]);
        assert!(meta.images.contains_key(&id), "a running container's image stays, without a name");
    }

    #[test]
    fn by_id_a_stopped_container_or_several_repositories_need_force_and_a_running_one_wins() {
        let (mut meta, id) = meta(&["app:1", "other:1"]);
        let text = |meta: &mut Meta, options, users: &[ImageUser]| {
            plan_remove(meta, &id.short(), options, users).expect_err("conflict").to_string()
        };
        assert_eq!(
            text(&mut meta, GENTLY, &[]),
            format!(
                "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                id.short()
            )
        );
        assert_eq!(
            text(&mut meta, FORCE, &[user(id, true)]),
            format!(
                "conflict: unable to delete {} (cannot be forced) - image is being used by running container cccccccccccc",
                id.short()
            )
        );
        meta.references.remove(&Reference::parse("other:1").expect("valid"));
        assert_eq!(
            text(&mut meta, GENTLY, &[user(id, false)]),
            format!(
                "conflict: unable to delete {} (must be forced) - image is being used by stopped container cccccccccccc",
                id.short()
            )
        );
        let removed = plan_remove(&mut meta, &id.to_string(), FORCE, &[user(id, false)]).expect("forced");
        assert_eq!(removed.len(), 2);
        assert!(meta.images.is_empty());
    }
}
