//! The log broker as agents call it, and other managers on behalf of their clients.

use std::sync::Arc;

use shoal_raft::Raft;
use shoal_types::{ClusterId, NodeId};
use shoal_wire::logs::{self, LogLine};
use shoal_wire::proto::log_broker_server::LogBroker as Calls;
use shoal_wire::proto::{
    ListenSubscriptionsRequest, LogBatch, PublishLogsMessage, PublishLogsResponse, SubscribeLogsRequest, Subscription,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Broker, End, LogEnd, Subscribed};
use crate::lead;
use crate::leader::Active;
use crate::peer::Peer;

/// Messages that wait for a slow agent; more wait in the broker.
const BUFFER: usize = 8;

/// The broker's calls.
#[derive(Debug, Clone)]
pub struct BrokerService {
    /// To say who leads, if it is not us.
    pub raft: Raft,
    /// Who leads, if it is us.
    pub active: Active,
    /// Whose certificates are good.
    pub cluster: ClusterId,
}

/// Ends a listener with its stream.
struct Listening {
    broker: Arc<Broker>,
    node: NodeId,
    number: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.broker.unlisten(self.node, self.number);
    }
}

impl BrokerService {
    fn enter<T>(&self, request: &Request<T>) -> Result<(NodeId, Arc<Broker>), Status> {
        let peer = Peer::of(request, self.cluster)?;
        let term = self.active.now().ok_or_else(|| lead::elsewhere(&self.raft))?;
        Ok((peer.subject.node, term.broker.clone()))
    }
}

#[tonic::async_trait]
impl Calls for BrokerService {
    type SubscribeLogsStream = ReceiverStream<Result<LogBatch, Status>>;

    async fn subscribe_logs(
        &self,
        request: Request<SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeLogsStream>, Status> {
        Peer::manager(&request, self.cluster)?;
        let (selector, options) = request.into_inner().try_into()?;
        let term = self.active.now().ok_or_else(|| lead::elsewhere(&self.raft))?;
        let subscribed = term.broker.subscribe(&self.raft.snapshot(), selector, options);
        let (tx, rx) = mpsc::channel(BUFFER);
        tokio::spawn(send(subscribed, tx, self.raft.clone()));
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    type ListenSubscriptionsStream = ReceiverStream<Result<Subscription, Status>>;

    async fn listen_subscriptions(
        &self,
        request: Request<ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let (node, broker) = self.enter(&request)?;
        let mut ended = self.active.ended();
        let (number, mut messages) = broker.listen(node);
        let listening = Listening { broker, node, number };
        let (tx, rx) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            let _listening = listening;
            loop {
                tokio::select! {
                    message = messages.recv() => {
                        let Some(message) = message else { return };
                        if tx.send(Ok(message.into())).await.is_err() {
                            return;
                        }
                    }
                    () = tx.closed() => return,
                    () = ended.wait() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<PublishLogsMessage>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let (node, broker) = self.enter(&request)?;
        let mut messages = request.into_inner();
        let mut open = None;
        while let Some(message) = messages.message().await? {
            let id = open.get_or_insert_with(|| message.subscription_id.clone()).clone();
            if message.subscription_id != id {
                return Err(Status::invalid_argument("one stream publishes for one subscription"));
            }
            let Some(sink) = broker.sink(&id, node) else {
                return Err(Status::not_found("the subscription is over"));
            };
            for line in message.lines {
                let line = LogLine::try_from(line)?;
                if sink.send(Ok(line)).await.is_err() {
                    return Err(Status::not_found("the subscription is over"));
                }
            }
            if message.close {
                broker.done(&id, node, &message.error);
                return Ok(Response::new(PublishLogsResponse {}));
            }
        }
        if let Some(id) = open {
            broker.done(&id, node, "it ended its stream early");
        }
        Ok(Response::new(PublishLogsResponse {}))
    }
}

/// Brings the lines of a subscription to the manager that asked for it.
async fn send(mut subscribed: Subscribed, tx: mpsc::Sender<Result<LogBatch, Status>>, raft: Raft) {
    loop {
        let mut items = Vec::new();
        tokio::select! {
            _ = subscribed.lines.recv_many(&mut items, logs::LINES) => {}
            () = tx.closed() => return,
        }
        let is_over = items.is_empty();
        let end = items.iter().find_map(|item| item.as_ref().err().cloned());
        let lines = items.into_iter().filter_map(Result::ok).map(Into::into).collect();
        for lines in logs::batches(lines) {
            if tx.send(Ok(LogBatch { lines, incomplete: String::new() })).await.is_err() {
                return;
            }
        }
        let last = match end {
            Some(End::Incomplete(LogEnd(incomplete))) => Some(Ok(LogBatch { lines: Vec::new(), incomplete })),
            Some(End::Complete) => None,
            None if is_over => Some(Err(lead::elsewhere(&raft))),
            None => continue,
        };
        if let Some(last) = last {
            // The manager that asked may have gone.
            drop(tx.send(last).await);
        }
        return;
    }
}
