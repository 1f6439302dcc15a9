//! What nodes report of their tasks. Reports of all nodes that wait are written together (see `raft`'s writer).

use shoal_raft::Tx;
use shoal_types::object::TaskStatus;
use shoal_types::{Change, NodeId, Task, TaskId, TaskPatch, View};
use tokio::time::Instant;
use tonic::Status;

use super::{Dispatcher, status};

impl Dispatcher {
    /// Writes what `node` says of its tasks. Tasks that are gone are passed over.
    pub(super) async fn report(
        &self,
        node: NodeId,
        session_id: &str,
        reports: Vec<(TaskId, TaskStatus)>,
    ) -> Result<(), Status> {
        self.sessions().get(node, session_id)?.pulse.hear(Instant::now());
        let write = move |tx: &mut Tx| {
            for (id, status) in reports {
                let Some(task) = tx.task(id) else { continue };
                if task.node_id != Some(node) {
                    return Err(Status::permission_denied("cannot update a task not assigned this node"));
                }
                if let Some(change) = observe(task, status) {
                    tx.change(change).map_err(|e| Status::internal(e.to_string()))?;
                }
            }
            Ok(())
        };
        self.raft.write(write).await.map_err(|e| status(&self.raft, e))
    }
}

/// What a report changes; nothing where it is old or says what is known.
fn observe(task: &Task, mut status: TaskStatus) -> Option<Change> {
    status.applied_at = task.status.applied_at;
    if status.state < task.status.state || status == task.status {
        return None;
    }
    status.applied_at = Some(shoal_ambient::now());
    Some(Change::Patch(TaskPatch { status: Some(status), ..TaskPatch::of(task.id) }))
}
