//! From a user's words to an image. Pure.
//!
//! The order is Docker's: a whole id is an id, then references, then the beginning of an id.

use crate::digest::{Digest, ImageId};
use crate::error::ResolveError;
use crate::meta::Meta;
use crate::reference::{Reference, is_image_id};

/// The image that `name` means.
pub(crate) fn resolve(meta: &Meta, name: &str) -> Result<ImageId, ResolveError> {
    if let Some(id) = whole_id(name) {
        return meta.images.contains_key(&id).then_some(id).ok_or_else(|| ResolveError::NotFound(id.to_string()));
    }
    let reference = Reference::parse(name)?;
    if let Some(id) = meta.references.get(&reference.key()) {
        return Ok(*id);
    }
    match by_prefix(meta, name)[..] {
        [id] => Ok(id),
        [] => Err(ResolveError::NotFound(reference.with_default_tag().familiar())),
        ref several => Err(ResolveError::Ambiguous { prefix: name.to_owned(), count: several.len() }),
    }
}

/// Whether `name` means image `id` by its digits rather than by a reference.
pub(crate) fn is_id_prefix(id: &ImageId, name: &str) -> bool {
    id.hex().starts_with(name.strip_prefix("sha256:").unwrap_or(name))
}

fn whole_id(name: &str) -> Option<ImageId> {
    if is_image_id(name) { format!("sha256:{name}").parse().ok() } else { name.parse::<Digest>().ok() }
}

fn by_prefix(meta: &Meta, name: &str) -> Vec<ImageId> {
    meta.images.keys().filter(|id| is_id_prefix(id, name)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::ImageRecord;

    fn meta() -> (Meta, ImageId) {
        let id = Digest::of(b"image");
        let mut meta = Meta::default();
        meta.images.insert(id, ImageRecord::default());
        for name in ["app:1", "localhost:5000/team/app"] {
            meta.references.insert(Reference::parse(name).expect("valid").key(), id);
        }
        let by_digest = Reference::parse("app").expect("valid").with_digest(Digest::of(b"manifest"));
        meta.references.insert(by_digest, id);
        (meta, id)
    }

    #[test]
    fn ids_prefixes_and_references_lead_to_the_image() {
        let (meta, id) = meta();
        let manifest = Digest::of(b"manifest");
        let names = [
            id.to_string(),
            id.hex(),
            id.short(),
            format!("sha256:{}", id.short()),
            "app:1".to_owned(),
            "docker.io/library/app:1".to_owned(),
            "localhost:5000/team/app:latest".to_owned(),
            format!("app@{manifest}"),
            format!("app:whatever@{manifest}"),
        ];
        for name in names {
            assert_eq!(resolve(&meta, &name), Ok(id), "{name}");
        }
    }

    #[test]
    fn unknown_names_get_dockers_words() {
        let (meta, _) = meta();
        let error = |name: &str| resolve(&meta, name).expect_err("unknown").to_string();
        assert_eq!(error("app"), "No such image: app:latest");
        assert_eq!(error("nope/x:2"), "No such image: nope/x:2");
        let id = "f".repeat(64);
        assert_eq!(error(&id), format!("No such image: sha256:{id}"));
        assert_eq!(error("a b"), "invalid reference format");
    }

    #[test]
    fn a_prefix_of_two_ids_is_ambiguous() {
        let mut meta = Meta::default();
        for number in 0..64u8 {
            meta.images.insert(Digest::of(&[number]), ImageRecord::default());
        }
        let first = meta.images.keys().next().expect("some").hex();
        let error = resolve(&meta, &first[..1]).expect_err("64 ids share 16 first digits");
        assert!(matches!(error, ResolveError::Ambiguous { count: 2.., .. }), "{error}");
    }
}
