//! An agent among managers made of answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, pending};
use shoal_lifecycle::{Action, Facts, Failure};
use shoal_types::spec::NodeRole;
use shoal_types::{Meta, Node, NodeId, Task, TaskId};
use shoal_wire::logs::{LogLine, LogOptions};
use shoal_wire::proto::dispatcher_server::{Dispatcher, DispatcherServer};
use shoal_wire::proto::log_broker_server::{LogBroker, LogBrokerServer};
use shoal_wire::session::Manager;
use tokio::sync::mpsc;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::executor::{Executor, Outcome};
use crate::payloads::Payloads;
use crate::record::Record;

/// What a manager does with those that come.
#[derive(Clone)]
enum Mood {
    /// Leads, and answers so many heartbeats.
    Leads(usize),
    /// Names another one, or nobody.
    Follows(Option<String>),
}

#[derive(Clone)]
struct FakeManager {
    mood: Arc<Mutex<Mood>>,
    addr: String,
    /// Who was greeted, and with which session.
    greeted: mpsc::UnboundedSender<(String, String)>,
}

fn node() -> Node {
    Node {
        id: "a".repeat(25).parse::<NodeId>().unwrap(),
        meta: Meta::default(),
        spec: Default::default(),
        role: NodeRole::Worker,
        description: None,
        status: Default::default(),
        manager_addr: None,
        wanted_issuer: None,
    }
}

impl FakeManager {
    async fn start(mood: Mood, greeted: mpsc::UnboundedSender<(String, String)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let this = Self { mood: Arc::new(Mutex::new(mood)), addr, greeted };
        let server = Server::builder()
            .add_service(DispatcherServer::new(this.clone()))
            .add_service(LogBrokerServer::new(this.clone()));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        this
    }

    fn mood(&self) -> Mood {
        self.mood.lock().unwrap().clone()
    }
}

