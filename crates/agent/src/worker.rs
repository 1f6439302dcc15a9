//! All tasks of this node: the assignment as it was last heard, one [`crate::task`] each, and their statuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use shoal_types::object::TaskStatus;
use shoal_types::{Task, TaskId, TaskState};
use shoal_wire::assignments::{Assigned, Assignments};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::executor::Executor;
use crate::payloads::Payloads;
use crate::record::{Record, RecordError};
use crate::reporter::Reporter;
use crate::task;

/// All tasks of this node.
pub struct Worker {
    executor: Arc<dyn Executor>,
    record: Arc<Record>,
    reporter: Arc<Reporter>,
    /// Never in the record.
    payloads: Payloads,
    tasks: Mutex<Tasks>,
    changes: watch::Sender<()>,
    /// Whether a manager has said what this node is to run.
    heard: watch::Sender<bool>,
}

#[derive(Default)]
struct Tasks {
    assigned: BTreeMap<TaskId, Entry>,
    running: JoinSet<()>,
}

/// A task and the two ends of what drives it.
struct Entry {
    wanted: watch::Sender<Arc<Task>>,
    status: watch::Receiver<TaskStatus>,
    driver: tokio::task::AbortHandle,
}

impl Worker {
    /// Resumes what the record says, before any manager is asked.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn resume(executor: Arc<dyn Executor>, record: Record) -> Result<Arc<Self>, RecordError> {
        let tasks = record.tasks()?;
        let worker = Arc::new(Self {
            executor,
            record: Arc::new(record),
            reporter: Arc::default(),
            payloads: Payloads::default(),
            tasks: Mutex::default(),
            changes: watch::channel(()).0,
            heard: watch::channel(false).0,
        });
        let mut held = worker.lock();
        for task in tasks {
            worker.drive(&mut held, Arc::new(task));
        }
        drop(held);
        Ok(worker)
    }

    /// What runs the containers.
    pub fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    /// Where statuses wait for a manager.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// The tasks as they are assigned now.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.lock().assigned.values().map(|e| e.wanted.borrow().clone()).collect()
    }

    /// Wakes when tasks come or go.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits until the task has been started, or never will be.
    pub async fn started(&self, id: TaskId) {
        let Some(mut status) = self.lock().assigned.get(&id).map(|e| e.status.clone()) else { return };
        if status.wait_for(|s| s.state >= TaskState::Running).await.is_err() {
            tracing::debug!("task {id} is gone before it ran");
        }
    }

    /// Lets go of all tasks. Their containers go on.
    pub async fn release(&self) {
        let mut running = {
            let mut held = self.lock();
            held.assigned.clear();
            std::mem::take(&mut held.running)
        };
        running.shutdown().await;
    }

    /// Removes all tasks and their containers, and forgets them.
    pub async fn remove_all(&self) {
        let known: Vec<TaskId> = self.lock().assigned.keys().copied().collect();
        self.release().await;
        let all: BTreeSet<TaskId> = known.into_iter().chain(self.executor.present().await).collect();
        let removals: JoinSet<()> = all.into_iter().map(|id| task::remove(self.executor.clone(), id)).collect();
        removals.join_all().await;
        if let Err(error) = self.record.clone().write(true, Vec::new(), Vec::new()).await {
            tracing::warn!("{error}");
        }
    }

    /// Has the statuses of all tasks sent: a new manager knows none.
    pub fn report_all(&self) {
        for (id, entry) in &self.lock().assigned {
            let status = entry.status.borrow().clone();
            if status.state >= TaskState::Accepted {
                self.reporter.report(*id, status);
            }
        }
    }

    /// Takes over a step of the assignment: durable first, then in force.
    ///
    /// # Errors
    /// The record cannot be written; nothing has changed.
    pub async fn assign(self: &Arc<Self>, step: Assignments) -> Result<(), RecordError> {
        let (mut put, mut remove, mut contents) = (Vec::new(), BTreeSet::new(), Vec::new());
        for change in step.changes {
            match change {
                Assigned::Task(task) => put.push(Arc::new(self.seen_here(*task))),
                Assigned::RemoveTask(id) => {
                    remove.insert(id);
                }
                content => contents.push(content),
            }
        }
        if step.complete {
            let kept: BTreeSet<TaskId> = put.iter().map(|t| t.id).collect();
            let present = self.executor.present().await;
            remove.extend(self.lock().assigned.keys().copied().chain(present).filter(|id| !kept.contains(id)));
        }
        self.record.clone().write(step.complete, put.clone(), remove.iter().copied().collect()).await?;
        self.payloads.apply(step.complete, contents);
        self.enforce(put, remove);
        if step.complete {
            self.heard.send_replace(true);
        }
        self.changes.send_replace(());
        Ok(())
    }

    /// `task` with what this node knows of it: it may be ahead of the managers.
    fn seen_here(&self, mut task: Task) -> Task {
        if let Some(entry) = self.lock().assigned.get(&task.id) {
            let status = entry.status.borrow();
            if status.state > task.status.state {
                task.status = status.clone();
            }
        }
        task
    }

    fn enforce(self: &Arc<Self>, put: Vec<Arc<Task>>, remove: BTreeSet<TaskId>) {
        let mut held = self.lock();
        while held.running.try_join_next().is_some() {}
        for task in put {
            match held.assigned.get(&task.id) {
                Some(entry) => want(&entry.wanted, task),
                None => self.drive(&mut held, task),
            }
        }
        for id in remove {
            if let Some(entry) = held.assigned.remove(&id) {
                entry.driver.abort();
            }
            self.reporter.forget(id);
            held.running.spawn(task::remove(self.executor.clone(), id));
        }
    }

    fn drive(&self, held: &mut Tasks, task: Arc<Task>) {
        let id = task.id;
        let (wanted, receiver) = watch::channel(task.clone());
        let (observed, status) = watch::channel(task.status.clone());
        let driver = task::Driver {
            executor: self.executor.clone(),
            reporter: self.reporter.clone(),
            record: self.record.clone(),
            payloads: self.payloads.clone(),
            heard: self.heard.subscribe(),
            wanted: receiver,
            status: observed,
        };
        let driver = held.running.spawn(driver.run());
        held.assigned.insert(id, Entry { wanted, status, driver });
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().expect("nothing panics while it is held")
    }
}

/// Desired states only ever grow: a message that comes late must not revive a task.
fn want(wanted: &watch::Sender<Arc<Task>>, task: Arc<Task>) {
    wanted.send_if_modified(|current| {
        let news = task.desired_state > current.desired_state;
        if task.desired_state >= current.desired_state {
            *current = task;
        }
        news
    });
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
