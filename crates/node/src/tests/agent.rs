//! An agent whose containers run by being said to run.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_types::object::{NodeDescription, Platform, TaskStatus, TlsInfo};
use shoal_types::{Task, TaskId, TaskState, Timestamp};
use shoal_wire::assignments::{Assigned, Receiver};
use shoal_wire::dial::leader_in;
use shoal_wire::logs::{LogLine, Subscription};
use shoal_wire::proto;
use shoal_wire::proto::dispatcher_client::DispatcherClient;
use shoal_wire::proto::log_broker_client::LogBrokerClient;
use shoal_wire::session::{Hello, Welcome};
use shoal_wire::{Uplink, status};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::launch::{Launch, LaunchError, Launcher, LocalAgent};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Tasks = watch::Sender<BTreeMap<TaskId, Task>>;

#[derive(Default)]
pub struct FakeLauncher {
    fail: AtomicBool,
    ended: Arc<Mutex<Vec<&'static str>>>,
}

struct FakeAgent {
    work: JoinHandle<()>,
    ended: Arc<Mutex<Vec<&'static str>>>,
}

impl FakeLauncher {
    /// How its agents ended.
    pub fn ended(&self) -> Vec<&'static str> {
        self.ended.lock().unwrap().clone()
    }

    /// The next launch fails.
    pub fn fail_next(&self) {
        self.fail.store(true, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Launcher for FakeLauncher {
    async fn launch(&self, launch: Launch<'_>) -> Result<Box<dyn LocalAgent>, LaunchError> {
        if self.fail.swap(false, Ordering::SeqCst) {
            return Err("no agent today".into());
        }
        std::fs::create_dir_all(launch.state_dir).unwrap();
        let (uplink, tls) = (launch.uplink.clone(), launch.tls.clone());
        let work = tokio::spawn(async move {
            let mut leader = None;
            loop {
                let Err(end) = converse(&*uplink, leader.take(), tls.clone()).await;
                tracing::debug!("the session ended: {end}");
                leader = end.downcast_ref::<tonic::Status>().and_then(leader_in).map(str::to_owned);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(Box::new(FakeAgent { work, ended: self.ended.clone() }))
    }
}

#[tonic::async_trait]
impl LocalAgent for FakeAgent {
    async fn stop(self: Box<Self>) {
        self.work.abort();
        self.ended.lock().unwrap().push("stopped");
    }

    async fn leave(self: Box<Self>) {
        self.work.abort();
        self.ended.lock().unwrap().push("left");
    }
}

async fn converse(
    uplink: &dyn Uplink,
    leader: Option<String>,
    mut tls: watch::Receiver<TlsInfo>,
) -> Result<std::convert::Infallible, Failure> {
    let remote = match leader {
        Some(addr) => uplink.connect_to(&addr).await?,
        None => uplink.connect().await?,
    };
    let mut client = DispatcherClient::new(remote.channel.clone());
    let platform = Platform { architecture: "x86_64".into(), os: "linux".into() };
    let tls_info = tls.borrow_and_update().clone();
    let description = NodeDescription { hostname: "fake".into(), platform, tls_info, ..NodeDescription::default() };
    let hello = Hello { description, session_id: String::new() };
    let mut session = client.session(proto::SessionRequest::try_from(hello)?).await?.into_inner();
    let welcome = Welcome::try_from(session.message().await?.ok_or("no welcome")?)?;
    uplink.observe(&remote, true);
    heed(uplink, &welcome);
    let tasks = watch::channel(BTreeMap::new()).0;
    tokio::select! {
        end = async {
            while let Some(message) = session.message().await? {
                heed(uplink, &Welcome::try_from(message)?);
            }
            Err("the session was closed".into())
        } => end,
        changed = tls.changed() => Err(changed.map_or_else(|e| e.to_string(), |()| "this node has changed".into()).into()),
        end = beat(client.clone(), &welcome) => end,
        end = work(client, &welcome, &tasks) => end,
        end = logs(remote.channel, &tasks) => end,
    }
}

fn heed(uplink: &dyn Uplink, welcome: &Welcome) {
    uplink.learn(&welcome.managers);
    uplink.trust(&welcome.root_ca);
    uplink.told(&welcome.node);
}

async fn beat(mut client: DispatcherClient<Channel>, welcome: &Welcome) -> Result<std::convert::Infallible, Failure> {
    let mut period = welcome.heartbeat_period;
    loop {
        tokio::time::sleep(period).await;
        let request = proto::HeartbeatRequest { session_id: welcome.session_id.clone() };
        period = shoal_wire::session::period(client.heartbeat(request).await?.into_inner().period)?;
    }
}

async fn work(
    mut client: DispatcherClient<Channel>,
    welcome: &Welcome,
    tasks: &Tasks,
) -> Result<std::convert::Infallible, Failure> {
    let session_id = welcome.session_id.clone();
    let request = proto::AssignmentsRequest { session_id: session_id.clone() };
    let mut messages = client.assignments(request).await?.into_inner();
    let mut receiver = Receiver::default();
    while let Some(message) = messages.message().await? {
        let Some(step) = receiver.take(message)? else { continue };
        let mut reports = Vec::new();
        for change in step.changes {
            match change {
                Assigned::Task(task) => {
                    let state = task.desired_state.min(TaskState::Shutdown);
                    reports.push((task.id, observed(state)));
                    tasks.send_modify(|t| drop(t.insert(task.id, *task)));
                }
                Assigned::RemoveTask(id) => tasks.send_modify(|t| drop(t.remove(&id))),
                _ => {}
            }
        }
        client.update_task_status(status::request(&session_id, &reports)?).await?;
    }
    Err("the assignments were closed".into())
}

fn observed(state: TaskState) -> TaskStatus {
    TaskStatus { timestamp: Timestamp::now(), state, message: state.to_string(), ..TaskStatus::default() }
}

async fn logs(channel: Channel, tasks: &Tasks) -> Result<std::convert::Infallible, Failure> {
    let mut client = LogBrokerClient::new(channel);
    let mut messages = client.listen_subscriptions(proto::ListenSubscriptionsRequest {}).await?.into_inner();
    let mut publishers = JoinSet::new();
    while let Some(message) = messages.message().await? {
        if let Subscription::Open { id, selector, options } = Subscription::try_from(message)? {
            let (mut client, mut tasks) = (client.clone(), tasks.subscribe());
            publishers.spawn(async move {
                let (tx, rx) = mpsc::channel(8);
                let publish = client.publish_logs(ReceiverStream::new(rx));
                let send = async {
                    let mut said = HashSet::new();
                    loop {
                        let now: Vec<Task> = tasks.borrow_and_update().values().cloned().collect();
                        let wanted =
                            |t: &Task| selector.services.contains(&t.service_id) || selector.tasks.contains(&t.id);
                        let fresh = now.iter().filter(|t| wanted(t) && said.insert(t.id));
                        let lines = fresh.map(|t| line(t).into()).collect();
                        let close = !options.follow;
                        let message = proto::PublishLogsMessage {
                            subscription_id: id.clone(),
                            lines,
                            close,
                            error: String::new(),
                        };
                        if tx.send(message).await.is_err() || close || tasks.changed().await.is_err() {
                            return drop(tx);
                        }
                    }
                };
                drop(tokio::join!(publish, send));
            });
        }
    }
    Err("the subscriptions were closed".into())
}

fn line(task: &Task) -> LogLine {
    LogLine {
        service: task.service_id,
        task: task.id,
        time: Timestamp::now(),
        stderr: false,
        data: b"hello\n".to_vec(),
        attrs: BTreeMap::new(),
    }
}
