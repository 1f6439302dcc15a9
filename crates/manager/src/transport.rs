//! Consensus between managers: its calls over the nodes' connections, and taking a manager in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_raft::{AdmitError, Member, Raft, ServeError, Transport, TransportError};
use shoal_types::spec::NodeRole;
use shoal_types::{ClusterId, NodeId, View};
use shoal_wire::dial::PROMPT;
use shoal_wire::proto::consensus_client::ConsensusClient;
use shoal_wire::proto::consensus_server::Consensus;
use shoal_wire::proto::{ConsensusAnswer, ConsensusCall, ConsensusJoin, ConsensusJoined};
use shoal_wire::{Dial, MAX_MESSAGE};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::lead;
use crate::peer::Peer;

/// How long another manager may take to answer a call: it may have to write to a slow disk first.
const ANSWER: Duration = PROMPT;

/// Carries consensus' calls over the nodes' connections.
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    dial: Arc<dyn Dial>,
}

/// The calls of other managers.
#[derive(Debug, Clone)]
pub struct ConsensusService {
    /// Who answers them.
    pub raft: Raft,
    /// Whose certificates are good.
    pub cluster: ClusterId,
    /// The way to a manager that wants to be taken in.
    pub dial: Arc<dyn Dial>,
}

impl GrpcTransport {
    /// A transport over the connections that `dial` opens.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial }
    }

    async fn connect(&self, addr: &str) -> Result<ConsensusClient<Channel>, TransportError> {
        let channel = self.dial.dial(addr).await.map_err(|e| unreachable(addr, e.to_string()))?;
        let client = ConsensusClient::new(channel);
        Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }
}

#[tonic::async_trait]
impl Transport for GrpcTransport {
    async fn call(&self, to: u64, member: &Member, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let addr = &member.addr;
        let mut client = self.connect(addr).await?;
        let answer = tokio::time::timeout(ANSWER, client.call(ConsensusCall { to, body }));
        match answer.await {
            Ok(Ok(answer)) => Ok(answer.into_inner().body),
            Ok(Err(status)) => Err(match status.code() {
                Code::NotFound | Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition => {
                    TransportError::Refused { addr: addr.clone(), reason: status.message().to_owned() }
                }
                _ => unreachable(addr, status.to_string()),
            }),
            Err(_) => Err(unreachable(addr, format!("no answer within {ANSWER:?}"))),
        }
    }
}

#[tonic::async_trait]
impl Consensus for ConsensusService {
    async fn call(&self, request: Request<ConsensusCall>) -> Result<Response<ConsensusAnswer>, Status> {
        Peer::manager(&request, self.cluster)?;
        let ConsensusCall { to, body } = request.into_inner();
        if to != self.raft.number() {
            return Err(Status::not_found("another manager listens here now"));
        }
        let body = self.raft.serve(body).await.map_err(|error| match error {
            ServeError::Malformed(_) => Status::invalid_argument(error.to_string()),
            ServeError::Snapshot(_) => Status::internal(error.to_string()),
            ServeError::Stopped(_) => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(ConsensusAnswer { body }))
    }

    async fn join(&self, request: Request<ConsensusJoin>) -> Result<Response<ConsensusJoined>, Status> {
        let peer = Peer::manager(&request, self.cluster)?;
        let ConsensusJoin { number, addr, has_vote } = request.into_inner();
        if number == 0 {
            return Err(Status::invalid_argument("the number of a manager is not zero"));
        }
        let member =
            Member { node_id: Some(peer.subject.node), addr: advertised(&addr, &peer.addr)?, ..Member::default() };
        if self.raft.leadership().borrow().is_none() {
            self.note_move(number, &member).await;
            return Err(lead::elsewhere(&self.raft));
        }
        self.check_wanted(peer.subject.node)?;
        self.check_listed(number, has_vote).await?;
        self.call_back(number, &member.addr).await?;
        // By itself: a manager that gives up waiting is still taken in, or gets an answer at once when it asks again.
        let (raft, joins) = (self.raft.clone(), member.clone());
        let admitted = tokio::spawn(async move { raft.admit(number, joins).await });
        match admitted.await.map_err(|e| Status::internal(e.to_string()))? {
            Ok(()) => {
                let managers = self.raft.members().1.len();
                Ok(Response::new(ConsensusJoined { managers: u32::try_from(managers).unwrap_or(u32::MAX) }))
            }
            Err(AdmitError::NotLeader) => Err(lead::elsewhere(&self.raft)),
            Err(error @ AdmitError::Behind { .. }) => Err(Status::deadline_exceeded(error.to_string())),
            Err(error @ AdmitError::Change(_)) => Err(Status::unavailable(error.to_string())),
        }
    }
}

impl ConsensusService {
    /// A manager that is being demoted, or was removed, is not taken in again: its number must not come back.
    fn check_wanted(&self, node: NodeId) -> Result<(), Status> {
        let state = self.raft.snapshot();
        match state.node(node) {
            Some(node) if node.spec.role == NodeRole::Manager => Ok(()),
            Some(_) => Err(Status::failed_precondition(format!("node {node} is to be a worker"))),
            None => Err(Status::failed_precondition(format!("node {node} is not a member of the swarm"))),
        }
    }

