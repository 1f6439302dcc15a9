//! An agent made of calls: what it is told, and what its reports lead to.

use shoal_types::object::{NodeDescription, NodeState, Platform, TaskStatus};
use shoal_types::spec::{ClusterSpec, DispatcherConfig, NodeRole};
use shoal_types::{ClusterId, TaskId, TaskState};
use shoal_wire::assignments::{Assigned, Receiver};
use shoal_wire::proto;
use shoal_wire::session::Hello;

use super::registration::Stream;
use super::*;
use crate::ca::Subject;
use crate::control::{Filters, ServiceUpdate};
use crate::ids::RandomIds;
use crate::peer::Peer;
use crate::testing::{Fixture, service};

pub(super) struct Agent {
    dispatcher: Arc<Dispatcher>,
    node: NodeId,
    session: Stream<proto::SessionMessage>,
    session_id: String,
    assignments: Stream<proto::AssignmentsMessage>,
    receiver: Receiver,
}

fn peer(node: NodeId) -> Peer {
    let subject = Subject { node, role: NodeRole::Manager, cluster: ClusterId::new(&mut RandomIds) };
    Peer { subject, addr: "10.0.0.1".into() }
}

fn hello() -> Hello {
    let platform = Platform { architecture: "x86_64".into(), os: "linux".into() };
    let description = NodeDescription { hostname: "one".into(), platform, ..NodeDescription::default() };
    Hello { description, session_id: String::new() }
}

async fn dispatcher(f: &Fixture) -> Arc<Dispatcher> {
    loop {
        if let Some(term) = f.manager.active().now() {
            return term.dispatcher.clone();
        }
        tokio::task::yield_now().await;
    }
}

impl Agent {
    pub(super) async fn new(f: &Fixture) -> Self {
        let dispatcher = dispatcher(f).await;
        let mut session = dispatcher.register(peer(f.node), hello()).await.unwrap();
        let session_id = session.recv().await.unwrap().unwrap().session_id;
        let assignments = dispatcher.assign(f.node, &session_id).unwrap();
        Self { dispatcher, node: f.node, session, session_id, assignments, receiver: Receiver::default() }
    }

    pub(super) async fn told(&mut self) -> Vec<Assigned> {
        loop {
            let message = self.assignments.recv().await.unwrap().unwrap();
            if let Some(step) = self.receiver.take(message).unwrap() {
                return step.changes;
            }
        }
    }

    pub(super) async fn report(&self, task: TaskId, state: TaskState) -> Result<(), Status> {
        let status = TaskStatus { state, message: state.to_string(), ..TaskStatus::default() };
        self.dispatcher.report(self.node, &self.session_id, vec![(task, status)]).await
    }
}

fn quick() -> ClusterSpec {
    ClusterSpec { dispatcher: DispatcherConfig { heartbeat_period: 50_000_000 }, ..ClusterSpec::initial() }
}

#[tokio::test]
async fn a_service_reaches_the_agent_and_its_reports_reach_the_client() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let mut agent = Agent::new(&f).await;
    assert_eq!(agent.told().await, [], "nothing at first");
    f.control.create_service(service("web", 2), None).await.unwrap();
    let mut tasks = Vec::new();
    while tasks.len() < 2 {
        for change in agent.told().await {
            let Assigned::Task(task) = change else { panic!("nothing to remove yet") };
            assert_eq!((task.node_id, task.status.state), (Some(f.node), TaskState::Assigned));
            tasks.push(task);
        }
    }
    for task in &tasks {
        for state in [TaskState::Accepted, TaskState::Preparing, TaskState::Running] {
            agent.report(task.id, state).await.unwrap();
        }
    }
    let web = f.control.get_service("web").unwrap();
    assert_eq!(f.control.service_status(&web).running_tasks, 2);
    let stored = f.control.get_task(tasks[0].id.as_str()).unwrap();
    assert!(stored.status.applied_at.is_some());

    let version = ServiceUpdate { version: web.meta.version, ..ServiceUpdate::default() };
    f.control.update_service("web", service("web", 1), version).await.unwrap();
    let [Assigned::Task(gone)] = &agent.told().await[..] else {
        panic!("what only the agent reported is not sent back")
    };
    assert_eq!(gone.desired_state, TaskState::Remove);
    agent.report(gone.id, TaskState::Shutdown).await.unwrap();
    assert_eq!(agent.told().await, [Assigned::RemoveTask(gone.id)]);
    assert_eq!(f.control.list_tasks(&Filters::default()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_report_that_is_old_changes_nothing() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let mut agent = Agent::new(&f).await;
    f.control.create_service(service("web", 1), None).await.unwrap();
    let task = loop {
        if let Some(Assigned::Task(task)) = agent.told().await.pop() {
            break task;
        }
    };
    agent.report(task.id, TaskState::Running).await.unwrap();
    let version = || f.control.get_task(task.id.as_str()).unwrap().meta.version;
    let before = version();
    agent.report(task.id, TaskState::Preparing).await.unwrap();
    agent.report(task.id, TaskState::Running).await.unwrap();
    assert_eq!(version(), before);
    agent.report(TaskId::new(&mut RandomIds), TaskState::Running).await.expect("unknown tasks are passed over");
}

#[tokio::test]
async fn a_node_that_falls_silent_is_down_and_comes_back_with_a_new_session() {
    let f = Fixture::new(quick()).await;
    let agent = Agent::new(&f).await;
    let state = |s: &shoal_raft::Snapshot| s.node(f.node).map(|n| (n.status.state, n.status.message.clone()));
    f.until(|s| state(s) == Some((NodeState::Down, "heartbeat failure".into()))).await;
    let refused = agent.dispatcher.beat(f.node, &agent.session_id).unwrap_err();
    assert_eq!(refused.message(), "node not registered");
    let again = Agent::new(&f).await;
    assert_ne!(again.session_id, agent.session_id);
    let node = f.control.get_node(f.node.as_str()).unwrap();
    assert_eq!((node.status.state, node.status.addr.as_str()), (NodeState::Ready, "10.0.0.1"));
    assert_eq!(f.control.get_node("one").unwrap().id, f.node, "found by the name that it reported");
}

#[tokio::test]
async fn heartbeats_keep_a_node_and_their_period_is_drawn_anew() {
    let f = Fixture::new(quick()).await;
    let agent = Agent::new(&f).await;
    let mut periods = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let period = agent.dispatcher.beat(f.node, &agent.session_id).unwrap();
        assert!((45..=55).contains(&period.as_millis()), "{period:?}");
        periods.insert(period);
        tokio::time::sleep(period / 2).await;
    }
    assert!(periods.len() > 1);
    assert_eq!(f.control.get_node(f.node.as_str()).unwrap().status.state, NodeState::Ready);
}

