//! Three managers: whichever a client asks, the answer is the same.

use std::time::Duration;

use shoal_types::{RefusalKind, View};
use shoal_wire::logs::LogOptions;
use tokio::time::{Instant, timeout};

use super::*;
use crate::testing::{Trio, service};

#[tokio::test]
async fn writes_and_refusals_are_the_same_on_every_manager_and_all_read_them_at_once() {
    let trio = Trio::new().await;
    for (place, one) in trio.managers.iter().enumerate() {
        let name = format!("web{place}");
        let id = one.control.create_service(service(&name, 0), None).await.unwrap();
        assert_eq!(one.control.get_service(&name).unwrap().id, id, "a client reads its own write");
        for other in &trio.managers {
            other.control.catch_up().await;
            let seen = other.control.get_service(&name).unwrap();
            let update = ServiceUpdate { version: seen.meta.version, ..ServiceUpdate::default() };
            other.control.update_service(&name, service(&name, 0), update).await.unwrap();
        }
        let taken = one.control.create_service(service(&name, 0), None).await.unwrap_err();
        assert_eq!((taken.kind, taken.origin), (RefusalKind::AlreadyExists, shoal_types::Origin::Manager));
        let unknown = one.control.remove_service("nowhere").await.unwrap_err();
        assert_eq!((unknown.kind, unknown.origin), (RefusalKind::NotFound, shoal_types::Origin::Engine));
        assert_eq!(unknown.message, "service nowhere not found");
    }
}

#[tokio::test]
async fn every_manager_tells_of_every_change() {
    let trio = Trio::new().await;
    let mut streams: Vec<_> = trio.managers.iter().map(|one| one.control.events()).collect();
    trio.managers[1].control.create_service(service("web", 0), None).await.unwrap();
    for stream in &mut streams {
        assert_eq!(stream.next().await.attributes["name"], "web");
    }
}

#[tokio::test]
async fn a_leader_that_stops_costs_a_client_of_another_manager_no_error() {
    let trio = Trio::new().await;
    let old = trio.leader(None).await;
    trio.stop(old).await;
    let other = &trio.managers[(old + 1) % 3];
    let began = Instant::now();
    other.control.create_service(service("web", 0), None).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let third = &trio.managers[(old + 2) % 3];
    third.control.catch_up().await;
    assert!(third.control.get_service("web").is_ok());
    let seen = |node| third.control.manager_status(node).unwrap().reachability;
    assert_eq!(seen(other.node), Reachability::Reachable);
    while seen(trio.managers[old].node) != Reachability::Unreachable {
        tokio::time::sleep(Duration::from_millis(50)).await;
        third.control.catch_up().await;
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_takes_no_write_says_so_in_time_and_the_others_go_on() {
    let trio = Trio::new().await;
    let old = trio.leader(None).await;
    trio.cut(Some(old));
    let refused = trio.managers[old].control.create_service(service("stray", 0), None);
    let refused = timeout(Duration::from_secs(15), refused).await.unwrap().unwrap_err();
    assert_eq!(refused.kind.http_status(), 500, "{refused}");
    let new = trio.leader(Some(old)).await;
    trio.managers[new].control.create_service(service("web", 0), None).await.unwrap();
    trio.managers[old].control.catch_up().await;
    assert!(trio.managers[old].control.get_service("web").is_err(), "it reads what it has");
    trio.cut(None);
    while trio.managers[old].control.get_service("web").is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        trio.managers[old].control.catch_up().await;
    }
    assert!(trio.managers[old].control.get_service("stray").is_err());
}

#[tokio::test]
async fn without_a_majority_writes_are_refused_in_dockers_words_and_reads_go_on() {
    let trio = Trio::new().await;
    let leader = trio.leader(None).await;
    let left = (leader + 1) % 3;
    trio.stop(leader).await;
    trio.stop((leader + 2) % 3).await;
    let control = &trio.managers[left].control;
    // A write that is under way when the majority goes is answered in other words: nobody knows what became of it.
    while crate::lead::now(&trio.managers[left].raft).is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    let refused = control.create_service(service("web", 0), None).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let text = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers \
                are online. Make sure more than half of the managers are online.";
    assert_eq!(refused.to_string(), text);
    control.catch_up().await;
    let began = Instant::now();
    control.catch_up().await;
    assert!(control.get_cluster().is_ok() && began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nodes_that_turn_to_another_manager_are_told_who_leads() {
    use shoal_types::object::NodeDescription;
    use shoal_wire::dial::{is_not_leader, leader_in};
    use shoal_wire::proto::dispatcher_client::DispatcherClient;
    use shoal_wire::session::{Hello, Welcome};
    let trio = Trio::new().await;
    let leader = trio.leader(None).await;
    let (one, other) = (&trio.managers[(leader + 1) % 3], &trio.managers[(leader + 2) % 3]);
    let hello = Hello { description: NodeDescription::default(), session_id: String::new() };
    let request = shoal_wire::proto::SessionRequest::try_from(hello).unwrap();
    let refused = DispatcherClient::new(one.dial(&other.addr).await).session(request.clone()).await.unwrap_err();
    assert!(is_not_leader(&refused));
    let addr = leader_in(&refused).unwrap();
    assert_eq!(addr, trio.managers[leader].addr);
    let mut session = DispatcherClient::new(one.dial(addr).await).session(request).await.unwrap().into_inner();
    let welcome = Welcome::try_from(session.message().await.unwrap().unwrap()).unwrap();
    assert_eq!(welcome.node.id, one.node);
    // A leader that is cut off leads no more, and the end of its term is the end of its sessions.
    trio.cut(Some(leader));
    let leads = || trio.managers[leader].manager.active().now().is_some();
    let over = async {
        while leads() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        trio.cut(None);
        loop {
            match session.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    };
    let end = timeout(Duration::from_secs(10), over).await.unwrap().unwrap_err();
    assert_eq!(end.message(), "dispatcher is stopped");
}

#[tokio::test]
async fn log_lines_are_asked_for_at_the_leader() {
    let trio = Trio::new().await;
    let leader = trio.leader(None).await;
    let one = &trio.managers[(leader + 1) % 3];
    let id = one.control.create_service(service("web", 1), None).await.unwrap();
    while one.control.snapshot().tasks_of(id).next().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let task = one.control.snapshot().tasks_of(id).next().unwrap().id;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let mut stream = one.control.task_logs(task, options.clone()).await.unwrap();
    let end = stream.next().await.unwrap().unwrap_err().to_string();
    assert!(end.ends_with(&format!("reasons: task {task} has not been scheduled")), "{end}");
    assert!(stream.next().await.is_none());
    let mut all = one.control.service_logs(id, options).await.unwrap();
    assert!(all.next().await.is_none(), "nothing has started");
}

#[tokio::test]
async fn followed_lines_go_on_with_the_next_leader() {
    let trio = Trio::new().await;
    let old = trio.leader(None).await;
    let one = &trio.managers[(old + 1) % 3];
    let id = one.control.create_service(service("web", 0), None).await.unwrap();
    let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
    let mut stream = one.control.service_logs(id, options).await.unwrap();
    trio.stop(old).await;
    let new = trio.leader(Some(old)).await;
    let broker = trio.managers[new].manager.active().now().unwrap().broker.clone();
    while broker.open_count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(timeout(Duration::from_millis(100), stream.next()).await.is_err(), "it goes on");
    drop(stream);
    while broker.open_count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
