//! Who takes part: admission, dismissal, and the hand-over of leadership.

use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::election::is_voter;
use crate::message::{Answer, What};
use crate::raft::Raft;
use crate::types::Member;

/// A new manager that lacks no more entries than this has caught up.
const NEARLY: u64 = 64;
/// A new manager of which nothing is heard for this long is not admitted.
const BEHIND: Duration = Duration::from_secs(15);
/// How long a hand-over may take.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How often what is waited for is looked at, at least.
const LOOK: Duration = Duration::from_millis(50);

/// A manager that takes part in consensus, as of the newest list of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its number in the log.
    pub number: u64,
    /// Who it is and where.
    pub member: Member,
    /// Whether it has a vote. One without is still catching up.
    pub is_voter: bool,
}

/// Why a manager was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Another manager leads, or none.
    #[error("raft: failed to process the request: node lost leader status")]
    NotLeader,
    /// It did not catch up. It is not a member; it may ask again.
    #[error("the new manager at {addr} did not take over the cluster's state within {after:?}")]
    Behind {
        /// Where it was called.
        addr: String,
        /// How long nothing moved.
        after: Duration,
    },
    /// The list of members could not be written.
    #[error("the list of managers cannot be changed now: {0}")]
    Change(String),
}

/// Why a manager was not dismissed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum DismissError {
    /// Another manager leads, or none.
    #[error("raft: failed to process the request: node lost leader status")]
    NotLeader,
    /// Too few of those that would be left can be reached.
    #[error("can't remove member from the raft: this would result in a loss of quorum")]
    LossOfQuorum,
    /// The list of members could not be written.
    #[error("the list of managers cannot be changed now: {0}")]
    Change(String),
}

/// Why leadership stays here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// This manager does not lead.
    #[error("raft: failed to process the request: node lost leader status")]
    NotLeader,
    /// No other manager took it.
    #[error("no other manager could take over the leadership")]
    NobodyThere,
}

/// Why the list of members was not written.
#[derive(Debug)]
enum ChangeFailed {
    NotLeader,
    Other(String),
}

