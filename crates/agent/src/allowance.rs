//! How much of the wire the log lines of one task may take: a task that writes without end must not keep the lines of all
//! others, nor the cluster's own messages, waiting (swarm-semantics 12).

use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second that are sent for each task of a subscription.
const RATE: f64 = 10e6;
/// Bytes that may be sent at once by one that has sent little before.
const BURST: f64 = 10e6;

/// What one task may send.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Bytes; less than nothing where more was sent than could be.
    left: f64,
    at: Instant,
}

impl Allowance {
    /// A task that has sent nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// `bytes` are to be sent at `now`: how long they have to wait.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        self.left = (self.left + gained).min(BURST) - bytes as f64;
        self.at = self.at.max(now);
        Duration::from_secs_f64((-self.left / RATE).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_what_follows_at_ten_megabytes_a_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut task = Allowance::new(start);
        assert_eq!(task.take(10_000_000, at(0)), Duration::ZERO);
        assert_eq!(task.take(1_000_000, at(0)), Duration::from_millis(100));
        assert_eq!(task.take(1_000_000, at(100)), Duration::from_millis(100));
        assert_eq!(task.take(0, at(200)), Duration::ZERO);
        // However long it was silent, no more than the burst is saved up.
        assert_eq!(task.take(11_000_000, at(60_000)), Duration::from_millis(100));
    }

    #[test]
    fn a_task_that_writes_without_end_gets_its_share_and_no_more() {
        let start = Instant::now();
        let (mut task, mut now) = (Allowance::new(start), start);
        for _ in 0..50_000 {
            // A timer is as fine as a millisecond.
            let wait = task.take(1_000, now);
            now += Duration::from_millis(wait.as_micros().div_ceil(1_000) as u64);
        }
        let took = (now - start).as_secs_f64();
        assert!((3.9..4.2).contains(&took), "fifty megabytes, of which ten at once, in {took} s");
    }
}
