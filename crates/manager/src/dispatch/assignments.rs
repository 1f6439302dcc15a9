//! The stream of what a node is to run.

use std::sync::Arc;

use shoal_types::NodeId;
use shoal_wire::assignments::{Assigned, Assignments, Sender};
use shoal_wire::proto::AssignmentsMessage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::registration::Stream;
use super::router::Outbox;
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
        let mut sender = Sender::default();
        let end = loop {
            let (all, outbox) = self.router().open(node);
            let work = self.send_all(&mut sender, all, &outbox, &tx);
            let result = tokio::select! {
                result = work => result,
                () = end.cancelled() => Err(stopped()),
                () = tx.closed() => return self.router().close(node, &outbox),
            };
            self.router().close(node, &outbox);
            if let Err(status) = result {
                break status;
            }
            // Either the store started over, or the node has opened another stream.
            if self.router().is_open(node) {
                break Status::aborted("the stream of assignments begins anew");
            }
        };
        drop(tx.send(Err(end)).await);
    }

    /// Sends everything, then what changes, until the outbox is replaced.
    async fn send_all(&self, sender: &mut Sender, all: Vec<Assigned>, outbox: &Outbox, tx: &Tx) -> Result<(), Status> {
        send(sender, Assignments { complete: true, changes: all }, tx).await?;
        while let Some(changes) = outbox.take().await {
            send(sender, Assignments { complete: false, changes }, tx).await?;
        }
        Ok(())
    }
}

async fn send(sender: &mut Sender, step: Assignments, tx: &Tx) -> Result<(), Status> {
    for message in sender.messages(&step)? {
        tx.send(Ok(message)).await.map_err(|_| stopped())?;
    }
    Ok(())
}
