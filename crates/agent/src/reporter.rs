//! Statuses on their way to the managers: only the newest of each task is kept, and kept until a manager has it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use shoal_types::TaskId;
use shoal_types::object::TaskStatus;
use tokio::sync::Notify;

/// Collects statuses; a session takes them.
#[derive(Debug, Default)]
pub struct Reporter {
    pending: Mutex<BTreeMap<TaskId, TaskStatus>>,
    news: Notify,
}

impl Reporter {
    /// Has `status` sent, unless a later state of the task waits already.
    pub fn report(&self, task: TaskId, status: TaskStatus) {
        keep_newest(&mut self.lock(), task, status);
        self.news.notify_one();
    }

    /// All that waits, as soon as anything does.
    pub async fn take(&self) -> Vec<(TaskId, TaskStatus)> {
        loop {
            let pending = std::mem::take(&mut *self.lock());
            if !pending.is_empty() {
                return pending.into_iter().collect();
            }
            self.news.notified().await;
        }
    }

    /// Puts back what could not be sent.
    pub fn put_back(&self, statuses: Vec<(TaskId, TaskStatus)>) {
        let mut pending = self.lock();
        for (task, status) in statuses {
            keep_newest(&mut pending, task, status);
        }
        self.news.notify_one();
    }

    /// Forgets a task that is gone.
    pub fn forget(&self, task: TaskId) {
        self.lock().remove(&task);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, TaskStatus>> {
        self.pending.lock().expect("nothing panics while it is held")
    }
}

fn keep_newest(pending: &mut BTreeMap<TaskId, TaskStatus>, task: TaskId, status: TaskStatus) {
    match pending.get(&task) {
        Some(waiting) if waiting.state > status.state => {}
        Some(waiting) if waiting.state == status.state && waiting.timestamp > status.timestamp => {}
        _ => {
            pending.insert(task, status);
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::{IdSource, TaskState};

    use super::*;

    struct Fixed;
    impl IdSource for Fixed {
        fn random(&mut self) -> [u8; 17] {
            [7; 17]
        }
    }

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[tokio::test]
    async fn only_the_latest_state_is_sent_and_one_put_back_never_hides_a_later_one() {
        let (reporter, task) = (Reporter::default(), TaskId::new(&mut Fixed));
        reporter.report(task, status(TaskState::Preparing));
        reporter.report(task, status(TaskState::Running));
        let taken = reporter.take().await;
        assert_eq!(taken, [(task, status(TaskState::Running))]);
        reporter.report(task, status(TaskState::Failed));
        reporter.put_back(taken);
        assert_eq!(reporter.take().await, [(task, status(TaskState::Failed))]);
    }
}
