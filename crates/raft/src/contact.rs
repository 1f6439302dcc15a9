//! When this manager heard of the others, and when they heard it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use openraft::Membership;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::types::{Member, Vote};

/// Without any sign for this long, a member counts as out of reach.
const REACH: Duration = Duration::from_secs(2);
/// A member whose algorithm does nothing for this long, because its disk does not answer, does not count any more.
const STUCK: Duration = Duration::from_secs(4);

/// What is known of contacts.
#[derive(Debug)]
pub struct Contacts {
    known: Mutex<Known>,
    acks: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// When a leader was last heard here.
    heard: Option<Instant>,
    /// When anything last came from each member.
    met: BTreeMap<u64, Instant>,
    /// What this manager leads by, or led by last.
    reign: Option<Vote>,
    /// When the newest message of this reign was sent that each member's algorithm has answered.
    acked: BTreeMap<u64, Instant>,
    /// When the newest sign of life of this reign was sent that each member has answered.
    alive: BTreeMap<u64, Instant>,
    /// When the algorithm here last did anything.
    awake: Option<Instant>,
    /// The members that the leader does not reach, as it says.
    down: BTreeSet<u64>,
}

impl Default for Contacts {
    fn default() -> Self {
        Self { known: Mutex::default(), acks: watch::Sender::new(()) }
    }
}

impl Contacts {
    /// A leader's message was taken, which came at `at`.
    pub fn hear(&self, at: Instant) {
        let mut known = self.lock();
        known.heard = known.heard.max(Some(at));
    }

    /// When a leader was last heard.
    pub fn heard(&self) -> Option<Instant> {
        self.lock().heard
    }

    /// Something came from `number`.
    pub fn meet(&self, number: u64) {
        self.lock().met.insert(number, Instant::now());
    }

    /// When anything last came from `number`.
    pub fn met(&self, number: u64) -> Option<Instant> {
        self.lock().met.get(&number).copied()
    }

    /// `number` keeps its promise to the one who leads by `vote`: its algorithm has answered a message sent at `sent`.
    pub fn acknowledge(&self, number: u64, vote: Vote, sent: Instant) {
        let is_new = self.lock().reign(vote).is_some_and(|known| newer(&mut known.acked, number, sent));
        if is_new {
            self.acks.send_replace(());
        }
    }

    /// `number` hears the one who leads by `vote`: it has answered a sign of life sent at `sent`. Its algorithm may be busy.
    pub fn answer(&self, number: u64, vote: Vote, sent: Instant) {
        if let Some(known) = self.lock().reign(vote) {
            newer(&mut known.alive, number, sent);
        }
    }

    /// Sees acknowledgements come.
    pub fn acks(&self) -> watch::Receiver<()> {
        self.acks.subscribe()
    }

    /// Since when at least a majority of `membership` hears `me`, who leads by `vote`: each of them has answered something
    /// that was sent then or later. With joint lists, a majority of each. Itself it hears at `now`.
    pub fn heeded(&self, membership: &Membership<u64, Member>, me: u64, vote: Vote, now: Instant) -> Option<Instant> {
        let known = self.lock();
        let is_reign = known.reign == Some(vote);
        let sign = |n: &u64| known.alive.get(n).max(known.acked.get(n)).copied().filter(|_| is_reign);
        majority(membership, |n| if *n == me { Some(now) } else { sign(n) })
    }

    /// Like [`Self::heeded`], of those whose algorithm has answered: they give no vote to another for a while.
    pub fn followed(&self, membership: &Membership<u64, Member>, me: u64, vote: Vote, now: Instant) -> Option<Instant> {
        let known = self.lock();
        let is_reign = known.reign == Some(vote);
        let acked = |n: &u64| known.acked.get(n).copied().filter(|_| is_reign);
        majority(membership, |n| if *n == me { Some(now) } else { acked(n) })
    }

    /// The algorithm here does something.
    pub fn wake(&self) {
        self.lock().awake = Some(Instant::now());
    }

    /// Whether the algorithm here does anything.
    pub fn is_awake(&self) -> bool {
        self.lock().awake.is_some_and(|at| at.elapsed() < STUCK)
    }

