//! Stands for a part of the leader that has a bug: it writes what no correct part would.

use std::sync::Arc;
use std::time::Duration;

use shoal_raft::Tx;
use shoal_store::Conflict;
use shoal_types::{Change, Object, Task, TaskState, View};
use tokio::sync::watch;

use crate::plant::Plant;
use crate::process::Directory;
use crate::world::World;

/// Does its work, if such a bug is planted.
pub async fn run(world: World, directory: Directory, stop: watch::Receiver<bool>) {
    if !world.has(Plant::LateReport) && !world.has(Plant::DoubleSlot) {
        return;
    }
    while !*stop.borrow() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let leader = directory.doors().into_iter().find(|d| d.raft.leadership().borrow().is_some());
        let Some(door) = leader else { continue };
        let (raft, is_late) = (door.raft.clone(), world.has(Plant::LateReport));
        let write = async move { raft.write(move |tx: &mut Tx| spoil(tx, is_late)).await };
        drop(door.process.run(write).await);
    }
}

fn spoil(tx: &mut Tx, is_late: bool) -> Result<(), Conflict> {
    let spoiled = if is_late {
        let ended = tx.tasks().find(|t| t.status.state.is_terminal()).cloned();
        ended.map(|task| {
            let mut task = Task::clone(&task);
            task.status.state = TaskState::Running;
            task
        })
    } else {
        let filled = tx.tasks().find(|t| t.desired_state == TaskState::Running && t.slot > 0).cloned();
        filled.map(|task| Task { id: shoal_types::TaskId::new(&mut shoal_manager::RandomIds), ..Task::clone(&task) })
    };
    spoiled.map_or(Ok(()), |task| tx.change(Change::Put(Object::Task(Arc::new(task)))))
}
