//! How a session begins and what its stream says.

use std::sync::Arc;

use shoal_raft::Tx;
use shoal_types::object::NodeState;
use shoal_types::{Change, NodeId, Object, View};
use shoal_wire::proto;
use shoal_wire::session::{Hello, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::liveness::Pulse;
use super::sessions::Session;
use super::{Dispatcher, status, stopped};
use crate::peer::Peer;

/// Messages that wait for a slow agent.
const BUFFER: usize = 4;

/// The receiving end of a stream to an agent.
pub type Stream<T> = mpsc::Receiver<Result<T, Status>>;

/// A session as its stream needs it.
struct Registered {
    id: String,
    end: CancellationToken,
    news: watch::Receiver<()>,
}

impl Dispatcher {
    /// Takes a node into session. The stream's first message comes at once.
    pub(super) async fn register(
        self: &Arc<Self>,
        peer: Peer,
        hello: Hello,
    ) -> Result<Stream<proto::SessionMessage>, Status> {
        let node = peer.subject.node;
        let known = self.sessions().get(node, &hello.session_id).is_ok();
        if !known {
            self.sessions().count_registration(node, Instant::now())?;
        }
        let period = self.draw_period();
        // Before the write: see `set_states`. If the write fails and the node does not come again, its silence ends this.
        let registered = self.begin_session(node, &hello.session_id, period);
        if let Err(refused) = self.write_node(&peer, &hello).await {
            if refused.code() == tonic::Code::NotFound {
                self.sessions().end(node);
            }
            return Err(refused);
        }
        self.came.send_replace(());
        let (tx, rx) = mpsc::channel(BUFFER);
        tokio::spawn(self.clone().keep_informed(node, registered, period, tx));
        Ok(rx)
    }

    /// What the node says about itself, and that it is there.
    async fn write_node(&self, peer: &Peer, hello: &Hello) -> Result<(), Status> {
        let (id, addr) = (peer.subject.node, peer.addr.clone());
        let description = hello.description.clone();
        let write = move |tx: &mut Tx| {
            let before = tx.node(id).ok_or_else(|| Status::not_found("node not found"))?;
            let mut node = before.as_ref().clone();
            if node.description.as_deref() != Some(&description) {
                node.description = Some(Arc::new(description));
            }
            node.status.state = NodeState::Ready;
            node.status.message.clear();
            if !addr.is_empty() {
                node.status.addr = addr;
            }
            if node == **before {
                return Ok(());
            }
            tx.change(Change::Put(Object::Node(Arc::new(node)))).map_err(|e| Status::internal(e.to_string()))
        };
        self.raft.write(write).await.map_err(|e| status(&self.raft, e))
    }

    /// Goes on with the session `id` if it is still there, else begins a new one.
    fn begin_session(&self, node: NodeId, id: &str, period: std::time::Duration) -> Registered {
        let now = Instant::now();
        let mut sessions = self.sessions();
        if let Ok(session) = sessions.get(node, id) {
            session.pulse.hear(now);
            return Registered { id: id.to_owned(), end: session.end.clone(), news: session.news.subscribe() };
        }
        let (end, (news, told)) = (self.stop.child_token(), watch::channel(()));
        let id = crate::ids::fresh();
        sessions.begin(node, Session { id: id.clone(), pulse: Pulse::new(now, period), end: end.clone(), news });
        Registered { id, end, news: told }
    }

    /// Tells a node who it is and who the managers are, whenever that changes, until its session ends.
    async fn keep_informed(
        self: Arc<Self>,
        node: NodeId,
        mut session: Registered,
        period: std::time::Duration,
        tx: mpsc::Sender<Result<proto::SessionMessage, Status>>,
    ) {
        let mut told: Option<Welcome> = None;
        loop {
            let welcome = self.welcome(node, &session.id, period);
            let Some(welcome) = welcome else { break };
            if told.as_ref() != Some(&welcome) {
                told = Some(welcome.clone());
                let message = proto::SessionMessage::try_from(welcome).map_err(Status::from);
                if tx.send(message).await.is_err() {
                    return; // the agent is gone; its heartbeats decide
                }
            }
            tokio::select! {
                changed = session.news.changed() => if changed.is_err() { break },
                () = session.end.cancelled() => break,
                () = tx.closed() => return,
            }
        }
        let reason = if self.stop.is_cancelled() { stopped() } else { Status::aborted("node must disconnect") };
        drop(tx.send(Err(reason)).await);
    }
}
