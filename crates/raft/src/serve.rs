//! The other end of a member's calls.

use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use tokio::time::Instant;

use crate::election::LEASE;
use crate::message::{Answer, Call, Piece, What, decode, encode};
use crate::raft::{Raft, SLACK};
use crate::types::{Lineage, Types, Vote};

/// Why a member's call is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// It cannot be understood: another version, perhaps.
    #[error("cannot understand a manager's call: {0}")]
    Malformed(String),
    /// A snapshot cannot be taken in.
    #[error("cannot take a snapshot in: {0}")]
    Snapshot(String),
    /// Consensus stopped here.
    #[error("consensus stopped on this manager: {0}")]
    Stopped(String),
}

impl Raft {
    /// Answers another member's call (see [`crate::Transport`]).
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve(&self, body: Vec<u8>) -> Result<Vec<u8>, ServeError> {
        let (call, tail) = decode::<Call>(&body).map_err(|e| ServeError::Malformed(e.to_string()))?;
        let is_foreign = |mine: &Lineage| call.lineage.is_some_and(|theirs| theirs != *mine);
        if let Some(lineage) = self.lineage().filter(is_foreign) {
            let foreign = encode(&Answer::Foreign { lineage }, &[]);
            return foreign.map_err(|e| ServeError::Malformed(e.to_string()));
        }
        self.mesh.contacts.meet(call.from);
        let answer = match call.what {
            What::Append { rpc, last } => Answer::Append(self.follow(rpc, last).await?),
            What::Beat { vote, down } => self.hear(vote, down),
            What::Vote(request) => Answer::Vote(self.vote(request).await?),
            What::Poll { last, members } => Answer::Poll(self.judge(call.from, last, members)),
            What::Piece(piece) => self.take(piece, tail.to_vec()).await?,
            What::Stand { vote } => self.stand_after(vote),
            What::Gone { vote } => self.end(vote),
            What::Dismiss { number } => Answer::Dismissed(self.dismiss_here(number).await),
        };
        encode(&answer, &[]).map_err(|e| ServeError::Malformed(e.to_string()))
    }

    /// The cluster that this one is a member of, if it is one.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        self.mesh.lineage()
    }

    fn hear(&self, vote: Vote, down: Vec<u64>) -> Answer {
        let is_leader = vote.is_committed() && vote >= self.newest_vote();
        if is_leader {
            self.mesh.contacts.hear(Instant::now());
            self.mesh.contacts.set_down(down);
        }
        Answer::Beat { is_awake: is_leader && self.mesh.contacts.is_awake() }
    }

    async fn follow(
        &self,
        rpc: AppendEntriesRequest<Types>,
        last: u64,
    ) -> Result<AppendEntriesResponse<u64>, ServeError> {
        let (vote, upto) = (rpc.vote, rpc.entries.last().map(|e| e.log_id).or(rpc.prev_log_id));
        // Counts from when it came: what follows may wait for a slow disk.
        if vote >= self.newest_vote() {
            self.mesh.contacts.hear(Instant::now());
        }
        let response = self.core.append_entries(rpc).await.map_err(stopped)?;
        match response {
            AppendEntriesResponse::HigherVote(_) => {}
            AppendEntriesResponse::Conflict => self.mesh.contacts.hear(Instant::now()),
            _ => {
                self.mesh.contacts.hear(Instant::now());
                self.caught_up(vote, upto.map(|id| id.index), last);
            }
        }
        Ok(response)
    }

    async fn vote(&self, request: VoteRequest<u64>) -> Result<VoteResponse<u64>, ServeError> {
        // A leader that is followed keeps the promise of those who follow it, too: only then may it answer reads by itself.
        let is_followed = self.reign.holds.borrow().is_some() && !*self.reign.yields.borrow();
        if self.is_in_doubt() || is_followed {
            return Ok(VoteResponse::new(self.newest_vote(), self.mesh.last(), false));
        }
        self.core.vote(request).await.map_err(stopped)
    }

    async fn take(&self, piece: Piece, content: Vec<u8>) -> Result<Answer, ServeError> {
        if piece.vote >= self.newest_vote() {
            self.mesh.contacts.hear(Instant::now());
        }
        let (vote, next, is_done) =
            self.inbox.take(piece, content).await.map_err(|e| ServeError::Snapshot(e.to_string()))?;
        Ok(Answer::Piece { vote, next, is_done })
    }

    /// The leader wants this one to lead. The others vote once they have not heard it for a while; if it is heard again, it
    /// has changed its mind.
    fn stand_after(&self, vote: Vote) -> Answer {
        if vote == self.newest_vote() && !self.is_in_doubt() {
            let (raft, told) = (self.clone(), Instant::now());
            tokio::spawn(async move {
                tokio::time::sleep(LEASE + 2 * SLACK).await;
                // What was on its way when it stopped may still have come.
                if raft.mesh.contacts.heard().is_none_or(|at| at <= told + SLACK) {
                    raft.stand().await;
                }
            });
        }
        Answer::Done
    }

    fn end(&self, vote: Vote) -> Answer {
        // Only from the leader that this one follows: others may know less, or be a cluster of their own by now.
        if vote == self.newest_vote() {
            self.set_removed();
        }
        Answer::Done
    }

    /// The newest vote that is known here.
    pub(crate) fn newest_vote(&self) -> Vote {
        self.core.metrics().borrow().vote
    }
}

fn stopped(error: RaftError<u64>) -> ServeError {
    ServeError::Stopped(error.to_string())
}
