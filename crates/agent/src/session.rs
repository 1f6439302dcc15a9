//! The conversation with a manager: one session at a time, a new one whenever it breaks (swarm-semantics 7).

use std::sync::Arc;
use std::time::Duration;

use shoal_types::object::NodeDescription;
use shoal_wire::assignments::Receiver;
use shoal_wire::dial::{is_not_leader, leader_in};
use shoal_wire::proto::dispatcher_client::DispatcherClient;
use shoal_wire::session::{Hello, Welcome};
use shoal_wire::{MAX_MESSAGE, Remote, Uplink, UplinkError, WireError, proto, status};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::logs;
use crate::search::{Reason, Search};
use crate::worker::Worker;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a manager may take for a session's first message: it writes before it answers.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a heartbeat may take, at least: it is answered from memory.
const PROMPT: Duration = Duration::from_secs(1);
/// How often this node looks whether its description still holds.
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
/// Statuses in one message.
const REPORTS: usize = 2000;
/// The pause before a stream of assignments that had a gap is opened anew.
const REOPEN: Duration = Duration::from_millis(100);

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
    let mut search = Search::default();
    let mut session_id = String::new();
    loop {
        let began = Instant::now();
        let end = attend(&*uplink, &mut search, &worker, &mut session_id).await;
        tracing::debug!("session ended: {end}");
        let lasted = began.elapsed();
        let pause = search.next(end.reason(), lasted, Instant::now(), &mut shoal_ambient::chance());
        sleep(pause).await;
    }
}

/// One session, from the way to a manager to its end.
async fn attend(uplink: &dyn Uplink, search: &mut Search, worker: &Arc<Worker>, session_id: &mut String) -> SessionEnd {
    let connect = async {
        match search.hint() {
            Some(addr) => uplink.connect_to(&addr).await,
            None => uplink.connect().await,
        }
    };
    let remote = match timeout(CONNECT, connect).await {
        Ok(Ok(remote)) => remote,
        Ok(Err(error)) => return error.into(),
        Err(_) => return SessionEnd::Silent,
    };
    let end =
        converse(uplink, &remote, search, worker, session_id).await.map_or_else(|end| end, |never| match never {});
    match end.reason() {
        Reason::Failed => {
            uplink.observe(&remote, false);
            search.failed(&remote.addr, Instant::now());
        }
        // A manager that does not lead has done its part by saying so.
        Reason::NotLeader(_) => uplink.observe(&remote, true),
        Reason::Anew => {}
    }
    end
}

impl SessionEnd {
    fn reason(&self) -> Reason {
        match self {
            Self::Changed => Reason::Anew,
            Self::Refused(status) if is_not_leader(status) => Reason::NotLeader(leader_in(status).map(str::to_owned)),
            _ => Reason::Failed,
        }
    }
}

async fn converse(
    uplink: &dyn Uplink,
    remote: &Remote,
    search: &mut Search,
    worker: &Arc<Worker>,
    session_id: &mut String,
) -> Result<std::convert::Infallible, SessionEnd> {
    let description = worker.executor().describe().await;
    let mut client = DispatcherClient::new(remote.channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let hello = Hello { description: description.clone(), session_id: session_id.clone() };
    let request = proto::SessionRequest::try_from(hello)?;
    let mut welcomes = patient(PATIENCE, client.session(request)).await?.into_inner();
    let first = patient(PATIENCE, welcomes.message()).await?.ok_or(SessionEnd::Closed("session"))?;
    let welcome = Welcome::try_from(first)?;
    let (id, period) = (welcome.session_id.clone(), welcome.heartbeat_period);
    session_id.clone_from(&id);
    search.welcome(period);
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
    uplink.told(&welcome.node);
}

type Never = Result<std::convert::Infallible, SessionEnd>;

async fn heartbeats(mut client: DispatcherClient<Channel>, session_id: &str, mut period: Duration) -> Never {
    loop {
        sleep(period).await;
        let request = proto::HeartbeatRequest { session_id: session_id.to_owned() };
        // Where nodes are many, the manager has much to do, and nobody is in a hurry.
        let response = patient(period.clamp(PROMPT, PATIENCE), client.heartbeat(request)).await?.into_inner();
        period = shoal_wire::session::period(response.period)?;
    }
}

async fn assignments(mut client: DispatcherClient<Channel>, session_id: &str, worker: &Arc<Worker>) -> Never {
    loop {
        let request = proto::AssignmentsRequest { session_id: session_id.to_owned() };
        let mut messages = client.assignments(request).await?.into_inner();
        let mut receiver = Receiver::default();
        let gap = loop {
            let message = messages.message().await?.ok_or(SessionEnd::Closed("assignments"))?;
            match receiver.take(message) {
                Ok(Some(step)) => worker.assign(step).await?,
                Ok(None) => {}
                Err(gap @ WireError::Gap { .. }) => break gap,
                Err(error) => return Err(error.into()),
            }
        };
        tracing::warn!("{gap}; asking for everything again");
        sleep(REOPEN).await;
    }
}

async fn reports(mut client: DispatcherClient<Channel>, session_id: &str, worker: &Worker) -> Never {
    let reporter = worker.reporter();
    loop {
        let statuses = reporter.take().await;
        for part in statuses.chunks(REPORTS) {
            if let Err(refusal) = client.update_task_status(status::request(session_id, part)?).await {
                reporter.put_back(statuses);
                return Err(refusal.into());
            }
        }
    }
}

/// Ends the session when the node is no longer what it said it is.
async fn changes(worker: &Worker, said: &NodeDescription) -> Never {
    loop {
        // Silence until then is the rule.
        drop(timeout(DESCRIBE_EVERY, worker.executor().changed(said)).await);
        if worker.executor().describe().await != *said {
            return Err(SessionEnd::Changed);
        }
    }
}

async fn patient<T>(limit: Duration, call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, SessionEnd> {
    Ok(timeout(limit, call).await.map_err(|_| SessionEnd::Silent)??)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
