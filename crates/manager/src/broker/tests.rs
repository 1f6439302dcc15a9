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
    assert!(stream.next().await.is_none());
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
