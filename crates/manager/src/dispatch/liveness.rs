//! When silence means that a node is gone. Decided from how often it was heard before, with the time as an argument.
//!
//! A node that has been regular is missed after three seconds or so; one whose signs of life come late now and then is
//! given longer, up to what the cluster's settings say (three heartbeat periods, as in Docker). Time in which the one who
//! listens did not run itself is no silence.

use std::time::Duration;

use tokio::time::Instant;

/// Time between heartbeats in a small cluster.
const SHORTEST: Duration = Duration::from_millis(500);
/// What each node adds to it: a leader hears a thousand heartbeats a second at most.
const PER_NODE: Duration = Duration::from_millis(1);
/// Heartbeats that may be missing.
const MISSING: u32 = 3;
/// Silence that is never held against a node: a stall of two seconds, a heartbeat before it, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_millis(3200);

/// What holds for all nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Time between heartbeats.
    pub period: Duration,
    /// The shortest silence that means that a node is gone.
    shortest: Duration,
    /// The longest.
    longest: Duration,
}

/// The signs of life of one node.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// The last one of any kind.
    heard: Instant,
    /// The last heartbeat.
    beat: Instant,
    /// Seconds between heartbeats: their mean and mean deviation, both weighted towards the latest.
    interval: f64,
    deviation: f64,
}

impl Rules {
    /// The rules for a cluster of `nodes` whose settings ask for a heartbeat every `setting`. Small clusters hear of their
    /// nodes more often than that.
    pub fn new(nodes: usize, setting: Duration) -> Self {
        let by_size = PER_NODE * u32::try_from(nodes).unwrap_or(u32::MAX);
        let period = SHORTEST.max(by_size).min(setting);
        let longest = (setting * MISSING).mul_f64(1.1);
        Self { period, shortest: PATIENCE.min(longest), longest }
    }

    /// How long nodes may take to come back to a new leader.
    pub fn return_within(&self) -> Duration {
        self.shortest.max(self.period * MISSING * 2)
    }
}

impl Pulse {
    /// A node that is heard for the first time, and told to beat every `period`.
    pub fn new(now: Instant, period: Duration) -> Self {
        Self { heard: now, beat: now, interval: period.as_secs_f64(), deviation: 0.0 }
    }

    /// A heartbeat.
    pub fn beat(&mut self, now: Instant) {
        let interval = now.saturating_duration_since(self.beat).as_secs_f64();
        let off = interval - self.interval;
        // The weights that TCP has for its round trips.
        self.interval += off / 8.0;
        self.deviation += (off.abs() - self.deviation) / 4.0;
        (self.beat, self.heard) = (now, now);
    }

    /// Any other sign of life.
    pub fn hear(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    /// The one who listens did not run for `span` before `now`.
    pub fn forgive(&mut self, span: Duration, now: Instant) {
        self.heard = (self.heard + span).min(now);
        self.beat = (self.beat + span).min(now);
    }

    /// When the node counts as gone, unless it is heard before.
    pub fn deadline(&self, rules: &Rules) -> Instant {
        let told = rules.period.as_secs_f64();
        let silence = f64::from(MISSING) * self.interval.max(told) + 4.0 * self.deviation;
        let silence = Duration::try_from_secs_f64(silence).unwrap_or(rules.longest);
        self.heard + silence.clamp(rules.shortest, rules.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Duration = Duration::from_secs(5);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A node of a small cluster after a minute of heartbeats, and the time of the last one.
    fn regular(rules: &Rules) -> (Pulse, Instant) {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(now, rules.period);
        for beat in 0..120 {
            now += rules.period.mul_f64(if beat % 2 == 0 { 0.9 } else { 1.1 });
            pulse.beat(now);
        }
        (pulse, now)
    }

    #[test]
    fn a_node_that_vanishes_is_missed_within_three_and_a_half_seconds() {
        let rules = Rules::new(5, SETTING);
        let (pulse, now) = regular(&rules);
        assert!(pulse.deadline(&rules) - now <= ms(3500));
    }

    #[test]
    fn a_stall_of_two_seconds_is_not_death_even_just_before_a_heartbeat_and_again_and_again() {
        let rules = Rules::new(5, SETTING);
        let (mut pulse, mut now) = regular(&rules);
        for _ in 0..10 {
            now += rules.period.mul_f64(1.1) + ms(2000) + ms(300);
            assert!(pulse.deadline(&rules) > now);
            pulse.beat(now);
        }
    }

    #[test]
    fn who_is_often_late_is_given_longer_and_the_regular_are_trusted_less_again() {
        let rules = Rules::new(5, SETTING);
        let (mut pulse, mut now) = regular(&rules);
        for _ in 0..20 {
            for wait in [ms(500), ms(3000)] {
                now += wait;
                pulse.beat(now);
            }
        }
        let patience = pulse.deadline(&rules) - now;
        assert!(patience > ms(6000), "{patience:?}");
        for _ in 0..60 {
            now += rules.period;
            pulse.beat(now);
        }
        assert!(pulse.deadline(&rules) - now <= ms(3500));
    }

    #[test]
    fn nobody_is_waited_for_longer_than_the_settings_say() {
        let rules = Rules::new(5, SETTING);
        let mut now = Instant::now();
        let mut pulse = Pulse::new(now, rules.period);
        for _ in 0..50 {
            now += Duration::from_secs(14);
            pulse.beat(now);
        }
        assert_eq!(pulse.deadline(&rules) - now, (3 * SETTING).mul_f64(1.1));
    }

    #[test]
    fn a_listener_that_did_not_run_waits_anew() {
        let rules = Rules::new(5, SETTING);
        let (mut pulse, before) = regular(&rules);
        let now = before + Duration::from_secs(3600);
        assert!(pulse.deadline(&rules) < now);
        pulse.forgive(Duration::from_secs(3599), now);
        assert_eq!(pulse.deadline(&rules), before + Duration::from_secs(3599) + (pulse.deadline(&rules) - pulse.heard));
        assert!(pulse.deadline(&rules) > now + ms(2000));
        pulse.beat(now);
        assert!(pulse.deadline(&rules) - now <= ms(4500), "the stall is not held against the node's regularity");
    }

    #[test]
    fn heartbeats_become_rarer_as_the_cluster_grows_and_never_rarer_than_the_settings_say() {
        assert_eq!(Rules::new(3, SETTING).period, ms(500));
        assert_eq!(Rules::new(2000, SETTING).period, ms(2000));
        assert_eq!(Rules::new(50_000, SETTING).period, SETTING);
        assert_eq!(Rules::new(3, ms(50)).period, ms(50));
    }

    #[test]
    fn a_node_that_died_with_the_leader_is_found_soon() {
        assert!(Rules::new(5, SETTING).return_within() <= ms(3500));
        assert!(Rules::new(5000, SETTING).return_within() >= 6 * SETTING);
    }
}
