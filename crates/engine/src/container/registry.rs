//! Which containers there are, and which one a user means.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use super::Container;
use crate::error::{Error, Result};

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Registry(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Also names that are reserved by a creation that has not finished.
    ids: HashMap<String, String>,
}

impl Registry {
    /// The container that a name, an id or the beginning of an id means, in this order.
    pub fn find(&self, text: &str) -> Result<Arc<Container>> {
        let inner = self.0.read().expect("no holder panics");
        if let Some(container) = inner.by_id.get(text) {
            return Ok(container.clone());
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(container) = inner.ids.get(name).and_then(|id| inner.by_id.get(id)) {
            return Ok(container.clone());
        }
        if text.is_empty() {
            return Err(Error::NoSuchContainer(text.to_owned()));
        }
        let mut matching = inner.by_id.range(text.to_owned()..).take_while(|(id, _)| id.starts_with(text));
        match (matching.next(), matching.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(Error::AmbiguousContainer(text.to_owned())),
            _ => Err(Error::NoSuchContainer(text.to_owned())),
        }
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.0.read().expect("no holder panics").by_id.values().cloned().collect()
    }

    /// Takes a name for an id.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut inner = self.0.write().expect("no holder panics");
        match inner.ids.get(name) {
            Some(holder) => Err(Error::NameInUse { name: format!("/{name}"), holder: holder.clone() }),
            None => {
                inner.ids.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if it is this id's.
    pub fn release(&self, name: &str, id: &str) {
        let mut inner = self.0.write().expect("no holder panics");
        if inner.ids.get(name).is_some_and(|holder| holder == id) {
            inner.ids.remove(name);
        }
    }

    /// Makes a container known; its name has been reserved.
    pub fn insert(&self, container: Arc<Container>) {
        self.0.write().expect("no holder panics").by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container and its name.
    pub fn remove(&self, id: &str) {
        let mut inner = self.0.write().expect("no holder panics");
        inner.by_id.remove(id);
        inner.ids.retain(|_, holder| holder != id);
    }
}
