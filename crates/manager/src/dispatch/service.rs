//! The dispatcher as agents call it: whoever leads now answers.

use std::sync::Arc;

use shoal_raft::Raft;
use shoal_types::ClusterId;
use shoal_wire::proto::dispatcher_server::Dispatcher as Calls;
use shoal_wire::proto::{
    AssignmentsMessage, AssignmentsRequest, HeartbeatRequest, HeartbeatResponse, SessionMessage, SessionRequest,
    UpdateTaskStatusRequest, UpdateTaskStatusResponse,
};
use shoal_wire::session::{Hello, to_nanos};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Dispatcher;
use crate::lead;
use crate::leader::Active;
use crate::peer::Peer;

/// The dispatcher's calls.
#[derive(Debug, Clone)]
pub struct DispatcherService {
    /// To say who leads, if it is not us.
    pub raft: Raft,
    /// Who leads, if it is us.
    pub active: Active,
    /// Whose certificates are good.
    pub cluster: ClusterId,
}

impl DispatcherService {
    fn enter<T>(&self, request: &Request<T>) -> Result<(Peer, Arc<Dispatcher>), Status> {
        let peer = Peer::of(request, self.cluster)?;
        let term = self.active.now().ok_or_else(|| lead::elsewhere(&self.raft))?;
        Ok((peer, term.dispatcher.clone()))
    }
}

#[tonic::async_trait]
impl Calls for DispatcherService {
    type SessionStream = ReceiverStream<Result<SessionMessage, Status>>;
    type AssignmentsStream = ReceiverStream<Result<AssignmentsMessage, Status>>;

    async fn session(&self, request: Request<SessionRequest>) -> Result<Response<Self::SessionStream>, Status> {
        let (peer, dispatcher) = self.enter(&request)?;
        let hello = Hello::try_from(request.into_inner())?;
        let stream = dispatcher.register(peer, hello).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let (peer, dispatcher) = self.enter(&request)?;
        let period = dispatcher.beat(peer.subject.node, &request.get_ref().session_id)?;
        Ok(Response::new(HeartbeatResponse { period: to_nanos(period) }))
    }

    async fn assignments(
        &self,
        request: Request<AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let (peer, dispatcher) = self.enter(&request)?;
        let stream = dispatcher.assign(peer.subject.node, &request.get_ref().session_id)?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusRequest>,
    ) -> Result<Response<UpdateTaskStatusResponse>, Status> {
        let (peer, dispatcher) = self.enter(&request)?;
        let request = request.into_inner();
        let reports = shoal_wire::status::reports(&request.reports)?;
        dispatcher.report(peer.subject.node, &request.session_id, reports).await?;
        Ok(Response::new(UpdateTaskStatusResponse {}))
    }
}
