//! One task of this node, from its assignment to its removal: asks `lifecycle` what comes next, has it done, reports.

use std::sync::Arc;
use std::time::Duration;

use shoal_lifecycle::{Action, Facts, Failure, Finished, Next, RETRY, Wanted, finish, plan_next};
use shoal_types::object::TaskStatus;
use shoal_types::{Task, TaskId};
use tokio::sync::watch;

use crate::executor::{Executor, Outcome};
use crate::payloads::Payloads;
use crate::record::Record;
use crate::reporter::Reporter;

/// How long a task that ended with the machine waits for a manager that may want it no more.
const HEARING: Duration = Duration::from_secs(5);

/// Drives one task.
pub(crate) struct Driver {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) record: Arc<Record>,
    pub(crate) payloads: Payloads,
    /// Whether a manager has said what this node is to run.
    pub(crate) heard: watch::Receiver<bool>,
    /// What the managers want; wakes when they want more.
    pub(crate) wanted: watch::Receiver<Arc<Task>>,
    /// What was observed, for all who watch.
    pub(crate) status: watch::Sender<TaskStatus>,
}

impl Driver {
    /// Drives the task until the managers forget it.
    pub(crate) async fn run(mut self) {
        loop {
            let task = self.wanted.borrow_and_update().clone();
            let status = self.status.borrow().clone();
            match plan_next(&status, Wanted::State(task.desired_state), shoal_ambient::now()) {
                Next::Report(status) => self.observe(&task, status).await,
                Next::Idle => {
                    if self.wanted.changed().await.is_err() {
                        return;
                    }
                }
                Next::Do(action) => self.act(action, &task, &status).await,
            }
        }
    }

    async fn act(&mut self, action: Action, task: &Task, status: &TaskStatus) {
        if matches!(action, Action::Start | Action::Wait) && !self.may_go_on(task).await {
            return;
        }
        let (outcome, facts): Outcome = tokio::select! {
            outcome = self.executor.act(action, task, &self.payloads) => outcome,
            _ = self.wanted.changed() => (Err(Failure::Cancelled), Facts::default()),
        };
        if let Err(Failure::Temporary(reason)) = &outcome {
            tracing::warn!("task {}: {reason}; trying again", task.id);
        }
        let now = shoal_ambient::now();
        match finish(status, action, outcome, facts, now) {
            Finished::Report(status) => self.observe(task, status).await,
            Finished::Retry(at) => self.rest(Duration::try_from(at.duration_since(now)).unwrap_or_default()).await,
            Finished::Forget => {}
        }
    }

    /// After the machine was off, others may have taken over what it ran: a task that ended with it is started again when a
    /// manager still wants it, or when none can be heard. Not where something else is wanted meanwhile.
    async fn may_go_on(&mut self, task: &Task) -> bool {
        if *self.heard.borrow() || !self.executor.was_cut_short(task).await {
            return true;
        }
        tokio::select! {
            _ = self.heard.wait_for(|heard| *heard) => {}
            () = tokio::time::sleep(HEARING) => return true,
        }
        // What was heard is in force by now.
        !self.wanted.has_changed().unwrap_or(true)
    }

    /// Waits, unless something else is wanted meanwhile.
    async fn rest(&mut self, span: Duration) {
        tokio::select! {
            () = tokio::time::sleep(span) => {}
            _ = self.wanted.changed() => {}
        }
    }

    /// An end is kept on disk before anybody hears of it: after a restart, the task must not run again. All else can be
    /// read off the container.
    async fn observe(&self, task: &Task, status: TaskStatus) {
        if status.state.is_terminal() {
            let ended = Arc::new(Task { status: status.clone(), ..task.clone() });
            if let Err(error) = self.record.clone().write(false, vec![ended], Vec::new()).await {
                tracing::warn!("the end of task {} is not on disk: {error}", task.id);
            }
        }
        self.status.send_replace(status.clone());
        self.reporter.report(task.id, status);
    }
}

/// Removes what is left of a task, however often it takes.
pub(crate) async fn remove(executor: Arc<dyn Executor>, task: TaskId) {
    while let Err(error) = executor.remove(task).await {
        tracing::warn!("cannot remove the container of task {task}: {error}; trying again");
        tokio::time::sleep(Duration::from_nanos(RETRY.unsigned_abs())).await;
    }
}
