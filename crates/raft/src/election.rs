//! When to stand for election. The algorithm's own timer is off: a member that was cut off would come back with a higher
//! term and depose a leader that all others hear. Here a member first asks the others, which changes nothing, and stands
//! only when a majority would vote for it: they hear no leader either, and know no more than it does.
//!
//! Two promises hang together. A voter gives no vote while it has heard its leader within [`LEASE`] (the algorithm sees to
//! it), and a member does not stand while it has (this file does). So a leader whom a majority has answered within
//! [`crate::raft::READ_LEASE`], which is shorter, knows that there is no other one.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::{Membership, ServerState};
use rand::Rng;
use tokio::time::Instant;

use crate::message::{Answer, Opinion, What};
use crate::raft::Raft;
use crate::types::{LogId, Member, StoredMembership};

/// For this long after it heard its leader, a member neither votes nor stands.
pub const LEASE: Duration = Duration::from_millis(500);
/// How long a member waits for its leader before it asks the others, in milliseconds: at random, so that mostly one asks.
const PATIENCE: std::ops::Range<u64> = 600..1_200;
/// How long it waits before it asks again where it did not stand, since one of the others knew more or still heard the
/// leader. Asking changes nothing, so it may be short.
const AGAIN: std::ops::Range<u64> = 200..500;
/// How long the others may take to answer.
const ANSWER: Duration = Duration::from_millis(400);

impl Raft {
    /// Stands for election when it is time, until consensus ends here.
    pub(crate) async fn run_elections(self) {
        let mut metrics = self.core.metrics();
        let ended = async move { drop(metrics.wait_for(|m| m.running_state.is_err()).await) };
        tokio::select! {
            () = ended => {}
            () = self.wait_and_stand() => {}
        }
    }

    async fn wait_and_stand(&self) {
        let mut since = Instant::now();
        let mut patience = draw(PATIENCE);
        loop {
            let due = self.mesh.contacts.heard().max(Some(since)).map_or(since, |at| at + patience);
            if Instant::now() < due {
                tokio::time::sleep_until(due).await;
                continue;
            }
            let has_stood = self.ask_and_stand().await;
            (since, patience) = (Instant::now(), draw(if has_stood { PATIENCE } else { AGAIN }));
        }
    }

    /// Whether it stood.
    async fn ask_and_stand(&self) -> bool {
        let (listed, state) = {
            let metrics = self.core.metrics();
            let now = metrics.borrow();
            (now.membership_config.clone(), now.state)
        };
        let membership = listed.membership();
        if state == ServerState::Leader || membership.nodes().next().is_none() {
            return false;
        }
        let asked = Instant::now();
        let opinions = self.poll(&listed).await;
        self.learn_that_it_is_over(membership, &opinions);
        // One that was heard meanwhile is to be followed.
        let is_heard = self.mesh.contacts.heard().is_some_and(|at| at > asked || at.elapsed() <= LEASE);
        let may_stand = is_voter(membership, self.mesh.number) && !is_heard && !self.is_in_doubt();
        let stands = may_stand && self.is_wanted(membership, &opinions);
        if stands {
            self.stand().await;
        }
        stands
    }

    /// Whether a majority would vote for this member.
    fn is_wanted(&self, membership: &Membership<u64, Member>, opinions: &[(u64, Opinion)]) -> bool {
        is_majority(membership, |n| n == self.mesh.number || opinions.contains(&(n, Opinion::For)))
    }

    /// What the other voters think, as far as they have to be heard: the one that is gone does not answer.
    async fn poll(&self, listed: &StoredMembership) -> Vec<(u64, Opinion)> {
        let membership = listed.membership();
        let others = membership.nodes().filter(|(n, _)| **n != self.mesh.number && is_voter(membership, **n));
        let asked = others.map(|(number, member)| async move {
            let what = What::Poll { last: self.mesh.last(), members: *listed.log_id() };
            let call = self.mesh.call(*number, member, what, &[]);
            match tokio::time::timeout(ANSWER, call).await {
                Ok(Ok(Answer::Poll(opinion))) => Some((*number, opinion)),
                other => {
                    tracing::debug!(to = number, ?other, "a member does not say whether it would vote");
                    None
                }
            }
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut opinions = Vec::new();
        while let Some(answer) = answers.next().await {
            opinions.extend(answer);
            if self.is_wanted(membership, &opinions) {
                break;
            }
        }
        opinions
    }

    /// Most of the others that it knows of say that it was removed. One alone is not believed: a member that was made a
    /// cluster of its own by force would say so, too.
    fn learn_that_it_is_over(&self, membership: &Membership<u64, Member>, opinions: &[(u64, Opinion)]) {
        let others = membership.voter_ids().filter(|n| *n != self.mesh.number).count();
        let gone = opinions.iter().filter(|(_, opinion)| *opinion == Opinion::Gone).count();
        if gone > others / 2 {
            self.set_removed();
        }
    }

    /// Stands for election now.
    pub(crate) async fn stand(&self) {
        tracing::info!("no leader is heard; standing for election");
        // An error means that consensus ended.
        if let Err(ended) = self.core.trigger().elect().await {
            tracing::debug!(%ended, "cannot stand for election");
        }
    }

    /// What to think of a member that asks.
    pub(crate) fn judge(&self, from: u64, last: Option<LogId>, members: Option<LogId>) -> Opinion {
        let agreed = self.keeper.membership();
        // Lists of members are in the log, one after the other: the newer one that was agreed on counts. A number is never
        // taken in again, so one that is not on it was removed, or never was on one.
        if members.is_some() && *agreed.log_id() > members && agreed.membership().get_node(&from).is_none() {
            return Opinion::Gone;
        }
        let is_heard = self.mesh.contacts.heard().is_some_and(|at| at.elapsed() <= LEASE);
        if self.is_in_doubt() || is_heard || self.reign.holds.borrow().is_some() {
            return Opinion::Against;
        }
        if last >= self.mesh.last() { Opinion::For } else { Opinion::Against }
    }
}

fn draw(millis: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(shoal_ambient::chance().random_range(millis))
}

/// Whether `number` has a vote.
pub fn is_voter(membership: &Membership<u64, Member>, number: u64) -> bool {
    membership.voter_ids().any(|voter| voter == number)
}

/// Whether `holds` is true of a majority; with joint lists, of each.
pub fn is_majority(membership: &Membership<u64, Member>, holds: impl Fn(u64) -> bool) -> bool {
    membership.get_joint_config().iter().all(|list| list.iter().filter(|n| holds(**n)).count() * 2 > list.len())
}
