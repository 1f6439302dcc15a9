//! What clients may have changed, as values that can be sent to the leader, and what the leader does for each.
//!
//! To add a request: a variant here, a line in [`Here::carry_out`], a function of [`Here`] beside its kind of object, and
//! a method of [`super::Control`] that asks for it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shoal_raft::{Raft, Tx, WriteError, WriteFailure};
use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::spec::{NodeSpec, ServiceSpec};
use shoal_types::{Change, PayloadClass, PayloadKind, Refusal, RefusalKind, RequestId, Settled};
use shoal_wire::body::encode;

use super::payload::PayloadRequest;
use super::{ClusterUpdate, ServiceUpdate};
use crate::ids::RandomIds;

/// A change that a client wants. Travels between managers in its serde form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answer: the service's identifier.
    CreateService {
        spec: Box<ServiceSpec>,
        auth: Option<Arc<str>>,
    },
    UpdateService {
        input: String,
        spec: Box<ServiceSpec>,
        update: ServiceUpdate,
    },
    RemoveService {
        input: String,
    },
    UpdateNode {
        input: String,
        version: u64,
        spec: NodeSpec,
    },
    RemoveNode {
        input: String,
        force: bool,
    },
    UpdateCluster(Box<ClusterUpdate>),
    Payload(PayloadClass, PayloadRequest),
}

/// By what a request is known again: it may be sent to one leader after the other, and is carried out once
/// (docs/decisions/0014-writes-are-sent-again.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub id: RequestId,
    /// It was sent before, and nobody knows what came of it.
    pub again: bool,
}

/// The control API of the manager that leads. Every write of a client ends here.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(super) raft: Raft,
    /// That of the request that is carried out.
    ticket: Option<Ticket>,
}

/// Why a request was not carried out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// For this reason; the client is told.
    Refused(Refusal),
    /// This manager does not lead. Nothing was written.
    NotLeader,
    /// It led no more before the write was known to be agreed on. It may come about or not.
    Lost,
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Ticket {
    /// For a new request.
    pub(crate) fn new() -> Self {
        Self { id: RequestId::new(&mut RandomIds), again: false }
    }
}

impl Here {
    pub(crate) fn new(raft: Raft) -> Self {
        Self { raft, ticket: None }
    }

    /// Does what `request` says, unless that was done; gives the serde form of the answer.
    pub(crate) async fn carry_out(&self, request: Request, ticket: Option<Ticket>) -> Result<Vec<u8>, Halt> {
        let this = Self { raft: self.raft.clone(), ticket };
        if let Some(ticket) = ticket
            && let Some(outcome) = this.raft.snapshot().outcome_of(ticket.id)
        {
            return answer(&settled::<serde_json::Value>(outcome)?);
        }
        match this.perform(request).await {
            Err(Halt::Refused(refusal)) => this.refuse(refusal).await,
            done => done,
        }
    }

    async fn perform(&self, request: Request) -> Result<Vec<u8>, Halt> {
        match request {
            Request::CreateService { spec, auth } => answer(&self.create_service(*spec, auth).await?),
            Request::UpdateService { input, spec, update } => {
                answer(&self.update_service(&input, *spec, update).await?)
            }
            Request::RemoveService { input } => answer(&self.remove_service(&input).await?),
            Request::UpdateNode { input, version, spec } => answer(&self.update_node(&input, version, spec).await?),
            Request::RemoveNode { input, force } => answer(&self.remove_node(&input, force).await?),
            Request::UpdateCluster(update) => answer(&self.update_cluster(*update).await?),
            Request::Payload(PayloadClass::Secret, request) => self.carry_payload::<SecretKind>(request).await,
            Request::Payload(PayloadClass::Config, request) => self.carry_payload::<ConfigKind>(request).await,
        }
    }

    /// Refuses, if that is the truth. An attempt before may have been the reason for the refusal, or may still be on its
    /// way: the refusal of another one stands only once it is written.
    async fn refuse(&self, refusal: Refusal) -> Result<Vec<u8>, Halt> {
        let Some(Ticket { id, again: true }) = self.ticket else {
            // One that leads no more may refuse for what is no longer so.
            let leads = self.raft.leadership().borrow().is_some();
            return Err(if leads { refusal.into() } else { Halt::NotLeader });
        };
        let why = refusal.clone();
        let written = self.raft.write(move |tx| match tx.outcome_of(id) {
            Some(outcome) => Ok(settled::<serde_json::Value>(outcome)),
            None => settle(tx, id, &Err::<(), _>(why.clone())).map(|()| Err(why)),
        });
        match written.await.map_err(|error| self.halt(error))? {
            Ok(value) => answer(&value),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn carry_payload<K: PayloadKind>(&self, request: PayloadRequest) -> Result<Vec<u8>, Halt> {
        match request {
            PayloadRequest::Create(spec) => answer(&self.create_payload::<K>(spec).await?),
            PayloadRequest::Update { input, version, spec } => {
                answer(&self.update_payload::<K>(&input, version, spec).await?)
            }
            PayloadRequest::Remove { input } => answer(&self.remove_payload::<K>(&input).await?),
        }
    }

    /// Writes what `closure` changes and what came of the request, if this manager leads. A client that has been answered
    /// finds it in the state.
    pub(super) async fn write<T: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        closure: impl FnOnce(&mut Tx) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Halt> {
        let ticket = self.ticket;
        let written = self.raft.write(move |tx| {
            let Some(ticket) = ticket else { return closure(tx) };
            // An attempt before this one may have come about since this one began.
            if let Some(outcome) = tx.outcome_of(ticket.id) {
                return settled(outcome);
            }
            let value = closure(tx)?;
            settle(tx, ticket.id, &Ok(&value))?;
            Ok(value)
        });
        written.await.map_err(|error| self.halt(error))
    }

    fn halt(&self, error: WriteError<Refusal>) -> Halt {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Failed(WriteFailure::NotLeader) => Halt::NotLeader,
            WriteError::Failed(WriteFailure::Unknown) => Halt::Lost,
            WriteError::Failed(WriteFailure::Stopped(_)) if self.ticket.is_some() => Halt::Lost,
            WriteError::Failed(failure) => {
                let kind = match &failure {
                    WriteFailure::NoSpace(_) | WriteFailure::Stopped(_) => RefusalKind::Unavailable,
                    _ => RefusalKind::Unknown,
                };
                Refusal::new(kind, failure.to_string()).into()
            }
        }
    }
}

/// Writes down what came of a request.
fn settle<T: Serialize>(tx: &mut Tx, request: RequestId, outcome: &Result<T, Refusal>) -> Result<(), Refusal> {
    let text = serde_json::to_string(outcome).map_err(|e| defect(&e))?;
    Ok(tx.change(Change::Settle(Settled { request, outcome: text.into() }))?)
}

/// What was written down.
fn settled<T: DeserializeOwned>(outcome: &str) -> Result<T, Refusal> {
    serde_json::from_str::<Result<T, Refusal>>(outcome).map_err(|e| defect(&e))?
}

fn defect(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Internal, error.to_string())
}

fn answer<T: Serialize>(value: &T) -> Result<Vec<u8>, Halt> {
    encode("an answer", value).map_err(|e| defect(&e).into())
}
