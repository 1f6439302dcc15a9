//! What comes next for a task, and what an outcome makes of its status.

use shoal_types::object::{ContainerStatus, TaskStatus};
use shoal_types::spec::PortConfig;
use shoal_types::{Nanos, TaskState, Timestamp, after};

/// Nanoseconds before something is tried again that failed for a reason that may pass.
pub const RETRY: Nanos = 1_000_000_000;

/// What the managers want of a task on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// To reach this state.
    State(TaskState),
    /// To leave no trace: its record was deleted.
    Gone,
}

/// What an agent does next for a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Report this status, then ask again.
    Report(TaskStatus),
    /// Do this, then call [`finish`].
    Do(Action),
    /// Nothing, until something else is wanted.
    Idle,
}

/// What an agent can do for a task. Each may be asked for again after a restart of the daemon, and then goes on
/// from what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Check the task's spec and expand its templates. Touches nothing.
    Accept,
    /// Pull the image, make volumes and the container.
    Prepare,
    /// Start the container and wait until it is healthy, where it has a health check.
    Start,
    /// Wait until the container ends.
    Wait,
    /// Stop the container and keep it. Done where there is none.
    Shutdown,
    /// Remove the container and its anonymous volumes. Done where there is none.
    Remove,
}

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Broken off by the agent itself, because something else is wanted.
    #[error("cancelled")]
    Cancelled,
    /// For a reason that may pass: the same is tried again.
    #[error("{0}")]
    Temporary(String),
    /// For good: the text becomes the task's error.
    #[error("{0}")]
    Final(String),
}

/// What is known of the container after an action; absent parts stay as they were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The container.
    pub container: Option<ContainerStatus>,
    /// Its host-mode ports.
    pub ports: Option<Vec<PortConfig>>,
}

/// What the outcome of an action means.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// Report this status, then ask for the next step.
    Report(TaskStatus),
    /// Ask for the next step at that time.
    Retry(Timestamp),
    /// Forget the task.
    Forget,
}

/// What comes next for a task with `status` of which `wanted` is wanted.
pub fn plan_next(status: &TaskStatus, wanted: Wanted, now: Timestamp) -> Next {
    use TaskState as S;
    let state = status.state;
    let desired = match wanted {
        Wanted::Gone if state >= S::Complete => return Next::Do(Action::Remove),
        Wanted::Gone => S::Remove,
        Wanted::State(desired) => desired,
    };
    if desired >= S::Shutdown {
        return if state >= S::Complete { Next::Idle } else { Next::Do(Action::Shutdown) };
    }
    if state > desired {
        return Next::Idle;
    }
    match state {
        S::Preparing => Next::Do(Action::Prepare),
        S::Starting => Next::Do(Action::Start),
        S::Running => Next::Do(Action::Wait),
        _ if state >= desired => Next::Idle,
        S::New | S::Pending | S::Assigned => Next::Do(Action::Accept),
        S::Accepted => Next::Report(advanced(status, S::Preparing, "preparing", now)),
        S::Ready => Next::Report(advanced(status, S::Starting, "starting", now)),
        _ => Next::Idle,
    }
}

/// What the `outcome` of `action` makes of a task with `status`.
pub fn finish(
    status: &TaskStatus,
    action: Action,
    outcome: Result<(), Failure>,
    facts: Facts,
    now: Timestamp,
) -> Finished {
    let text = match (action, outcome) {
        (_, Err(Failure::Cancelled)) => return Finished::Retry(now),
        (Action::Remove, Ok(())) => return Finished::Forget,
        // a container that stays behind is worse than a late goodbye
        (_, Err(Failure::Temporary(_))) | (Action::Remove, Err(_)) => return Finished::Retry(after(now, RETRY)),
        (_, Err(Failure::Final(text))) => Some(text),
        (_, Ok(())) => None,
    };
    let (state, message) = match (action, &text) {
        (Action::Accept, Some(_)) => (TaskState::Rejected, "resolving controller failed"),
        (_, Some(_)) if status.state < TaskState::Starting => (TaskState::Rejected, &*status.message),
        (_, Some(_)) => (TaskState::Failed, &*status.message),
        (Action::Accept, None) => (TaskState::Accepted, "accepted"),
        (Action::Prepare, None) => (TaskState::Ready, "prepared"),
        (Action::Start, None) => (TaskState::Running, "started"),
        (Action::Wait, None) => (TaskState::Complete, "finished"),
        (Action::Shutdown | Action::Remove, None) => (TaskState::Shutdown, "shutdown"),
    };
    let mut next = advanced(status, state, message, now);
    next.err = text.unwrap_or_default();
    next.container = facts.container.or(next.container);
    next.ports = facts.ports.unwrap_or(next.ports);
    if state.is_terminal() {
        next.ports.clear();
        if let Some(container) = &mut next.container {
            container.pid = 0;
        }
    }
    Finished::Report(next)
}

fn advanced(status: &TaskStatus, state: TaskState, message: &str, now: Timestamp) -> TaskStatus {
    TaskStatus {
        timestamp: now,
        state: state.max(status.state),
        message: message.into(),
        err: String::new(),
        container: status.container.clone(),
        ports: status.ports.clone(),
        applied_at: status.applied_at,
    }
}

// === impl Failure ===

impl Failure {
    /// The engine refused to start the container.
    pub fn to_start(error: impl std::fmt::Display) -> Self {
        Self::Final(format!("starting container failed: {error}"))
    }
}

#[cfg(test)]
mod tests;
