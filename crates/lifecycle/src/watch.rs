//! What is seen of a container while it starts and runs, and what that means (swarm-semantics 6.1 to 6.3).

use crate::Failure;

/// Watches one container through [`Action::Start`](crate::Action::Start) or [`Action::Wait`](crate::Action::Wait).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    phase: Phase,
    unhealthy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting { gated: bool },
    Running,
}

/// Something seen of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Its process runs.
    Started,
    /// Its health check says healthy.
    Healthy,
    /// Its health check says unhealthy.
    Unhealthy,
    /// Its process ended.
    Exited(Exit),
    /// It was removed behind the agent's back.
    Destroyed,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Its exit code; 128 + n for signal n.
    pub code: i64,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// What the engine has to say, where it has.
    pub error: String,
}

/// What an observation means for the action in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on watching.
    Wait,
    /// Stop the container as for a shutdown, and go on watching until it ended.
    Stop,
    /// The action is done, with this outcome.
    Done(Result<(), Failure>),
}

// === impl Watch ===

impl Watch {
    /// Watches a container that is being started; `gated`: it has a health check, so that running is not enough.
    pub fn starting(gated: bool) -> Self {
        Self { phase: Phase::Starting { gated }, unhealthy: false }
    }

    /// Watches a container that runs.
    pub fn running() -> Self {
        Self { phase: Phase::Running, unhealthy: false }
    }

    /// What `seen` means. An unhealthy container is stopped; the outcome then follows its exit code, as in Swarm.
    pub fn observe(&mut self, seen: Observation) -> Verdict {
        match (seen, self.phase) {
            (Observation::Started, Phase::Starting { gated: false }) => Verdict::Done(Ok(())),
            // being told to stop, it does not become good again
            (Observation::Healthy, Phase::Starting { .. }) if !self.unhealthy => Verdict::Done(Ok(())),
            (Observation::Started | Observation::Healthy, _) => Verdict::Wait,
            (Observation::Unhealthy, _) if self.unhealthy => Verdict::Wait,
            (Observation::Unhealthy, _) => {
                self.unhealthy = true;
                Verdict::Stop
            }
            (Observation::Exited(exit), _) => Verdict::Done(self.outcome(&exit)),
            (Observation::Destroyed, _) => Verdict::Done(Err(Failure::Final("dockerexec: container destroyed".into()))),
        }
    }

    fn outcome(&self, exit: &Exit) -> Result<(), Failure> {
        if exit.code == 0 {
            return Ok(());
        }
        let cause = match exit {
            _ if self.unhealthy => ": dockerexec: unhealthy container".to_owned(),
            Exit { error, .. } if !error.is_empty() => format!(": {error}"),
            Exit { oom_killed: true, .. } => ": container ran out of memory".to_owned(),
            _ => String::new(),
        };
        Err(Failure::Final(format!("task: non-zero exit ({}){cause}", exit.code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i64) -> Observation {
        Observation::Exited(Exit { code, ..Exit::default() })
    }

    fn failed(text: &str) -> Verdict {
        Verdict::Done(Err(Failure::Final(text.into())))
    }

    #[test]
    fn without_a_health_check_a_started_container_is_running() {
        assert_eq!(Watch::starting(false).observe(Observation::Started), Verdict::Done(Ok(())));
    }

    #[test]
    fn with_a_health_check_it_is_running_only_once_healthy() {
        let mut watch = Watch::starting(true);
        assert_eq!(watch.observe(Observation::Started), Verdict::Wait);
        assert_eq!(watch.observe(Observation::Healthy), Verdict::Done(Ok(())));
    }

    #[test]
    fn an_unhealthy_container_is_stopped_once_and_its_exit_code_decides() {
        for mut watch in [Watch::starting(true), Watch::running()] {
            assert_eq!(watch.observe(Observation::Unhealthy), Verdict::Stop);
            assert_eq!(watch.observe(Observation::Unhealthy), Verdict::Wait);
            assert_eq!(watch.observe(Observation::Healthy), Verdict::Wait);
            assert_eq!(watch.clone().observe(exit(0)), Verdict::Done(Ok(())));
            let text = "task: non-zero exit (143): dockerexec: unhealthy container";
            assert_eq!(watch.observe(exit(143)), failed(text));
        }
    }

    #[test]
    fn an_end_while_starting_is_judged_by_its_exit_code() {
        assert_eq!(Watch::starting(true).observe(exit(0)), Verdict::Done(Ok(())));
        assert_eq!(Watch::starting(true).observe(exit(3)), failed("task: non-zero exit (3)"));
    }

    #[test]
    fn a_failed_container_says_why_where_that_is_known() {
        let oom = Exit { code: 137, oom_killed: true, ..Exit::default() };
        let text = "task: non-zero exit (137): container ran out of memory";
        assert_eq!(Watch::running().observe(Observation::Exited(oom)), failed(text));
        let said = Exit { code: 128, error: "no such device".into(), ..Exit::default() };
        let text = "task: non-zero exit (128): no such device";
        assert_eq!(Watch::running().observe(Observation::Exited(said)), failed(text));
    }

    #[test]
    fn a_container_that_vanished_has_failed() {
        assert_eq!(Watch::running().observe(Observation::Destroyed), failed("dockerexec: container destroyed"));
    }
}
