//! The conversation with a manager: one session at a time, a new one whenever it breaks (swarm-semantics 7).

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use shoal_types::object::NodeDescription;
use shoal_wire::assignments::Receiver;
use shoal_wire::proto::dispatcher_client::DispatcherClient;
use shoal_wire::session::{Hello, Welcome};
use shoal_wire::{MAX_MESSAGE, Remote, Uplink, UplinkError, WireError, proto, status};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::logs;
use crate::worker::Worker;

/// How long a manager may take for a session's first message, or for a heartbeat.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often this node looks whether its description still holds.
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("the manager refused: {}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the manager closed the {0}")]
    Closed(&'static str),
    #[error("the manager did not answer in time")]
    Silent,
    #[error("this node has changed and introduces itself again")]
    Changed,
    #[error("what this node is told to run cannot be kept: {0}")]
    Record(#[from] crate::record::RecordError),
}

impl From<tonic::Status> for SessionEnd {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Keeps a session until the returned future is dropped.
pub async fn run(uplink: Arc<dyn Uplink>, worker: Arc<Worker>) {
    let mut backoff = Duration::ZERO;
    let mut session_id = String::new();
    loop {
        let began = Instant::now();
        let end = match uplink.connect().await {
            Ok(remote) => attend(&*uplink, &remote, &worker, &mut session_id).await,
            Err(error) => error.into(),
        };
        tracing::debug!("session ended: {end}");
        if matches!(end, SessionEnd::Changed) {
            continue;
        }
        if began.elapsed() > LONGEST_BACKOFF {
            backoff = Duration::ZERO;
        }
        backoff = (FIRST_BACKOFF + 2 * backoff).min(LONGEST_BACKOFF);
        let wait = rand::rng().random_range(Duration::ZERO..backoff);
        sleep(wait).await;
    }
}

/// One session, from the introduction to its end.
async fn attend(uplink: &dyn Uplink, remote: &Remote, worker: &Arc<Worker>, session_id: &mut String) -> SessionEnd {
    let end = converse(uplink, remote, worker, session_id).await.map_or_else(|end| end, |never| match never {});
    if !matches!(end, SessionEnd::Changed) {
        uplink.observe(remote, false);
    }
    end
}

async fn converse(
    uplink: &dyn Uplink,
    remote: &Remote,
    worker: &Arc<Worker>,
    session_id: &mut String,
) -> Result<std::convert::Infallible, SessionEnd> {
    let description = worker.executor().describe().await;
    let mut client = DispatcherClient::new(remote.channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let hello = Hello { description: description.clone(), session_id: std::mem::take(session_id) };
    let request = proto::SessionRequest::try_from(hello)?;
    let mut welcomes = patient(client.session(request)).await?.into_inner();
    let first = patient(welcomes.message()).await?.ok_or(SessionEnd::Closed("session"))?;
    let welcome = Welcome::try_from(first)?;
    let (id, period) = (welcome.session_id.clone(), welcome.heartbeat_period);
    session_id.clone_from(&id);
    uplink.observe(remote, true);
    heed(uplink, &welcome);
    worker.report_all();
    let listen = async {
        while let Some(message) = welcomes.message().await? {
            heed(uplink, &Welcome::try_from(message)?);
        }
        Err(SessionEnd::Closed("session"))
    };
    tokio::select! {
        end = listen => end,
        end = heartbeats(client.clone(), &id, period) => end,
        end = assignments(client.clone(), &id, worker) => end,
        end = reports(client.clone(), &id, worker) => end,
        end = logs::run(remote.channel.clone(), worker) => Err(SessionEnd::Refused(Box::new(end))),
        end = changes(worker, &description) => end,
    }
}

fn heed(uplink: &dyn Uplink, welcome: &Welcome) {
    uplink.learn(&welcome.managers);
    uplink.trust(&welcome.root_ca);
}

type Never = Result<std::convert::Infallible, SessionEnd>;

async fn heartbeats(mut client: DispatcherClient<Channel>, session_id: &str, mut period: Duration) -> Never {
    loop {
        sleep(period).await;
        let request = proto::HeartbeatRequest { session_id: session_id.to_owned() };
        let response = patient(client.heartbeat(request)).await?.into_inner();
        period = shoal_wire::session::period(response.period)?;
    }
}

async fn assignments(mut client: DispatcherClient<Channel>, session_id: &str, worker: &Arc<Worker>) -> Never {
    let request = proto::AssignmentsRequest { session_id: session_id.to_owned() };
    let mut messages = client.assignments(request).await?.into_inner();
    let mut receiver = Receiver::default();
    while let Some(message) = messages.message().await? {
        if let Some(step) = receiver.take(message)? {
            worker.assign(step).await?;
        }
    }
    Err(SessionEnd::Closed("assignments"))
}

async fn reports(mut client: DispatcherClient<Channel>, session_id: &str, worker: &Worker) -> Never {
    let reporter = worker.reporter();
    loop {
        let statuses = reporter.take().await;
        let sent = client.update_task_status(status::request(session_id, &statuses)?).await;
        if let Err(refusal) = sent {
            reporter.put_back(statuses);
            return Err(refusal.into());
        }
    }
}

/// Ends the session when the node is no longer what it said it is.
async fn changes(worker: &Worker, said: &NodeDescription) -> Never {
    loop {
        sleep(DESCRIBE_EVERY).await;
        if worker.executor().describe().await != *said {
            return Err(SessionEnd::Changed);
        }
    }
}

async fn patient<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, SessionEnd> {
    Ok(timeout(PATIENCE, call).await.map_err(|_| SessionEnd::Silent)??)
}
