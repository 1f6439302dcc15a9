//! Where and when this node turns to a manager next, after a session has ended: at once to a leader that was named, soon
//! while a new one is being elected, later and later where nobody answers.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest one in a small cluster: whoever comes back finds its nodes soon.
const LONGEST: Duration = Duration::from_secs(1);
/// The longest one while managers answer that none of them leads.
const ELECTION: Duration = Duration::from_millis(250);
/// Managers that name each other may be wrong all together; after so many a pause is due.
const HOPS: u32 = 3;
/// For this long a manager that has just failed this node is not turned to though others name it: they may not know yet.
/// Without a leader they notice within little more than a second.
const DOUBT: Duration = Duration::from_millis(1500);

/// Why a session ended, as far as it matters for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This node wants to introduce itself again.
    Anew,
    /// The manager does not lead, and may have said who does.
    NotLeader(Option<String>),
    /// Anything else.
    Failed,
}

/// The way to the next session.
#[derive(Debug, Default)]
pub struct Search {
    hint: Option<String>,
    hops: u32,
    backoff: Duration,
    /// The manager that failed this node last, and until when it is not believed to lead.
    doubted: Option<(String, Instant)>,
    /// Between heartbeats, as the last leader wanted it: longer where nodes are many.
    period: Duration,
}

impl Search {
    /// The manager to turn to now, where one was named.
    pub fn hint(&mut self) -> Option<String> {
        self.hint.take()
    }

    /// The manager on `addr` did not keep a session.
    pub fn failed(&mut self, addr: &str, now: Instant) {
        self.doubted = Some((addr.to_owned(), now + DOUBT));
    }

    /// A session has come about.
    pub fn welcome(&mut self, period: Duration) {
        self.hops = 0;
        self.doubted = None;
        self.period = period;
    }

    /// A session, or the attempt at one, ended at `now` after `lasted`: how long to wait before the next.
    pub fn next(&mut self, reason: Reason, lasted: Duration, now: Instant, chance: &mut impl Rng) -> Duration {
        let longest = LONGEST.max(2 * self.period);
        if lasted > longest {
            self.backoff = Duration::ZERO;
        }
        let most = match reason {
            Reason::Anew => return Duration::ZERO,
            Reason::NotLeader(Some(addr)) if self.hops < HOPS && !self.doubts(&addr, now) => {
                self.hops += 1;
                self.hint = Some(addr);
                return Duration::ZERO;
            }
            Reason::NotLeader(_) => ELECTION.max(self.period / 2),
            Reason::Failed => longest,
        };
        self.hops = 0;
        self.backoff = (FIRST + 2 * self.backoff).min(most);
        chance.random_range(Duration::ZERO..self.backoff)
    }
}

impl Search {
    fn doubts(&self, addr: &str, now: Instant) -> bool {
        self.doubted.as_ref().is_some_and(|(doubted, until)| doubted == addr && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Reason {
        Reason::NotLeader(Some("10.0.0.2:2377".into()))
    }

    fn next(search: &mut Search, reason: Reason) -> Duration {
        search.next(reason, Duration::ZERO, Instant::now(), &mut rand::rng())
    }

    #[test]
    fn a_leader_that_is_named_is_followed_at_once_and_once() {
        let mut search = Search::default();
        assert_eq!(next(&mut search, named()), Duration::ZERO);
        assert_eq!(search.hint().as_deref(), Some("10.0.0.2:2377"));
        assert_eq!(search.hint(), None, "then any manager will do");
    }

    #[test]
    fn a_manager_that_has_just_failed_is_not_believed_to_lead_for_a_while() {
        let mut search = Search::default();
        let now = Instant::now();
        search.failed("10.0.0.2:2377", now);
        let mut at = |passed| {
            search.next(named(), Duration::ZERO, now + passed, &mut rand::rng());
            search.hint().is_some()
        };
        assert!((0..100).all(|_| !at(Duration::from_secs(1))));
        assert!(at(Duration::from_secs(12)), "it may lead again");
    }

    #[test]
    fn managers_that_name_each_other_do_not_keep_a_node_running_in_circles() {
        let mut search = Search::default();
        let followed = (0..100).filter(|_| {
            next(&mut search, named());
            search.hint().is_some()
        });
        assert_eq!(followed.count(), 75);
    }

    #[test]
    fn nobody_waits_longer_than_a_second_in_a_small_cluster_and_a_quarter_during_an_election() {
        let mut search = Search::default();
        search.welcome(Duration::from_millis(500));
        for _ in 0..200 {
            assert!(next(&mut search, Reason::Failed) < LONGEST);
        }
        for _ in 0..200 {
            assert!(next(&mut search, Reason::NotLeader(None)) < ELECTION);
        }
    }

    #[test]
    fn where_nodes_are_many_they_take_their_time() {
        let mut search = Search::default();
        search.welcome(Duration::from_secs(5));
        let longest = (0..200).map(|_| next(&mut search, Reason::Failed)).max().unwrap();
        assert!(longest > Duration::from_secs(5) && longest < Duration::from_secs(10), "{longest:?}");
    }

    #[test]
    fn a_session_that_held_makes_the_next_attempt_quick() {
        let mut search = Search::default();
        for _ in 0..10 {
            next(&mut search, Reason::Failed);
        }
        let pause = search.next(Reason::Failed, Duration::from_secs(60), Instant::now(), &mut rand::rng());
        assert!(pause < FIRST);
    }
}
