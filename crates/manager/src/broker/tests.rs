use shoal_types::ServiceId;

use super::*;
use crate::ids::RandomIds;

fn node() -> NodeId {
    NodeId::new(&mut RandomIds)
}

fn follow() -> LogOptions {
    LogOptions { stdout: true, follow: true, ..LogOptions::default() }
}

#[tokio::test]
async fn following_reaches_agents_that_come_later_and_dropping_the_stream_tells_them() {
    let broker = Arc::new(Broker::default());
    let selector = LogSelector { services: vec![ServiceId::new(&mut RandomIds)], tasks: Vec::new() };
    let stream = broker.subscribe(&Snapshot::default(), selector, follow());
    let (_, mut agent) = broker.listen(node());
    let Some(Subscription::Open { id, .. }) = agent.recv().await else { panic!("open subscriptions come first") };
    drop(stream);
    assert_eq!(agent.recv().await, Some(Subscription::Close { id }));
}

#[tokio::test]
async fn a_stream_that_nobody_can_serve_ends_at_once() {
    let broker = Arc::new(Broker::default());
    let mut stream = broker.subscribe(&Snapshot::default(), LogSelector::default(), LogOptions::default());
    assert_eq!(stream.lines.recv().await, Some(Err(End::Complete)));
}

#[tokio::test]
async fn a_successor_is_not_removed_by_the_end_of_the_stream_before_it() {
    let broker = Arc::new(Broker::default());
    let node = node();
    let (first, _gone) = broker.listen(node);
    let (_, mut second) = broker.listen(node);
    broker.unlisten(node, first);
    let _stream = broker.subscribe(&Snapshot::default(), LogSelector::default(), follow());
    assert!(matches!(second.recv().await, Some(Subscription::Open { .. })));
}

/// A view with a service of one running task, and its node in that state.
fn running(state: NodeState) -> (Snapshot, NodeId, LogSelector) {
    use shoal_types::{Change, Meta, Object, Timestamp};
    let ids = &mut RandomIds;
    let (node, service) = (NodeId::new(ids), ServiceId::new(ids));
    let mut object = shoal_types::Node {
        id: node,
        meta: Meta::default(),
        spec: Default::default(),
        role: Default::default(),
        description: None,
        status: Default::default(),
        manager_addr: None,
        wanted_issuer: None,
    };
    object.status.state = state;
    let task = crate::testing::task(service, node);
    let changes = [Change::Put(Object::Node(object.into())), Change::Put(Object::Task(task.into()))];
    let mut store = shoal_store::Store::new();
    store.apply(1, Timestamp::UNIX_EPOCH, &changes);
    (store.snapshot(), node, LogSelector { services: vec![service], tasks: Vec::new() })
}

fn incomplete(reason: Reason) -> Option<Item> {
    Some(Err(End::Incomplete(LogEnd::new(&[reason]))))
}

#[tokio::test]
async fn a_node_that_is_down_is_named_at_once() {
    let (view, node, selector) = running(NodeState::Down);
    let broker = Arc::new(Broker::default());
    let mut stream = broker.subscribe(&view, selector, LogOptions::default());
    assert_eq!(stream.lines.recv().await, incomplete(Reason::NotAvailable(node)));
}

#[tokio::test]
async fn a_node_that_does_not_connect_is_waited_for_a_little_and_one_that_does_is_asked() {
    let (view, node, selector) = running(NodeState::Unknown);
    let broker = Arc::new(Broker::default());
    let mut late = broker.subscribe(&view, selector.clone(), LogOptions::default());
    broker.lock().expire(Instant::now());
    assert!(late.lines.try_recv().is_err());
    let (_, mut agent) = broker.listen(node);
    let Some(Subscription::Open { id, .. }) = agent.recv().await else { panic!("it is told what is open") };
    broker.done(&id, node, "");
    assert_eq!(late.lines.recv().await, Some(Err(End::Complete)));

    broker.lock().lose(node);
    let mut never = broker.subscribe(&view, selector, LogOptions::default());
    broker.lock().expire(Instant::now() + CONNECT);
    assert_eq!(never.lines.recv().await, incomplete(Reason::NotAvailable(node)));
}

#[tokio::test]
async fn a_node_that_falls_silent_in_the_middle_is_not_waited_for_but_a_slow_client_is() {
    let (view, node, selector) = running(NodeState::Ready);
    let broker = Arc::new(Broker::default());
    let (_, mut agent) = broker.listen(node);
    let mut stream = broker.subscribe(&view, selector, LogOptions::default());
    let Some(Subscription::Open { id, .. }) = agent.recv().await else { panic!("it is told") };
    let sink = broker.sink(&id, node).unwrap();
    let line = LogLine {
        service: ServiceId::new(&mut RandomIds),
        task: shoal_types::TaskId::new(&mut RandomIds),
        time: shoal_types::Timestamp::UNIX_EPOCH,
        stderr: false,
        data: Vec::new(),
        attrs: Default::default(),
    };
    while sink.try_send(Ok(line.clone())).is_ok() {}
    broker.lock().expire(Instant::now() + SILENCE);
    assert!(broker.sink(&id, node).is_some(), "it cannot say anything while the client does not read");
    while stream.lines.try_recv().is_ok() {}
    broker.lock().expire(Instant::now() + 2 * SILENCE);
    drop(sink);
    assert_eq!(stream.lines.recv().await, incomplete(Reason::Disconnected(node)));
}

#[tokio::test]
async fn the_end_of_a_term_is_not_taken_for_the_end_of_the_lines() {
    let broker = Arc::new(Broker::default());
    let selector = LogSelector { services: vec![ServiceId::new(&mut RandomIds)], tasks: Vec::new() };
    let mut stream = broker.subscribe(&Snapshot::default(), selector, follow());
    drop(Ending(broker));
    assert_eq!(stream.lines.recv().await, None);
}

#[test]
fn reasons_are_said_in_dockers_words() {
    let (task, node) = (shoal_types::TaskId::new(&mut RandomIds), node());
    let end = LogEnd::new(&[Reason::NotScheduled(task), Reason::NotAvailable(node), Reason::Disconnected(node)]);
    let text = format!(
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: \
         task {task} has not been scheduled, node {node} is not available, node {node} disconnected unexpectedly"
    );
    assert_eq!(end.to_string(), text);
}