type Messages<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Dispatcher for FakeManager {
    type SessionStream = Messages<proto::SessionMessage>;
    type AssignmentsStream = Messages<proto::AssignmentsMessage>;

    async fn session(&self, request: Request<proto::SessionRequest>) -> Result<Response<Self::SessionStream>, Status> {
        let had = request.into_inner().session_id;
        self.greeted.send((self.addr.clone(), had.clone())).unwrap();
        if let Mood::Follows(leader) = self.mood() {
            return Err(shoal_wire::dial::not_leader(leader.as_deref()));
        }
        let welcome = Welcome {
            session_id: if had.is_empty() { "first".into() } else { had },
            node: node(),
            managers: Vec::new(),
            heartbeat_period: Duration::from_millis(50),
            root_ca: String::new(),
        };
        let first = futures::stream::iter([Ok(welcome.try_into().unwrap())]);
        Ok(Response::new(first.chain(pending()).boxed()))
    }

    async fn heartbeat(
        &self,
        _: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let answers = match &mut *self.mood.lock().unwrap() {
            Mood::Leads(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        if !answers {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(proto::HeartbeatResponse { period: 50_000_000 }))
    }

    async fn assignments(
        &self,
        _: Request<proto::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        self.greeted.send((self.addr.clone(), "assignments".into())).unwrap();
        let gap = proto::AssignmentsMessage { kind: 1, applies_to: 7, results_in: 8, ..Default::default() };
        Ok(Response::new(futures::stream::iter([Ok(gap)]).chain(pending()).boxed()))
    }

    async fn update_task_status(
        &self,
        _: Request<proto::UpdateTaskStatusRequest>,
    ) -> Result<Response<proto::UpdateTaskStatusResponse>, Status> {
        Ok(Response::new(proto::UpdateTaskStatusResponse {}))
    }
}

#[tonic::async_trait]
impl LogBroker for FakeManager {
    type ListenSubscriptionsStream = Messages<proto::Subscription>;
    type SubscribeLogsStream = Messages<proto::LogBatch>;

    async fn listen_subscriptions(
        &self,
        _: Request<proto::ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        Ok(Response::new(pending().boxed()))
    }

    async fn publish_logs(
        &self,
        _: Request<Streaming<proto::PublishLogsMessage>>,
    ) -> Result<Response<proto::PublishLogsResponse>, Status> {
        Err(Status::unimplemented("nobody asks for lines"))
    }

    async fn subscribe_logs(
        &self,
        _: Request<proto::SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeLogsStream>, Status> {
        Err(Status::unimplemented("nobody asks for lines"))
    }
}

/// Takes the managers in turn.
struct InTurn {
    addrs: Vec<String>,
    next: AtomicUsize,
    told: AtomicUsize,
}

#[tonic::async_trait]
impl Uplink for InTurn {
    async fn connect(&self) -> Result<Remote, UplinkError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.addrs.len();
        self.connect_to(&self.addrs[turn]).await
    }

    async fn connect_to(&self, addr: &str) -> Result<Remote, UplinkError> {
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy();
        Ok(Remote { addr: addr.to_owned(), channel })
    }

    fn observe(&self, _: &Remote, _: bool) {}

    fn learn(&self, _: &[Manager]) {}

    fn trust(&self, _: &str) {}

    fn told(&self, node: &Node) {
        assert_eq!(node.role, NodeRole::Worker);
        self.told.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has no tasks.
struct Nothing;

#[async_trait]
impl Executor for Nothing {
    async fn describe(&self) -> NodeDescription {
        NodeDescription::default()
    }

    async fn act(&self, _: Action, _: &Task, _: &Payloads) -> Outcome {
        (Ok(()), Facts::default())
    }

    async fn remove(&self, _: TaskId) -> Result<(), Failure> {
        Ok(())
    }

    async fn present(&self) -> Vec<TaskId> {
        Vec::new()
    }

    async fn logs(&self, _: Arc<Task>, _: LogOptions) -> Result<BoxStream<'static, LogLine>, Failure> {
        Ok(futures::stream::empty().boxed())
    }
}

/// An agent that runs until this is dropped.
struct Running {
    task: tokio::task::JoinHandle<()>,
    uplink: Arc<InTurn>,
    _dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn agent(managers: &[&FakeManager]) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::resume(Arc::new(Nothing), Record::open(&dir.path().join("tasks.redb")).unwrap()).unwrap();
    let addrs = managers.iter().map(|m| m.addr.clone()).collect();
    let uplink = Arc::new(InTurn { addrs, next: AtomicUsize::new(0), told: AtomicUsize::new(0) });
    Running { task: tokio::spawn(run(uplink.clone(), worker)), uplink, _dir: dir }
}

type Greeted = mpsc::UnboundedReceiver<(String, String)>;

/// The next one who was greeted, and with which session.
async fn greeted(from: &mut Greeted) -> (String, String) {
    loop {
        let next = timeout(Duration::from_secs(10), from.recv()).await.unwrap().unwrap();
        if next.1 != "assignments" {
            return next;
        }
    }
}

#[tokio::test]
async fn a_leader_that_is_named_is_turned_to_at_once() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let leader = FakeManager::start(Mood::Leads(usize::MAX), tx.clone()).await;
    let other = FakeManager::start(Mood::Follows(Some(leader.addr.clone())), tx).await;
    let agent = agent(&[&other]);
    assert_eq!(greeted(&mut rx).await.0, other.addr);
    assert_eq!(greeted(&mut rx).await.0, leader.addr);
    while agent.uplink.told.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_left_soon_and_the_next_one_is_asked_to_go_on_with_the_session() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let first = FakeManager::start(Mood::Leads(3), tx.clone()).await;
    let second = FakeManager::start(Mood::Follows(Some(first.addr.clone())), tx).await;
    let _agent = agent(&[&first, &second]);
    assert_eq!(greeted(&mut rx).await, (first.addr.clone(), String::new()));
    assert_eq!(greeted(&mut rx).await, (second.addr.clone(), "first".to_owned()));
    // The second does not know yet that the first is gone: it is not believed.
    *second.mood.lock().unwrap() = Mood::Leads(usize::MAX);
    let next = greeted(&mut rx).await;
    assert_eq!(next.1, "first");
}

#[tokio::test]
async fn managers_without_a_leader_are_asked_again_soon() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let one = FakeManager::start(Mood::Follows(None), tx).await;
    let _agent = agent(&[&one]);
    for _ in 0..8 {
        greeted(&mut rx).await;
    }
}

#[tokio::test]
async fn a_gap_in_the_assignments_opens_their_stream_anew_within_the_session() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let leader = FakeManager::start(Mood::Leads(usize::MAX), tx).await;
    let _agent = agent(&[&leader]);
    assert_eq!(rx.recv().await.unwrap().1, "");
    for _ in 0..3 {
        assert_eq!(rx.recv().await.unwrap().1, "assignments");
    }
}
