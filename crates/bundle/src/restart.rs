//! Restart policies: whether and when a container that ended starts again. Pure.

use std::time::Duration;

use bollard_stubs::models::{RestartPolicy, RestartPolicyNameEnum as Name};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run that lasted so long makes the next pause the first one again.
const STABLE: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What its process ended with.
    pub exit_code: i32,
    /// How long it ran.
    pub ran: Duration,
    /// A person stopped or killed it.
    pub manually: bool,
    /// Restarts so far.
    pub restarts: u32,
    /// The pause before the last restart; zero: there was none.
    pub backoff: Duration,
}

/// The pause before the next start; `None`: it stays ended.
pub fn plan_restart(policy: Option<&RestartPolicy>, ended: Ended) -> Option<Duration> {
    let wanted = match name(policy) {
        Name::EMPTY | Name::NO => false,
        Name::ALWAYS | Name::UNLESS_STOPPED => true,
        Name::ON_FAILURE => {
            let most = policy.and_then(|p| p.maximum_retry_count).unwrap_or_default();
            ended.exit_code != 0 && (most <= 0 || i64::from(ended.restarts) < most)
        }
    };
    if !wanted || ended.manually {
        return None;
    }
    let last = if ended.ran >= STABLE { Duration::ZERO } else { ended.backoff };
    Some(if last.is_zero() { FIRST } else { (last * 2).min(LONGEST) })
}

/// Whether a container that does not run is started when the daemon starts.
pub fn starts_with_the_daemon(policy: Option<&RestartPolicy>, ended: Ended) -> bool {
    match name(policy) {
        Name::EMPTY | Name::NO => false,
        Name::ALWAYS => true,
        Name::UNLESS_STOPPED => !ended.manually,
        Name::ON_FAILURE => plan_restart(policy, ended).is_some(),
    }
}

/// The policy's name, `no` where there is none.
pub fn name(policy: Option<&RestartPolicy>) -> Name {
    policy.and_then(|policy| policy.name).unwrap_or(Name::NO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: Name, most: i64) -> Option<RestartPolicy> {
        Some(RestartPolicy { name: Some(name), maximum_retry_count: Some(most) })
    }

    fn ended(exit_code: i32) -> Ended {
        Ended { exit_code, ran: Duration::from_secs(1), manually: false, restarts: 0, backoff: Duration::ZERO }
    }

    #[test]
    fn the_policy_decides() {
        let plan = |policy: Option<RestartPolicy>, ended| plan_restart(policy.as_ref(), ended).is_some();
        assert!(!plan(None, ended(1)));
        assert!(!plan(policy(Name::NO, 0), ended(1)));
        assert!(plan(policy(Name::ALWAYS, 0), ended(0)));
        assert!(plan(policy(Name::UNLESS_STOPPED, 0), ended(0)));
        assert!(!plan(policy(Name::ON_FAILURE, 0), ended(0)));
        assert!(plan(policy(Name::ON_FAILURE, 0), Ended { restarts: 1000, ..ended(1) }));
        assert!(plan(policy(Name::ON_FAILURE, 3), Ended { restarts: 2, ..ended(1) }));
        assert!(!plan(policy(Name::ON_FAILURE, 3), Ended { restarts: 3, ..ended(1) }));
        assert!(!plan(policy(Name::ALWAYS, 0), Ended { manually: true, ..ended(0) }));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_start_anew_after_a_stable_run() {
        let policy = policy(Name::ALWAYS, 0);
        let mut backoff = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            backoff = plan_restart(policy.as_ref(), Ended { backoff, ..ended(1) }).unwrap();
            pauses.push(backoff.as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[10..], [60_000, 60_000]);
        let stable = Ended { backoff, ran: Duration::from_secs(10), ..ended(1) };
        assert_eq!(plan_restart(policy.as_ref(), stable), Some(FIRST));
    }

    #[test]
    fn a_stopped_container_comes_back_with_the_daemon_only_under_always() {
        let stopped = Ended { manually: true, ..ended(137) };
        assert!(starts_with_the_daemon(policy(Name::ALWAYS, 0).as_ref(), stopped));
        assert!(!starts_with_the_daemon(policy(Name::UNLESS_STOPPED, 0).as_ref(), stopped));
        assert!(starts_with_the_daemon(policy(Name::UNLESS_STOPPED, 0).as_ref(), ended(137)));
        assert!(!starts_with_the_daemon(policy(Name::ON_FAILURE, 0).as_ref(), stopped));
        assert!(starts_with_the_daemon(policy(Name::ON_FAILURE, 0).as_ref(), ended(137)));
        assert!(!starts_with_the_daemon(None, ended(137)));
    }
}
