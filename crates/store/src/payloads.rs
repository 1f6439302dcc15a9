//! A table of secrets or configs, found by identifier and by name in any case.

use std::sync::Arc;

use imbl::OrdMap;
use shoal_types::Id;
use shoal_types::payload::Payload;
use shoal_types::view::List;

/// All secrets, or all configs. Cloning it takes constant time and memory.
#[derive(Debug)]
pub(crate) struct Payloads<K> {
    by_id: OrdMap<Id<K>, Arc<Payload<K>>>,
    /// Lower-cased names.
    names: OrdMap<String, Id<K>>,
}

// === impl Payloads ===

impl<K> Payloads<K> {
    pub(crate) fn get(&self, id: Id<K>) -> Option<&Arc<Payload<K>>> {
        self.by_id.get(&id)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Payload<K>>> {
        self.by_id.get(self.names.get(&name.to_lowercase())?)
    }

    pub(crate) fn all(&self) -> List<'_, Payload<K>> {
        Box::new(self.by_id.values())
    }

    pub(crate) fn put(&mut self, payload: Arc<Payload<K>>) -> Option<Arc<Payload<K>>> {
        let name = payload.spec.name.to_lowercase();
        let before = self.by_id.insert(payload.id, payload.clone());
        if let Some(before) = before.as_ref().filter(|b| b.spec.name.to_lowercase() != name) {
            self.forget_name(before);
        }
        self.names.insert(name, payload.id);
        before
    }

    pub(crate) fn remove(&mut self, id: Id<K>) -> Option<Arc<Payload<K>>> {
        let payload = self.by_id.remove(&id)?;
        self.forget_name(&payload);
        Some(payload)
    }

    fn forget_name(&mut self, payload: &Payload<K>) {
        let name = payload.spec.name.to_lowercase();
        if self.names.get(&name) == Some(&payload.id) {
            self.names.remove(&name);
        }
    }

    /// Whether the names agree with the table.
    pub(crate) fn is_sound(&self) -> bool {
        let named = |p: &Payload<K>| self.names.get(&p.spec.name.to_lowercase()) == Some(&p.id);
        self.names.len() == self.by_id.len() && self.by_id.values().all(|p| named(p))
    }
}

impl<K> Clone for Payloads<K> {
    fn clone(&self) -> Self {
        Self { by_id: self.by_id.clone(), names: self.names.clone() }
    }
}

impl<K> Default for Payloads<K> {
    fn default() -> Self {
        Self { by_id: OrdMap::new(), names: OrdMap::new() }
    }
}