#[tokio::test]
async fn a_node_that_a_new_leader_does_not_hear_of_is_unknown_then_down() {
    let mut f = Fixture::new(quick()).await;
    // The node is there already when this leader begins.
    let cluster = f.control.get_cluster().unwrap().id;
    f.manager = crate::Manager::start(f.raft.clone(), cluster, Arc::new(crate::testing::NoWay));
    let texts = |s: &shoal_raft::Snapshot| s.node(f.node).map(|n| n.status.message.clone());
    f.until(|s| texts(s).as_deref() == Some("heartbeat failure for node in \"unknown\" state")).await;
    assert_eq!(f.control.get_node(f.node.as_str()).unwrap().status.state, NodeState::Down);
}

#[tokio::test]
async fn strangers_wrong_sessions_and_the_tasks_of_others_are_refused() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let mut agent = Agent::new(&f).await;
    let stranger = peer(NodeId::new(&mut RandomIds));
    let refused = agent.dispatcher.register(stranger.clone(), hello()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "node not found"));
    let refused = agent.dispatcher.beat(f.node, "other").unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, "session invalid"));
    let refused = agent.dispatcher.beat(stranger.subject.node, "x").unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "node not registered"));

    f.control.create_service(service("web", 1), None).await.unwrap();
    let task = loop {
        if let Some(Assigned::Task(task)) = agent.told().await.pop() {
            break task.id;
        }
    };
    let other = shoal_types::TaskPatch { node_id: Some(stranger.subject.node), ..shoal_types::TaskPatch::of(task) };
    let moved = shoal_types::Change::Patch(other);
    f.raft.write(|tx: &mut shoal_raft::Tx| tx.change(moved)).await.unwrap();
    assert_eq!(agent.told().await, [Assigned::RemoveTask(task)]);
    let refused = agent.report(task, TaskState::Running).await.unwrap_err();
    let wanted = (tonic::Code::PermissionDenied, "cannot update a task not assigned this node");
    assert_eq!((refused.code(), refused.message()), wanted);
}

#[tokio::test]
async fn the_fourth_registration_within_eight_seconds_is_refused_and_a_known_session_goes_on() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let agent = Agent::new(&f).await;
    let again = Hello { session_id: agent.session_id.clone(), ..hello() };
    for _ in 0..5 {
        let mut session = agent.dispatcher.register(peer(f.node), again.clone()).await.unwrap();
        assert_eq!(session.recv().await.unwrap().unwrap().session_id, agent.session_id);
    }
    for _ in 0..2 {
        agent.dispatcher.register(peer(f.node), hello()).await.unwrap();
    }
    let refused = agent.dispatcher.register(peer(f.node), hello()).await.unwrap_err();
    let wanted = format!("node {} exceeded rate limit count of registrations", f.node);
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Unavailable, wanted.as_str()));
}

#[tokio::test]
async fn a_change_of_the_node_reaches_it_and_a_new_session_ends_the_old_one() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let mut agent = Agent::new(&f).await;
    let node = f.control.get_node(f.node.as_str()).unwrap();
    let mut spec = node.spec.clone();
    spec.labels.insert("a".into(), "b".into());
    f.control.update_node(f.node.as_str(), node.meta.version, spec.clone()).await.unwrap();
    let welcome = loop {
        let message = agent.session.recv().await.unwrap().unwrap();
        let welcome = Welcome::try_from(message).unwrap();
        if welcome.node.spec == spec {
            break welcome;
        }
    };
    assert_eq!(welcome.managers.len(), 1);
    assert_eq!(welcome.managers[0].addr, "10.0.0.1:2377");
    assert!(welcome.root_ca.starts_with("-----BEGIN CERTIFICATE-----"));
    let _newer = Agent::new(&f).await;
    let end = loop {
        if let Err(end) = agent.session.recv().await.unwrap() {
            break end;
        }
    };
    assert_eq!(end.message(), "node must disconnect");
}

#[tokio::test]
async fn the_end_of_consensus_ends_every_stream() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let mut agent = Agent::new(&f).await;
    f.raft.stop().await;
    let end = loop {
        match agent.assignments.recv().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("the stream says why it ends"),
        }
    };
    assert_eq!(end.message(), "dispatcher is stopped");
    assert!(f.manager.active().now().is_none());
}
