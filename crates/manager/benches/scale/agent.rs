//! A simulated agent: the real conversation with the manager, and containers that only take time. What a task goes through, and
//! what becomes of its status, is what `lifecycle` says; statuses are reported as the real agent does, only the newest of each
//! task, and the next ones once the last ones are answered.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use shoal_lifecycle::{Action, Facts, Finished, Next, Wanted, finish, plan_next};
use shoal_manager::Peer;
use shoal_types::object::{ContainerStatus, EngineDescription, NodeDescription, Platform, TaskStatus};
use shoal_types::spec::Resources;
use shoal_types::{Task, TaskId, TaskState, Timestamp};
use shoal_wire::assignments::{Assigned, Assignments, Receiver};
use shoal_wire::proto::dispatcher_client::DispatcherClient;
use shoal_wire::session::{Hello, Welcome, period};
use shoal_wire::{MAX_MESSAGE, proto, status};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::{Channel, Endpoint};

use crate::pipe::{self, Door};

/// How long it takes to make a container of an image that is there, and to start it.
const START: Duration = Duration::from_millis(300);
/// How long a container takes to stop.
const STOP: Duration = Duration::from_millis(100);
/// The pause before a session is tried anew.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known of all agents.
#[derive(Debug, Clone, Default)]
pub struct Agents(Arc<AtomicU64>);

/// The tasks of one node.
#[derive(Default)]
struct Node {
    tasks: BTreeMap<TaskId, Run>,
    /// What containers are at work, and until when.
    work: BTreeMap<(Instant, TaskId), Action>,
    pending: BTreeMap<TaskId, TaskStatus>,
}

/// A task on a node.
struct Run {
    desired: TaskState,
    status: TaskStatus,
    /// What is under way.
    doing: Option<(Instant, Action)>,
}

