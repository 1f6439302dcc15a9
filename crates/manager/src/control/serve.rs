//! The control API as other managers call it on behalf of their clients.

use shoal_types::ClusterId;
use shoal_wire::body::{decode, encode, id};
use shoal_wire::proto::control_server::Control as Calls;
use shoal_wire::proto::control_written::Outcome;
use shoal_wire::proto::{ControlIndex, ControlReadIndex, ControlWrite, ControlWritten};
use tonic::{Request, Response, Status};

use super::request::{self, Halt, Here, Ticket};
use crate::lead;
use crate::peer::Peer;

/// The control API's calls. Only managers may.
#[derive(Debug, Clone)]
pub struct ControlService {
    pub(crate) here: Here,
    pub(crate) cluster: ClusterId,
}

#[tonic::async_trait]
impl Calls for ControlService {
    async fn write(&self, request: Request<ControlWrite>) -> Result<Response<ControlWritten>, Status> {
        Peer::manager(&request, self.cluster)?;
        let ControlWrite { request_json, request_id, again } = request.into_inner();
        let request: request::Request = decode("a request", &request_json)?;
        let ticket = match request_id.as_str() {
            "" => None,
            text => Some(Ticket { id: id("the request's identifier", text)?, again }),
        };
        let outcome = match self.here.carry_out(request, ticket).await {
            Ok(answer) => Outcome::AnswerJson(answer),
            Err(Halt::Refused(refusal)) => Outcome::RefusalJson(encode("a refusal", &refusal)?),
            Err(Halt::NotLeader) => return Err(lead::elsewhere(&self.here.raft)),
            Err(Halt::Lost) => {
                return Err(Status::aborted("this manager lost the lead before the write was agreed on"));
            }
        };
        let index = self.here.raft.snapshot().index();
        Ok(Response::new(ControlWritten { outcome: Some(outcome), index }))
    }

    async fn read_index(&self, request: Request<ControlReadIndex>) -> Result<Response<ControlIndex>, Status> {
        Peer::manager(&request, self.cluster)?;
        let progress = self.here.progress().await.ok_or_else(|| lead::elsewhere(&self.here.raft))?;
        let unreachable = progress.unreachable.into_iter().collect();
        Ok(Response::new(ControlIndex { index: progress.index, unreachable }))
    }
}
