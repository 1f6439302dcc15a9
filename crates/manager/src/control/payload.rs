//! Secrets and configs: create, read, change labels, remove (swarm-semantics 1.5, 11).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_store::resolve;
use shoal_types::payload::{Payload, PayloadClass, PayloadKind};
use shoal_types::spec::PayloadSpec;
use shoal_types::{Change, Id, Meta, Refusal, RefusalKind, validate};

use super::{Control, Filters, Halt, Here, Request};
use crate::ids::RandomIds;

/// A change of a secret or config that a client wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum PayloadRequest {
    /// Answer: the identifier.
    Create(PayloadSpec),
    Update {
        input: String,
        version: u64,
        spec: PayloadSpec,
    },
    Remove {
        input: String,
    },
}

impl Control {
    /// Makes a secret or config.
    ///
    /// # Errors
    /// What `validate::payload` refuses; `secret … already exists`.
    pub async fn create_payload<K: PayloadKind>(&self, spec: PayloadSpec) -> Result<Id<K>, Refusal> {
        let made: String = self.ask(Request::Payload(K::CLASS, PayloadRequest::Create(spec))).await?;
        made.parse().map_err(|e| Refusal::new(RefusalKind::Internal, format!("the answer of the leader: {e}")))
    }

    /// The secret or config that `input` means.
    ///
    /// # Errors
    /// `secret … not found`, `secret … is ambiguous (… matches found)`.
    pub fn get_payload<K: PayloadKind>(&self, input: &str) -> Result<Arc<Payload<K>>, Refusal> {
        resolve::payload(&self.snapshot(), input).cloned()
    }

    /// The secrets or configs that `filters` let through, in the order of identifiers.
    ///
    /// # Errors
    /// `invalid filter '…'`.
    pub fn list_payloads<K: PayloadKind>(&self, filters: &Filters) -> Result<Vec<Arc<Payload<K>>>, Refusal> {
        filters.accept(match K::CLASS {
            PayloadClass::Secret => &["id", "name", "names", "label"],
            PayloadClass::Config => &["id", "name", "label"],
        })?;
        let lower = filters.lower_case(&["name", "names"]);
        let view = self.snapshot();
        let fits = |p: &&Arc<Payload<K>>| {
            let name = p.spec.name.to_lowercase();
            filters.prefix("id", p.id.as_str())
                && lower.prefix("name", &name)
                && lower.exact("names", &name)
                && filters.labels("label", &p.spec.labels)
        };
        Ok(K::all(&view).filter(fits).cloned().collect())
    }

    /// Changes the labels of the secret or config that `input` means; `version` is what the client has seen.
    ///
    /// # Errors
    /// `only updates to Labels are allowed`; `secret … not found`; `update out of sequence`.
    pub async fn update_payload<K: PayloadKind>(
        &self,
        input: &str,
        version: u64,
        spec: PayloadSpec,
    ) -> Result<(), Refusal> {
        let update = PayloadRequest::Update { input: input.to_owned(), version, spec };
        self.ask(Request::Payload(K::CLASS, update)).await
    }

    /// Removes the secret or config that `input` means, if no service wants it.
    ///
    /// # Errors
    /// `secret '…' is in use by the following service: …`; `secret … not found`.
    pub async fn remove_payload<K: PayloadKind>(&self, input: &str) -> Result<(), Refusal> {
        self.ask(Request::Payload(K::CLASS, PayloadRequest::Remove { input: input.to_owned() })).await
    }
}

impl Here {
    pub(super) async fn create_payload<K: PayloadKind>(&self, spec: PayloadSpec) -> Result<String, Halt> {
        validate::payload::<K>(&spec)?;
        let id = Id::<K>::new(&mut RandomIds);
        let payload = Arc::new(Payload { id, meta: Meta::default(), spec: Arc::new(spec) });
        self.write(move |tx| {
            tx.change(Change::Put(K::object(payload)))?;
            Ok(id.to_string())
        })
        .await
    }

    pub(super) async fn update_payload<K: PayloadKind>(
        &self,
        input: &str,
        version: u64,
        spec: PayloadSpec,
    ) -> Result<(), Halt> {
        let id = resolve::payload::<K>(&self.raft.snapshot(), input)?.id;
        self.write(move |tx| {
            let before = K::get(tx, id).ok_or_else(|| not_found(id))?;
            let spec = Arc::new(validate::payload_update(&before.spec, spec)?);
            if !before.meta.is_current(version) {
                return Err(Refusal::out_of_sequence());
            }
            let after = Arc::new(Payload { id, meta: before.meta, spec });
            Ok(tx.change(Change::Put(K::object(after)))?)
        })
        .await
    }

    pub(super) async fn remove_payload<K: PayloadKind>(&self, input: &str) -> Result<(), Halt> {
        let id = resolve::payload::<K>(&self.raft.snapshot(), input)?.id;
        self.write(move |tx| {
            let payload = K::get(tx, id).ok_or_else(|| not_found(id))?;
            validate::payload_removal(tx, payload)?;
            Ok(tx.change(Change::Remove(K::key(id)))?)
        })
        .await
    }
}

fn not_found<K: PayloadKind>(id: Id<K>) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("could not find {} {id}", K::NAME))
}

#[cfg(test)]
mod tests;