    /// One that had a vote and is not listed was removed: it may hear of that at any time, and forgets then what it had
    /// promised. It has to come back as another one, under a new number.
    async fn check_listed(&self, number: u64, has_vote: bool) -> Result<(), Status> {
        let is_listed = || self.raft.participants().iter().any(|p| p.number == number);
        if !has_vote || is_listed() {
            return Ok(());
        }
        // A leader that was replaced meanwhile does not know who is listed now.
        if self.raft.read_index().await.is_none() {
            return Err(lead::elsewhere(&self.raft));
        }
        if is_listed() {
            Ok(())
        } else {
            Err(Status::aborted("this manager was removed from the managers of the swarm"))
        }
    }

    /// Without a leader, who would write it down, a manager that has moved is called where it is now: it may be the one that
    /// a majority lacks.
    async fn note_move(&self, number: u64, member: &Member) {
        let is_own = self.raft.participants().iter().any(|p| p.number == number && p.member.node_id == member.node_id);
        if is_own && lead::now(&self.raft).is_none() && self.call_back(number, &member.addr).await.is_ok() {
            self.raft.relocate(number, &member.addr);
        }
    }

    /// The others will have to reach it there, so it must answer there now, and be the one that asks.
    async fn call_back(&self, number: u64, addr: &str) -> Result<(), Status> {
        let failed = |reason: &str| {
            let text = "could not connect to prospective new cluster member using its advertised address";
            // It may be there in a moment, so it may ask again.
            Status::unavailable(format!("{text}: {reason}"))
        };
        let transport = GrpcTransport::new(self.dial.clone());
        let mut client = transport.connect(addr).await.map_err(|e| failed(&e.to_string()))?;
        // Nothing that consensus understands: whoever has this number says so.
        let probe = client.call(ConsensusCall { to: number, body: Vec::new() });
        match tokio::time::timeout(PROMPT, probe).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status.code() == Code::InvalidArgument => Ok(()),
            Ok(Err(status)) => Err(failed(status.message())),
            Err(_) => Err(failed(&format!("no answer within {PROMPT:?}"))),
        }
    }
}

/// Where a manager says that it listens. An unspecified host stands for the one that it calls from.
fn advertised(addr: &str, caller: &str) -> Result<String, Status> {
    let bad = || Status::invalid_argument(format!("{addr:?} is not an address of the form host:port"));
    let (host, port) = addr.rsplit_once(':').ok_or_else(bad)?;
    port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if !host.is_empty() && ip.is_none_or(|ip| !ip.is_unspecified()) {
        return Ok(addr.to_owned());
    }
    match caller.parse::<IpAddr>() {
        Ok(ip @ IpAddr::V6(_)) => Ok(format!("[{ip}]:{port}")),
        Ok(ip @ IpAddr::V4(_)) => Ok(format!("{ip}:{port}")),
        Err(_) => Err(bad()),
    }
}

fn unreachable(addr: &str, reason: String) -> TransportError {
    TransportError::Unreachable { addr: addr.to_owned(), reason }
}

#[cfg(test)]
mod tests;
