//! The log broker as agents call it.

use std::sync::Arc;

use shoal_types::{ClusterId, NodeId};
use shoal_wire::logs::LogLine;
use shoal_wire::proto::log_broker_server::LogBroker as Calls;
use shoal_wire::proto::{ListenSubscriptionsRequest, PublishLogsMessage, PublishLogsResponse, Subscription};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Broker;
use crate::leader::Active;
use crate::peer::Peer;

/// Messages that wait for a slow agent; more wait in the broker.
const BUFFER: usize = 8;

/// The broker's calls.
#[derive(Debug, Clone)]
pub struct BrokerService {
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
        let term = self.active.now().ok_or_else(|| Status::aborted("log broker is stopped"))?;
        Ok((peer.subject.node, term.broker.clone()))
    }
}

#[tonic::async_trait]
impl Calls for BrokerService {
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