type Client = DispatcherClient<Channel>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Agents {
    /// How many sessions were begun.
    pub fn sessions(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps a session, again and again.
pub async fn run(door: Door, peer: Peer, number: usize, agents: Agents) {
    let mut node = Node::default();
    // as machines do, not all in the same instant
    sleep(Duration::from_micros(400 * number as u64)).await;
    loop {
        let failed = match connect(&door, &peer).await {
            Ok(client) => session(&mut node, client, number, &agents).await.err(),
            Err(failed) => Some(failed),
        };
        if let Some(failed) = failed
            && number < 3
        {
            eprintln!("agent {number}: {failed}");
        }
        sleep(AGAIN).await;
    }
}

async fn connect(door: &Door, peer: &Peer) -> Result<Client, Failed> {
    let (door, peer) = (door.clone(), peer.clone());
    let connector = tower::service_fn(move |_| {
        let stream = pipe::connect(&door, peer.clone()).map(TokioIo::new);
        std::future::ready(stream)
    });
    let channel = Endpoint::from_static("http://manager").connect_with_connector(connector).await?;
    Ok(DispatcherClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

async fn session(node: &mut Node, mut client: Client, number: usize, agents: &Agents) -> Result<Infallible, Failed> {
    let hello = Hello { description: describe(number), session_id: String::new() };
    let mut told = client.session(proto::SessionRequest::try_from(hello)?).await?.into_inner();
    let welcome = Welcome::try_from(told.message().await?.ok_or("no welcome")?)?;
    agents.0.fetch_add(1, Ordering::Relaxed);
    let session_id = welcome.session_id;
    let request = proto::AssignmentsRequest { session_id: session_id.clone() };
    let mut assignments = client.assignments(request).await?.into_inner();
    let mut receiver = Receiver::default();
    node.report_all();
    let reporting = report(client.clone(), &session_id, Vec::new());
    tokio::pin!(reporting);
    let mut is_reporting = false;
    let mut beat_at = Instant::now() + welcome.heartbeat_period;
    loop {
        if !is_reporting && !node.pending.is_empty() {
            let reports = std::mem::take(&mut node.pending).into_iter().collect();
            reporting.set(report(client.clone(), &session_id, reports));
            is_reporting = true;
        }
        let work_at = node.work.first_key_value().map(|((at, _), _)| *at);
        tokio::select! {
            message = told.message() => drop(message?.ok_or("the session ended")?),
            message = assignments.message() => {
                if let Some(step) = receiver.take(message?.ok_or("the stream of assignments ended")?)? {
                    node.assign(step);
                }
            }
            result = &mut reporting, if is_reporting => {
                result?;
                is_reporting = false;
            }
            () = sleep_until(work_at.unwrap_or_else(Instant::now)), if work_at.is_some() => node.finish_work(),
            () = sleep_until(beat_at) => {
                let request = proto::HeartbeatRequest { session_id: session_id.clone() };
                let answer = client.heartbeat(request).await?.into_inner();
                beat_at = Instant::now() + period(answer.period)?;
            }
        }
    }
}

async fn report(mut client: Client, session_id: &str, reports: Vec<(TaskId, TaskStatus)>) -> Result<(), Failed> {
    client.update_task_status(status::request(session_id, &reports)?).await?;
    Ok(())
}

fn describe(number: usize) -> NodeDescription {
    NodeDescription {
        hostname: format!("node-{number}"),
        platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
        resources: Resources { nano_cpus: 16_000_000_000, memory_bytes: 64 << 30, ..Resources::default() },
        engine: EngineDescription { engine_version: "1.0.0".into(), ..EngineDescription::default() },
        ..NodeDescription::default()
    }
}

impl Node {
    fn report_all(&mut self) {
        self.pending = self.tasks.iter().map(|(id, run)| (*id, run.status.clone())).collect();
    }

    fn assign(&mut self, step: Assignments) {
        if step.complete {
            let kept: HashMap<_, ()> = step.changes.iter().filter_map(|c| Some((task_in(c)?.id, ()))).collect();
            self.tasks.retain(|id, _| kept.contains_key(id));
        }
        for change in step.changes {
            match change {
                Assigned::Task(task) => self.want(*task),
                Assigned::RemoveTask(id) => drop(self.tasks.remove(&id)),
                _ => {}
            }
        }
    }

    fn want(&mut self, task: Task) {
        let run =
            self.tasks.entry(task.id).or_insert(Run { desired: task.desired_state, status: task.status, doing: None });
        run.desired = run.desired.max(task.desired_state);
        self.go_on(task.id);
    }

    /// Does what comes next for a task until it takes time.
    fn go_on(&mut self, id: TaskId) {
        let Some(run) = self.tasks.get_mut(&id) else { return };
        loop {
            match plan_next(&run.status, Wanted::State(run.desired), Timestamp::now()) {
                Next::Report(status) => run.status = status,
                Next::Do(Action::Accept) => run.finish(Action::Accept),
                Next::Do(Action::Wait) | Next::Idle => break,
                Next::Do(action) => {
                    if run.doing.is_none_or(|(_, doing)| doing != action) {
                        if let Some((at, _)) = run.doing {
                            self.work.remove(&(at, id));
                        }
                        let at = Instant::now() + if action == Action::Shutdown { STOP } else { START / 2 };
                        run.doing = Some((at, action));
                        self.work.insert((at, id), action);
                    }
                    break;
                }
            }
        }
        self.pending.insert(id, run.status.clone());
    }

    fn finish_work(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.work.first_entry().filter(|e| e.key().0 <= now) {
            let ((_, id), action) = entry.remove_entry();
            if let Some(run) = self.tasks.get_mut(&id) {
                run.doing = None;
                run.finish(action);
                self.go_on(id);
            }
        }
    }
}

impl Run {
    fn finish(&mut self, action: Action) {
        let container = ContainerStatus { container_id: "c".repeat(64), pid: 4242, exit_code: 0 };
        let facts = Facts { container: (action != Action::Accept).then_some(container), ports: None };
        if let Finished::Report(status) = finish(&self.status, action, Ok(()), facts, Timestamp::now()) {
            self.status = status;
        }
    }
}

fn task_in(change: &Assigned) -> Option<&Task> {
    match change {
        Assigned::Task(task) => Some(task),
        _ => None,
    }
}
