//! Health of a container, as a state machine over probe results. Pure; the engine runs the probes.

use std::collections::VecDeque;
use std::time::Duration;

use bollard_stubs::models::{Health, HealthConfig, HealthStatusEnum, HealthcheckResult};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How many results are kept.
const KEPT: usize = 5;
/// How much output of a probe is kept, in bytes.
pub const MAX_OUTPUT: usize = 4096;

/// What to run and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPlan {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Pause between probes.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// After the start, failures do not count for so long.
    pub start_period: Duration,
    /// Pause between probes in that time.
    pub start_interval: Duration,
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
}

/// How healthy a container is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthState {
    /// What the newest results say.
    pub status: Status,
    /// Failures in a row.
    pub streak: u32,
    /// The newest results, oldest first.
    pub log: VecDeque<Probe>,
}

/// Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Too few results yet.
    Starting,
    /// The newest probe succeeded.
    Healthy,
    /// So many probes in a row failed that it counts.
    Unhealthy,
}

/// A probe's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0: healthy; -1: it could not be run or took too long.
    pub exit_code: i32,
    /// What it printed, cut.
    pub output: String,
}

impl HealthPlan {
    /// From a container's configuration; `None`: no health checks.
    pub fn new(config: Option<&HealthConfig>, shell: &[String]) -> Option<Self> {
        let config = config?;
        let test = config.test.as_deref().unwrap_or_default();
        let command = match test.first().map(String::as_str) {
            Some("CMD") => test[1..].to_vec(),
            Some("CMD-SHELL") => {
                let default = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = if shell.is_empty() { &default[..] } else { shell };
                shell.iter().chain(&test[1..]).cloned().collect()
            }
            _ => return None,
        };
        if command.is_empty() {
            return None;
        }
        let span = |nanos: Option<i64>, default: u64| match nanos.unwrap_or_default() {
            n if n > 0 => Duration::from_nanos(n.unsigned_abs()),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            command,
            interval: span(config.interval, 30),
            timeout: span(config.timeout, 30),
            start_period: span(config.start_period, 0),
            start_interval: span(config.start_interval, 5),
            retries: config.retries.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
        })
    }

    /// The pause before the next probe.
    pub fn pause(&self, state: &HealthState, started: Timestamp, now: Timestamp) -> Duration {
        if state.status == Status::Starting && self.in_start_period(started, now) {
            self.start_interval
        } else {
            self.interval
        }
    }

    fn in_start_period(&self, started: Timestamp, now: Timestamp) -> bool {
        let age = now.duration_since(started);
        SignedDuration::try_from(self.start_period).is_ok_and(|period| age < period)
    }

    /// Takes a result in; returns the new status if it changed.
    pub fn take(&self, state: &mut HealthState, probe: Probe, started: Timestamp) -> Option<Status> {
        let before = state.status;
        if probe.exit_code == 0 {
            state.streak = 0;
            state.status = Status::Healthy;
        } else if !(before == Status::Starting && self.in_start_period(started, probe.start)) {
            state.streak = state.streak.saturating_add(1);
            if state.streak >= self.retries {
                state.status = Status::Unhealthy;
            }
        }
        while state.log.len() >= KEPT {
            state.log.pop_front();
        }
        state.log.push_back(probe);
        (state.status != before).then_some(state.status)
    }
}

impl Default for HealthState {
    fn default() -> Self {
        Self { status: Status::Starting, streak: 0, log: VecDeque::new() }
    }
}

impl HealthState {
    /// Docker's body.
    pub fn body(&self) -> Health {
        Health {
            status: Some(self.status.word()),
            failing_streak: Some(self.streak.into()),
            log: Some(self.log.iter().map(Probe::body).collect()),
        }
    }
}

impl Status {
    /// Docker's word.
    pub fn word(self) -> HealthStatusEnum {
        match self {
            Self::Starting => HealthStatusEnum::STARTING,
            Self::Healthy => HealthStatusEnum::HEALTHY,
            Self::Unhealthy => HealthStatusEnum::UNHEALTHY,
        }
    }
}

impl Probe {
    fn body(&self) -> HealthcheckResult {
        HealthcheckResult {
            start: Some(self.start.to_string()),
            end: Some(self.end.to_string()),
            exit_code: Some(self.exit_code.into()),
            output: Some(self.output.clone()),
        }
    }
}

/// Whether a failed probe of a container is an event, and which (`health_status: healthy`).
pub fn event(status: Status) -> String {
    format!("health_status: {}", status.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn probe(second: i64, exit_code: i32) -> Probe {
        Probe { start: at(second), end: at(second + 1), exit_code, output: String::new() }
    }

    fn plan(config: HealthConfig) -> HealthPlan {
        let test = Some(vec!["CMD".to_owned(), "true".to_owned()]);
        HealthPlan::new(Some(&HealthConfig { test, ..config }), &[]).unwrap()
    }

    #[test]
    fn commands_and_defaults() {
        let of = |test: &[&str], shell: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            HealthPlan::new(Some(&HealthConfig { test: Some(own(test)), ..HealthConfig::default() }), &own(shell))
        };
        assert_eq!(of(&["NONE"], &[]), None);
        assert_eq!(of(&[], &[]), None);
        assert_eq!(HealthPlan::new(None, &[]), None);
        let plan = of(&["CMD-SHELL", "exit 1"], &[]).unwrap();
        assert_eq!(plan.command, ["/bin/sh", "-c", "exit 1"]);
        assert_eq!((plan.interval.as_secs(), plan.timeout.as_secs(), plan.retries), (30, 30, 3));
        assert_eq!(of(&["CMD-SHELL", "x"], &["bash", "-ec"]).unwrap().command, ["bash", "-ec", "x"]);
    }

    #[test]
    fn retries_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let plan = plan(HealthConfig { retries: Some(2), ..HealthConfig::default() });
        let mut state = HealthState::default();
        assert_eq!(plan.take(&mut state, probe(1, 1), at(0)), None);
        assert_eq!(plan.take(&mut state, probe(2, 0), at(0)), Some(Status::Healthy));
        assert_eq!(plan.take(&mut state, probe(3, 1), at(0)), None);
        assert_eq!(plan.take(&mut state, probe(4, -1), at(0)), Some(Status::Unhealthy));
        assert_eq!(plan.take(&mut state, probe(5, 1), at(0)), None);
        assert_eq!(state.streak, 3);
        assert_eq!(plan.take(&mut state, probe(6, 0), at(0)), Some(Status::Healthy));
        assert_eq!((state.streak, state.log.len()), (0, 5));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let config = HealthConfig {
            retries: Some(1),
            start_period: Some(10 * SECOND),
            start_interval: Some(SECOND),
            ..Default::default()
        };
        let plan = plan(config);
        let mut state = HealthState::default();
        assert_eq!(plan.pause(&state, at(0), at(1)), Duration::from_secs(1));
        assert_eq!(plan.take(&mut state, probe(5, 1), at(0)), None);
        assert_eq!(state.streak, 0);
        assert_eq!(plan.pause(&state, at(0), at(10)), Duration::from_secs(30));
        assert_eq!(plan.take(&mut state, probe(10, 1), at(0)), Some(Status::Unhealthy));
        let mut early = HealthState::default();
        assert_eq!(plan.take(&mut early, probe(1, 0), at(0)), Some(Status::Healthy));
        assert_eq!(
            plan.take(&mut early, probe(2, 1), at(0)),
            Some(Status::Unhealthy),
            "once healthy, the period is over"
        );
    }
}
