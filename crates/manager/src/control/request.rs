//! What clients may have changed, as values that can be sent to the leader, and what the leader does for each.
//!
//! To add a request: a variant here, a line in [`Here::carry_out`], a function of [`Here`] beside its kind of object, and
//! a method of [`super::Control`] that asks for it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_raft::{Raft, Tx, WriteError, WriteFailure};
use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::spec::{NodeSpec, ServiceSpec};
use shoal_types::{PayloadClass, PayloadKind, Refusal, RefusalKind};
use shoal_wire::body::encode;

use super::payload::PayloadRequest;
use super::{ClusterUpdate, ServiceUpdate};

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

/// The control API of the manager that leads. Every write of a client ends here.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(super) raft: Raft,
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

impl Here {
    /// Does what `request` says; gives the serde form of the answer.
    pub(crate) async fn carry_out(&self, request: Request) -> Result<Vec<u8>, Halt> {
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

    async fn carry_payload<K: PayloadKind>(&self, request: PayloadRequest) -> Result<Vec<u8>, Halt> {
        match request {
            PayloadRequest::Create(spec) => answer(&self.create_payload::<K>(spec).await?),
            PayloadRequest::Update { input, version, spec } => {
                answer(&self.update_payload::<K>(&input, version, spec).await?)
            }
            PayloadRequest::Remove { input } => answer(&self.remove_payload::<K>(&input).await?),
        }
    }

    /// Writes what `closure` changes, if this manager leads. A client that has been answered finds it in the state.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        closure: impl FnOnce(&mut Tx) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Halt> {
        self.raft.write(closure).await.map_err(halt)
    }
}

fn answer<T: Serialize>(value: &T) -> Result<Vec<u8>, Halt> {
    encode("an answer", value).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()).into())
}

fn halt(error: WriteError<Refusal>) -> Halt {
    match error {
        WriteError::Refused(refusal) => refusal.into(),
        WriteError::Failed(WriteFailure::NotLeader) => Halt::NotLeader,
        WriteError::Failed(WriteFailure::Unknown) => Halt::Lost,
        WriteError::Failed(failure) => {
            let kind = match &failure {
                WriteFailure::NoSpace(_) | WriteFailure::Stopped(_) => RefusalKind::Unavailable,
                _ => RefusalKind::Unknown,
            };
            Refusal::new(kind, failure.to_string()).into()
        }
    }
}
