//! OCI image layouts: an `index.json` over `blobs/`.

use std::collections::BTreeMap;

use super::Found;
use super::spool::{Member, Spool};
use crate::error::LoadError;
use crate::reference::Reference;
use crate::registry::{Content, Descriptor, Document, Platform, select};

/// Where tools write an image's name.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An index may point at an index, but not for ever.
const MAX_LISTS: usize = 3;

/// The layout's images for this machine.
pub(super) fn find(spool: &Spool) -> Result<Vec<Found>, LoadError> {
    let bytes = spool.document("index.json")?;
    let index = parse("index.json", &bytes)?;
    let Content::List(entries) = index.content else {
        return Err(LoadError::Malformed { name: "index.json".to_owned(), reason: "it is no index".to_owned() });
    };
    // the images of several platforms may stand side by side under one name
    let mut by_name: BTreeMap<Option<Reference>, Vec<Descriptor>> = BTreeMap::new();
    for entry in entries {
        by_name.entry(name_of(&entry)).or_default().push(entry);
    }
    let mut found = Vec::new();
    for (name, entries) in by_name {
        let is_choice = entries.len() > 1 && entries.iter().any(|entry| entry.platform.is_some());
        let chosen = if is_choice { vec![choose(&entries)?] } else { entries.iter().collect() };
        for entry in chosen {
            found.push(find_image(spool, entry, name.iter().cloned().collect())?);
        }
    }
    if found.is_empty() { Err(LoadError::NoImage) } else { Ok(found) }
}

fn find_image(spool: &Spool, entry: &Descriptor, tags: Vec<Reference>) -> Result<Found, LoadError> {
    let mut entry = entry.clone();
    for _ in 0..MAX_LISTS {
        let name = blob_name(&entry);
        blob(spool, &entry)?;
        match parse(&name, &spool.document(&name)?)?.content {
            Content::List(list) => entry = choose(&list)?.clone(),
            Content::Image { config, layers } => {
                blob(spool, &config)?;
                let document = spool.document(&blob_name(&config))?;
                let layers = layers.iter().map(|layer| blob(spool, layer)).collect::<Result<_, _>>()?;
                return Ok(Found { document, layers, tags });
            }
        }
    }
    Err(LoadError::Malformed { name: "index.json".to_owned(), reason: "it leads only to other indexes".to_owned() })
}

fn choose(list: &[Descriptor]) -> Result<&Descriptor, LoadError> {
    let host = Platform::host();
    select(list, &host).ok_or_else(|| LoadError::NoPlatform(host.to_string()))
}

fn parse(name: &str, bytes: &[u8]) -> Result<Document, LoadError> {
    Document::parse(bytes, "")
        .map_err(|error| LoadError::Malformed { name: name.to_owned(), reason: error.to_string() })
}

fn blob_name(entry: &Descriptor) -> String {
    format!("blobs/sha256/{}", entry.digest.hex())
}

/// The member that a descriptor means, which must be what the descriptor says.
fn blob(spool: &Spool, entry: &Descriptor) -> Result<Member, LoadError> {
    let name = blob_name(entry);
    let member = spool.member(&name)?;
    if (member.digest, member.size) != (entry.digest, entry.size) {
        let expected = format!("{} of {} bytes", entry.digest, entry.size);
        let actual = format!("{} of {} bytes", member.digest, member.size);
        return Err(LoadError::Digest { name, expected, actual });
    }
    Ok(member.clone())
}

/// The reference that an entry is annotated with. A bare tag names no repository, so it is none.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations.as_ref()?;
    let name = NAMES.iter().filter_map(|key| annotations.get(*key)).find(|name| name.contains([':', '/']))?;
    Reference::parse(name).ok().filter(|reference| reference.digest().is_none()).map(|reference| reference.key())
}