impl Raft {
    /// Takes a manager in: it learns the state first and gets its vote once it has caught up. A member that is known gets
    /// its new address; one that has everything already is left as it is. Only the leader can; one change at a time.
    ///
    /// A number that was dismissed must not come back: the caller checks that the cluster still wants this manager. One
    /// that comes with a new number has lost what its old one promised: the old one is dismissed.
    ///
    /// Dropping the future leaves a manager that learns; it is taken up where it was when it is admitted again.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn admit(&self, number: u64, member: Member) -> Result<(), AdmitError> {
        let member = Member { lineage: self.lineage().unwrap_or_default(), ..member };
        if self.list(number, &member).await? {
            return Ok(());
        }
        // Others may come and go meanwhile: this can take long.
        let behind = self.caught_up_with(number, &member).await;
        let _one = self.changes.lock().await;
        match behind {
            Ok(()) => Ok(self.change(ChangeMembers::AddVoterIds([number].into())).await?),
            Err(error @ AdmitError::Behind { .. }) => {
                self.change(ChangeMembers::RemoveNodes([number].into())).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// A member says where it is now, and there is no leader who could write that down: this member calls it there. So
    /// managers of whom so many have moved that there is no majority find each other as long as they all find one.
    pub fn relocate(&self, number: u64, addr: &str) {
        let participants = self.participants();
        if let Some(known) = participants.iter().find(|p| p.number == number && p.member.addr != addr) {
            self.mesh.relocate(number, &known.member.addr, addr);
        }
    }

    /// Puts `number` on the list of members, as one that learns if it is new; whether it has a vote.
    async fn list(&self, number: u64, member: &Member) -> Result<bool, ChangeFailed> {
        let _one = self.changes.lock().await;
        self.must_lead()?;
        let participants = self.participants();
        let known = participants.iter().find(|p| p.number == number);
        match known {
            Some(known) if known.member == *member => {}
            Some(_) => self.change(ChangeMembers::SetNodes([(number, member.clone())].into())).await?,
            None => {
                let lost = |p: &&Participant| member.node_id.is_some() && p.member.node_id == member.node_id;
                for old in participants.iter().filter(lost) {
                    self.drop_member(old).await?;
                }
                self.change(ChangeMembers::AddNodes([(number, member.clone())].into())).await?;
            }
        }
        Ok(known.is_some_and(|p| p.is_voter))
    }

    /// Removes a manager. One that is not a member is none. A leader that dismisses itself hands over first, and the next
    /// leader does it. Only the leader can.
    ///
    /// # Errors
    /// [`DismissError`].
    pub async fn dismiss(&self, number: u64) -> Result<(), DismissError> {
        if number != self.number() {
            return self.dismiss_here(number).await;
        }
        self.must_lead()?;
        if self.participants().iter().filter(|p| p.is_voter).count() < 2 {
            return Err(DismissError::LossOfQuorum);
        }
        self.hand_over().await.map_err(|_| DismissError::LossOfQuorum)?;
        let next = tokio::time::timeout(HAND_OVER, self.have_it_dismissed(number)).await;
        next.unwrap_or(Err(DismissError::NotLeader))
    }

    /// Asks whoever leads now to dismiss `number`.
    async fn have_it_dismissed(&self, number: u64) -> Result<(), DismissError> {
        let mut leader = self.leader();
        loop {
            let next = leader.wait_for(|l| l.as_ref().is_some_and(|(n, _)| *n != number)).await;
            let Some((to, member)) = next.ok().and_then(|l| l.clone()) else { return Err(DismissError::NotLeader) };
            match self.mesh.call(to, &member, What::Dismiss { number }, &[]).await {
                // It has only just begun, or does not know yet.
                Ok(Answer::Dismissed(Err(DismissError::NotLeader))) => tokio::time::sleep(LOOK).await,
                Ok(Answer::Dismissed(outcome)) => return outcome,
                Ok(other) => return Err(DismissError::Change(format!("{} answers {other:?}", member.addr))),
                Err(error) => return Err(DismissError::Change(error.to_string())),
            }
        }
    }

    /// Removes another manager.
    pub(crate) async fn dismiss_here(&self, number: u64) -> Result<(), DismissError> {
        let _one = self.changes.lock().await;
        let participants = self.participants();
        let Some(leaves) = participants.iter().find(|p| p.number == number) else {
            return Ok(self.must_lead()?);
        };
        let stays: Vec<_> = participants.iter().filter(|p| p.is_voter && p.number != number).collect();
        let reached = stays.iter().filter(|p| self.reachable(p.number)).count();
        if leaves.is_voter && reached * 2 <= stays.len() {
            return Err(DismissError::LossOfQuorum);
        }
        Ok(self.drop_member(leaves).await?)
    }

    async fn drop_member(&self, leaves: &Participant) -> Result<(), ChangeFailed> {
        let number = [leaves.number].into();
        let change =
            if leaves.is_voter { ChangeMembers::RemoveVoters(number) } else { ChangeMembers::RemoveNodes(number) };
        self.change(change).await?;
        // The algorithm sends it nothing any more. Should this be lost, it asks when it hears no leader.
        let (mesh, vote, leaves) = (self.mesh.clone(), self.newest_vote(), leaves.clone());
        tokio::spawn(async move {
            if let Err(error) = mesh.call(leaves.number, &leaves.member, What::Gone { vote }, &[]).await {
                tracing::debug!(number = leaves.number, %error, "a manager that was removed does not hear of it yet");
            }
        });
        Ok(())
    }

    /// Waits until `number` has nearly everything that this leader has.
    async fn caught_up_with(&self, number: u64, member: &Member) -> Result<(), AdmitError> {
        let mut metrics = self.core.metrics();
        let (mut matched, mut moved) = (None, Instant::now());
        loop {
            self.must_lead()?;
            let (now, last) = {
                let metrics = metrics.borrow_and_update();
                let matched = metrics.replication.as_ref().and_then(|all| *all.get(&number)?).map(|id| id.index);
                (matched, metrics.last_log_index.unwrap_or(0))
            };
            if now.is_some_and(|index| index + NEARLY >= last) {
                return Ok(());
            }
            if now > matched {
                (matched, moved) = (now, Instant::now());
            }
            // A large snapshot moves nothing for a while, but its pieces are answered.
            let sign = self.mesh.contacts.met(number).max(Some(moved)).unwrap_or(moved);
            if sign.elapsed() > BEHIND {
                return Err(AdmitError::Behind { addr: member.addr.clone(), after: BEHIND });
            }
            drop(tokio::time::timeout(LOOK, metrics.changed()).await);
        }
    }

    /// Brings a change of members to its end that a former leader began: the cluster must not stay with two lists.
    pub(crate) async fn finish_change(&self) {
        let _one = self.changes.lock().await;
        let membership = self.core.metrics().borrow().membership_config.membership().clone();
        let Some((last, [_, ..])) = membership.get_joint_config().split_last() else { return };
        match self.change(ChangeMembers::ReplaceAllVoters(last.clone())).await {
            Ok(()) => tracing::info!("brought a change of managers to its end"),
            Err(error) => tracing::warn!(?error, "cannot bring a change of managers to its end"),
        }
    }

    /// Writes a new list of members, and waits until it is the only one.
    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), ChangeFailed> {
        type Failed = RaftError<u64, ClientWriteError<u64, Member>>;
        loop {
            self.must_lead()?;
            let mut holds = self.reign.holds.clone();
            let outcome = tokio::select! {
                outcome = self.core.change_membership(change.clone(), false) => outcome,
                _ = holds.wait_for(Option::is_none) => return Err(ChangeFailed::NotLeader),
            };
            match outcome {
                Ok(_) => return Ok(()),
                // The one before is not agreed on yet.
                Err(Failed::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(
                    _,
                )))) => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(Failed::APIError(ClientWriteError::ForwardToLeader(_))) => return Err(ChangeFailed::NotLeader),
                Err(other) => return Err(ChangeFailed::Other(other.to_string())),
            }
        }
    }

    fn must_lead(&self) -> Result<(), ChangeFailed> {
        if self.reign.leads.borrow().is_some() { Ok(()) } else { Err(ChangeFailed::NotLeader) }
    }

    /// Gives leadership to one of the other voters, one that has everything. No write is taken meanwhile.
    ///
    /// # Errors
    /// [`HandOverError`]; then it stays here, unless it was lost anyway.
    pub async fn hand_over(&self) -> Result<(), HandOverError> {
        let handed = tokio::time::timeout(HAND_OVER, self.have_another_stand()).await;
        handed.unwrap_or(Err(HandOverError::NobodyThere))
    }

    async fn have_another_stand(&self) -> Result<(), HandOverError> {
        let _one = self.changes.lock().await;
        self.must_lead().map_err(|_| HandOverError::NotLeader)?;
        let _yielding = Yielding::begin(self);
        let (number, member) = self.heir().await.ok_or(HandOverError::NobodyThere)?;
        // From here on the others forget this leader. Only then may they vote.
        self.core.runtime_config().heartbeat(false);
        let what = What::Stand { vote: self.newest_vote() };
        self.mesh.call(number, &member, what, &[]).await.map_err(|_| HandOverError::NobodyThere)?;
        let mut server = self.core.server_metrics();
        let over = server.wait_for(|m| m.state != ServerState::Leader).await;
        over.map(drop).map_err(|_| HandOverError::NotLeader)
    }

    /// The first of the other voters that has everything.
    async fn heir(&self) -> Option<(u64, Member)> {
        let mut metrics = self.core.metrics();
        loop {
            let heir = {
                let now = metrics.borrow_and_update();
                let matched = |number: &u64| now.replication.as_ref()?.get(number).copied()?;
                let membership = now.membership_config.membership();
                let able = |n: &u64| *n != self.number() && is_voter(membership, *n) && self.reachable(*n);
                let mut able = membership.nodes().filter(|(n, _)| able(n)).peekable();
                able.peek()?;
                let mut whole = able.filter(|(n, _)| matched(n).map(|id| id.index) == now.last_log_index);
                whole.next().map(|(number, member)| (*number, member.clone()))
            };
            if heir.is_some() {
                return heir;
            }
            metrics.changed().await.ok()?;
        }
    }
}

/// While it is there, this leader takes no writes and is on its way out.
struct Yielding<'a>(&'a Raft);

impl<'a> Yielding<'a> {
    fn begin(raft: &'a Raft) -> Self {
        raft.reign.yields.send_replace(true);
        Self(raft)
    }
}

impl Drop for Yielding<'_> {
    fn drop(&mut self) {
        self.0.core.runtime_config().heartbeat(true);
        self.0.reign.yields.send_replace(false);
    }
}

impl From<ChangeFailed> for AdmitError {
    fn from(failed: ChangeFailed) -> Self {
        match failed {
            ChangeFailed::NotLeader => Self::NotLeader,
            ChangeFailed::Other(reason) => Self::Change(reason),
        }
    }
}

impl From<ChangeFailed> for DismissError {
    fn from(failed: ChangeFailed) -> Self {
        match failed {
            ChangeFailed::NotLeader => Self::NotLeader,
            ChangeFailed::Other(reason) => Self::Change(reason),
        }
    }
}