    /// What the leader says of whom it does not reach.
    pub fn set_down(&self, down: impl IntoIterator<Item = u64>) {
        self.lock().down = down.into_iter().collect();
    }

    /// Whom the leader does not reach.
    pub fn down(&self) -> Vec<u64> {
        self.lock().down.iter().copied().collect()
    }

    /// Whether the leader reaches `number`, as it says.
    pub fn is_down(&self, number: u64) -> bool {
        self.lock().down.contains(&number)
    }

    /// Whether there was a sign of `number` of late.
    pub fn is_near(&self, number: u64) -> bool {
        let known = self.lock();
        let sign = known.met.get(&number);
        sign.is_some_and(|at| at.elapsed() < REACH)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the contacts")
    }
}

impl Known {
    /// What is known of the reign by `vote`, if there is no newer one.
    fn reign(&mut self, vote: Vote) -> Option<&mut Self> {
        if self.reign.is_some_and(|reign| vote < reign) {
            return None;
        }
        if self.reign != Some(vote) {
            self.reign = Some(vote);
            self.acked.clear();
            self.alive.clear();
        }
        Some(self)
    }
}

/// Notes `at` where it is newer; whether it is.
fn newer(times: &mut BTreeMap<u64, Instant>, number: u64, at: Instant) -> bool {
    let before = times.get(&number).copied();
    times.insert(number, before.map_or(at, |before| before.max(at)));
    before.is_none_or(|before| before < at)
}

/// Since when a majority of `membership` has a time; with joint lists, of each.
fn majority(membership: &Membership<u64, Member>, time: impl Fn(&u64) -> Option<Instant>) -> Option<Instant> {
    let of = |voters: &BTreeSet<u64>| {
        let mut times: Vec<_> = voters.iter().map(&time).collect();
        times.sort_unstable();
        // The majority's slowest: as many are at least as new as are needed.
        times.get(voters.len().checked_sub(1)? / 2).copied().flatten()
    };
    membership.get_joint_config().iter().map(of).min().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(lists: &[&[u64]]) -> Membership<u64, Member> {
        let lists: Vec<BTreeSet<u64>> = lists.iter().map(|l| l.iter().copied().collect()).collect();
        let nodes: BTreeMap<u64, Member> = lists.iter().flatten().map(|n| (*n, Member::default())).collect();
        Membership::new(lists, nodes)
    }

    #[test]
    fn a_majority_follows_since_its_slowest_answer() {
        let (contacts, vote) = (Contacts::default(), Vote::new_committed(2, 1));
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let followed = |lists: &[&[u64]]| contacts.followed(&members(lists), 1, vote, at(9));
        assert_eq!(followed(&[&[1]]), Some(at(9)));
        assert_eq!(followed(&[&[1, 2]]), None);
        for number in 2..=4 {
            contacts.acknowledge(number, vote, at(number));
        }
        assert_eq!(followed(&[&[1, 2]]), Some(at(2)));
        assert_eq!(followed(&[&[1, 2, 3]]), Some(at(3)));
        assert_eq!(followed(&[&[1, 2, 3, 4]]), Some(at(3)));
        assert_eq!(followed(&[&[1, 2, 3, 4, 5]]), Some(at(3)));
        assert_eq!(followed(&[&[1, 2, 3], &[1, 2]]), Some(at(2)), "both lists count");
        assert_eq!(followed(&[&[1, 3], &[1, 5]]), None);
    }

    #[test]
    fn what_was_answered_to_an_earlier_reign_does_not_count() {
        let contacts = Contacts::default();
        let (old, new) = (Vote::new_committed(2, 1), Vote::new_committed(3, 1));
        contacts.acknowledge(2, old, Instant::now());
        assert_eq!(contacts.followed(&members(&[&[1, 2]]), 1, new, Instant::now()), None);
        contacts.acknowledge(3, new, Instant::now());
        contacts.acknowledge(2, old, Instant::now());
        assert_eq!(contacts.followed(&members(&[&[1, 2]]), 1, new, Instant::now()), None);
        contacts.answer(2, new, Instant::now());
        assert_eq!(contacts.followed(&members(&[&[1, 2]]), 1, new, Instant::now()), None, "it promises nothing");
        assert!(contacts.heeded(&members(&[&[1, 2]]), 1, new, Instant::now()).is_some());
    }
}
