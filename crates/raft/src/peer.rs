//! The algorithm's connections to other members.
//!
//! The algorithm gives an append up after one heartbeat's time and sends it again. On a slow link, or to a slow disk, that
//! would never end: here an append goes on by itself, and the next try for the same entries waits for it. What is answered
//! late still counts as a sign of life.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{Fatal, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::message::{Answer, What};
use crate::network::{CallError, Mesh};
use crate::transfer;
use crate::types::{LogId, Member, Types, Vote};

/// The pause before a member that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// An append that has brought no answer for this long is lost.
const LOST: Duration = Duration::from_secs(10);
/// Messages without entries that may be under way to one member.
const BEATS: usize = 8;

/// Makes connections.
#[derive(Debug, Clone)]
pub struct Peers(pub Arc<Mesh>);

/// A connection to one member.
#[derive(Debug)]
pub struct Peer {
    line: Line,
    running: Option<Running>,
    beats: Vec<JoinHandle<()>>,
}

/// Where the member is.
#[derive(Debug, Clone)]
pub struct Line {
    mesh: Arc<Mesh>,
    to: u64,
    member: Member,
}

/// An append that is under way.
#[derive(Debug)]
struct Running {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    began: Instant,
    task: JoinHandle<Result<AppendEntriesResponse<u64>, CallError>>,
}

type Append = AppendEntriesRequest<Types>;
type Appended = AppendEntriesResponse<u64>;
type RpcError = RPCError<u64, Member, RaftError<u64>>;

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        let line = Line { mesh: self.0.clone(), to: target, member: node.clone() };
        Peer { line, running: None, beats: Vec::new() }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(&mut self, rpc: Append, _: RPCOption) -> Result<Appended, RpcError> {
        if rpc.entries.is_empty() {
            return self.beat(rpc).await.map_err(unreachable);
        }
        let last = rpc.entries.last().map(|e| e.log_id);
        let same = |r: &mut Running| r.vote == rpc.vote && r.prev == rpc.prev_log_id && r.began.elapsed() < LOST;
        if self.running.as_mut().is_some_and(same) {
            return self.finish(last).await.map_err(unreachable);
        }
        let half = rpc.entries.len() as u64 / 2;
        match self.start(rpc) {
            Err(CallError::TooLarge(_)) if half > 0 => Err(PayloadTooLarge::new_entries_hint(half).into()),
            Err(other) => Err(unreachable(other)),
            Ok(()) => self.finish(last).await.map_err(unreachable),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        match self.line.call(What::Vote(rpc)).await.map_err(unreachable)? {
            Answer::Vote(response) => Ok(response),
            other => Err(unreachable(self.line.strange(&other))),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let sending = pin!(transfer::send(&self.line, vote, snapshot));
        tokio::select! {
            sent = sending => sent.map(SnapshotResponse::new).map_err(|e| Unreachable::new(&e).into()),
            closed = cancel => Err(closed.into()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

impl Peer {
    /// Sends a message without entries. Its answer counts for the contact even when nobody waits for it any more.
    async fn beat(&mut self, rpc: Append) -> Result<Appended, CallError> {
        self.beats.retain(|beat| !beat.is_finished());
        if self.beats.len() >= BEATS {
            self.beats.remove(0).abort();
        }
        let (line, (done, answer)) = (self.line.clone(), tokio::sync::oneshot::channel());
        self.beats.push(tokio::spawn(async move {
            // Nobody may wait any more.
            drop(done.send(line.append(rpc).await));
        }));
        // The task ends early only when it is aborted: for newer ones.
        answer.await.unwrap_or_else(|_| Err(self.line.silent()))
    }

    /// Begins an append.
    fn start(&mut self, rpc: Append) -> Result<(), CallError> {
        let (vote, prev, sent) = (rpc.vote, rpc.prev_log_id, Instant::now());
        let last = rpc.entries.last().map(|e| e.log_id);
        let body = self.line.write(rpc)?;
        let line = self.line.clone();
        let task = tokio::spawn(async move { line.deliver(vote, sent, body).await });
        let before = self.running.replace(Running { vote, prev, last, began: sent, task });
        if let Some(before) = before {
            before.task.abort();
        }
        Ok(())
    }

    /// Waits for the append that is under way; what it means for one up to `last`. Safe to drop.
    async fn finish(&mut self, last: Option<LogId>) -> Result<Appended, CallError> {
        let Some(running) = &mut self.running else { return Err(self.line.silent()) };
        let outcome = (&mut running.task).await;
        let sent = running.last;
        self.running = None;
        match outcome.unwrap_or_else(|_| Err(self.line.silent()))? {
            // Fewer entries than are there by now.
            Appended::Success if sent < last => Ok(Appended::PartialSuccess(sent)),
            other => Ok(other),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let running = self.running.take().map(|r| r.task.abort_handle());
        running.into_iter().chain(self.beats.iter().map(JoinHandle::abort_handle)).for_each(|task| task.abort());
    }
}

impl Line {
    /// Calls the member.
    ///
    /// # Errors
    /// [`CallError`]; the call may have arrived all the same.
    pub async fn call(&self, what: What) -> Result<Answer, CallError> {
        self.mesh.call(self.to, &self.member, what, &[]).await
    }

    /// Calls the member, with raw bytes.
    ///
    /// # Errors
    /// [`CallError`]; the call may have arrived all the same.
    pub async fn call_with(&self, what: What, tail: &[u8]) -> Result<Answer, CallError> {
        self.mesh.call(self.to, &self.member, what, tail).await
    }

    fn write(&self, rpc: Append) -> Result<Vec<u8>, CallError> {
        let last = self.mesh.last().map_or(0, |id| id.index);
        self.mesh.encode(What::Append { rpc, last }, &[])
    }

    async fn append(&self, rpc: Append) -> Result<Appended, CallError> {
        let (vote, sent) = (rpc.vote, Instant::now());
        self.deliver(vote, sent, self.write(rpc)?).await
    }

    async fn deliver(&self, vote: Vote, sent: Instant, body: Vec<u8>) -> Result<Appended, CallError> {
        match self.mesh.send(self.to, &self.member, body).await? {
            Answer::Append(response) => {
                if !matches!(response, Appended::HigherVote(_)) {
                    self.mesh.contacts.acknowledge(self.to, vote, sent);
                }
                Ok(response)
            }
            other => Err(self.strange(&other)),
        }
    }

    /// An answer that is none to the call.
    pub fn strange(&self, answer: &Answer) -> CallError {
        CallError::Answer { addr: self.member.addr.clone(), reason: format!("{answer:?}") }
    }

    fn silent(&self) -> CallError {
        let reason = "the call was given up".to_owned();
        crate::TransportError::Unreachable { addr: self.member.addr.clone(), reason }.into()
    }
}

fn unreachable(error: CallError) -> RpcError {
    Unreachable::new(&error).into()
}
