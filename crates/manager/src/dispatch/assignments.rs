//! The stream of what a node is to run.

use std::sync::Arc;

use shoal_types::{NodeId, Task};
use shoal_wire::assignments::{Assigned, Assignments, Sender};
use shoal_wire::proto::AssignmentsMessage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::registration::Stream;
use super::{Dispatcher, stopped};

type Tx = mpsc::Sender<Result<AssignmentsMessage, Status>>;

/// Messages that wait for a slow agent. Changes beyond them wait as one, in the outbox.
const BUFFER: usize = 2;

impl Dispatcher {
    /// Everything first, then each change, until the session ends.
    pub(super) fn assign(
        self: &Arc<Self>,
        node: NodeId,
        session_id: &str,
    ) -> Result<Stream<AssignmentsMessage>, Status> {
        let end = self.sessions().get(node, session_id)?.end.clone();
        let (tx, rx) = mpsc::channel(BUFFER);
        tokio::spawn(self.clone().stream_assignments(node, end, tx));
        Ok(rx)
    }

    async fn stream_assignments(self: Arc<Self>, node: NodeId, end: CancellationToken, tx: Tx) {
        let (tasks, outbox) = self.router().open(node);
        let work = async {
            let mut sender = Sender::default();
            let changes = tasks.iter().map(|t| Assigned::Task(Box::new(Task::clone(t)))).collect();
            drop(tasks);
            send(&mut sender, Assignments { complete: true, changes }, &tx).await?;
            while let Some(pending) = outbox.take().await {
                let changes = pending.into_iter().map(|(id, task)| match task {
                    Some(task) => Assigned::Task(Box::new(Task::clone(&task))),
                    None => Assigned::RemoveTask(id),
                });
                send(&mut sender, Assignments { complete: false, changes: changes.collect() }, &tx).await?;
            }
            Err(Status::aborted("the stream of assignments begins anew"))
        };
        let result: Result<(), Status> = tokio::select! {
            result = work => result,
            () = end.cancelled() => Err(stopped()),
            () = tx.closed() => Ok(()),
        };
        self.router().close(node, &outbox);
        if let Err(status) = result {
            drop(tx.send(Err(status)).await);
        }
    }
}

async fn send(sender: &mut Sender, step: Assignments, tx: &Tx) -> Result<(), Status> {
    for message in sender.messages(&step)? {
        tx.send(Ok(message)).await.map_err(|_| stopped())?;
    }
    Ok(())
}
