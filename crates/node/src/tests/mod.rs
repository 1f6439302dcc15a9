//! The life of a one-node swarm, with a real log, real TLS on a loopback port, and an agent that speaks the wire.

mod agent;
mod cluster;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shoal_manager::control::{Filters, ServiceUpdate};
use shoal_types::object::NodeState;
use shoal_types::spec::{ContainerSpec, Replicated, ServiceMode, ServiceSpec, TaskSpec};
use shoal_types::{Refusal, Timestamp, View};
use shoal_wire::logs::LogOptions;
use shoal_wire::session::Hello;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::dialer::Dialer;
use crate::identity::{Identity, Issued};
use crate::supervise::Status;
use crate::vault::{Found, Vault};
use crate::{InitRequest, JoinRequest, LocalState, Node};
use agent::FakeLauncher;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn request(port: u16) -> InitRequest {
    let addr = format!("127.0.0.1:{port}");
    InitRequest { listen_addr: addr.clone(), advertise_addr: addr, ..InitRequest::default() }
}

async fn node(dir: &Path) -> (Arc<Node>, Arc<FakeLauncher>) {
    let launcher = Arc::new(FakeLauncher::default());
    (Node::start(dir.to_owned(), launcher.clone()).await, launcher)
}

fn service(name: &str, replicas: i64) -> ServiceSpec {
    let container = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    ServiceSpec {
        name: name.into(),
        task_template: TaskSpec { container_spec: Some(container), ..TaskSpec::default() },
        mode: ServiceMode { replicated: Some(Replicated { replicas: Some(replicas) }), ..ServiceMode::default() },
        ..ServiceSpec::default()
    }
}

fn text<T>(result: Result<T, Refusal>, status: u16) -> String {
    let refusal = result.err().expect("it is refused");
    assert_eq!(refusal.kind.http_status(), status, "{refusal}");
    refusal.to_string()
}

/// What a node has on disk.
fn kept(dir: &Path) -> (Identity, Vault) {
    match Vault::find(&dir.join("certificates")).unwrap() {
        Found::Node(identity, vault) => (identity, vault),
        _ => panic!("there is a node"),
    }
}

/// Waits until `service` has `count` running tasks.
async fn running(node: &Node, service: &str, count: u64) {
    let control = node.control().unwrap();
    let mut events = control.follow();
    loop {
        let found = control.get_service(service).unwrap();
        if control.service_status(&found).running_tasks == count {
            return;
        }
        events.next().await;
    }
}

const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                            connect this node to swarm and try again.";

#[tokio::test]
async fn a_swarm_begins_runs_a_service_survives_a_restart_and_ends() {
    let dir = TempDir::new().unwrap();
    let (first, launcher) = node(dir.path()).await;
    assert_eq!((first.ping(), first.info().await.state), ("inactive", LocalState::Inactive));
    assert_eq!(text(first.control().map(drop), 503), NOT_IN_SWARM);

    let id = first.init(request(free_port())).await.unwrap();
    assert_eq!(first.ping(), "active/manager");
    let info = first.info().await;
    assert_eq!((info.node_id, info.node_addr.as_str(), info.control_available), (Some(id), "127.0.0.1", true));
    let cluster = info.cluster.unwrap();
    assert_eq!((cluster.nodes, cluster.managers), (1, 1));
    let control = first.control().unwrap();
    assert_eq!(control.get_node(id.as_str()).unwrap().status.state, NodeState::Ready, "once init returns");
    assert_eq!(control.get_node("fake").unwrap().status.addr, "127.0.0.1");

    control.create_service(service("web", 3), None).await.unwrap();
    running(&first, "web", 3).await;
    first.stop().await;
    assert_eq!(launcher.ended(), ["stopped"]);

    let (second, launcher) = node(dir.path()).await;
    assert_eq!((second.id(), second.ping()), (Some(id), "active/manager"));
    running(&second, "web", 3).await;
    let control = second.control().unwrap();
    let web = control.get_service("web").unwrap();
    let update = ServiceUpdate { version: web.meta.version, ..ServiceUpdate::default() };
    control.update_service("web", service("web", 5), update).await.unwrap();
    running(&second, "web", 5).await;

    let refused = text(second.leave(false).await, 503);
    let wanted = "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last \
                  manager erases all current state of the swarm. Use `--force` to ignore this message. ";
    assert_eq!(refused, wanted);
    second.leave(true).await.unwrap();
    assert_eq!(launcher.ended(), ["left"]);
    assert_eq!(second.ping(), "inactive");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing remains");
    assert_eq!(text(second.leave(true).await, 503), "This node is not part of a swarm");
    let again = second.init(request(free_port())).await.unwrap();
    assert_ne!(again, id);
    second.stop().await;
}

#[tokio::test]
async fn a_second_init_and_a_join_are_refused() {
    let dir = TempDir::new().unwrap();
    let (node, _) = node(dir.path()).await;
    assert_eq!(text(node.join(JoinRequest::default()).await, 400), "at least 1 RemoteAddr is required to join");
    node.init(request(free_port())).await.unwrap();
    let wanted =
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
    assert_eq!(text(node.init(request(free_port())).await, 503), wanted);
    assert_eq!(text(node.join(JoinRequest::default()).await, 503), wanted);
    node.stop().await;
}

#[tokio::test]
async fn an_init_that_fails_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let (node, launcher) = node(dir.path()).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = text(node.init(request(port)).await, 500);
    assert!(refused.contains(&format!("listen tcp 127.0.0.1:{port}: bind: Address already in use")), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    launcher.fail_next();
    assert_eq!(text(node.init(request(free_port())).await, 500), "no agent today");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(node.ping(), "inactive");
    drop(taken);
    node.init(request(port)).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_meant_are_refused_and_nothing_begins() {
    let dir = TempDir::new().unwrap();
    let (node, _) = node(dir.path()).await;
    let with = |change: fn(&mut InitRequest)| {
        let mut request = request(2377);
        change(&mut request);
        request
    };
    for (request, status, wanted) in [
        (with(|r| r.listen_addr = "nowhere".into()), 400, "listen address must be an IP address or network interface"),
        (with(|r| r.advertise_addr = "0.0.0.0".into()), 400, "advertise address must be a non-zero IP address"),
        (with(|r| r.data_path_addr = "x:1".into()), 400, "data path address must be a non-zero IP address"),
        (with(|r| r.spec.name = "other".into()), 400, "swarm spec must be named \"default\""),
    ] {
        let refused = text(node.init(request).await, status);
        assert!(refused.starts_with(wanted), "{refused}");
    }
    assert_eq!(node.ping(), "inactive");
}

#[tokio::test]
async fn what_a_crash_left_of_an_init_is_cleared_away() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir_all(dir.path().join("raft/log")).unwrap();
    std::fs::create_dir_all(dir.path().join("certificates")).unwrap();
    std::fs::write(dir.path().join("certificates/swarm-node.key"), "half").unwrap();
    let (node, _) = node(dir.path()).await;
    assert_eq!(node.ping(), "inactive");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    node.init(request(free_port())).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn a_lost_key_is_an_error_that_is_shown_and_leaving_by_force_is_the_way_out() {
    let dir = TempDir::new().unwrap();
    let (first, _) = node(dir.path()).await;
    first.init(request(free_port())).await.unwrap();
    first.stop().await;
    std::fs::remove_file(dir.path().join("certificates/swarm-node.key")).unwrap();

    let (second, _) = node(dir.path()).await;
    let info = second.info().await;
    assert_eq!((second.ping(), info.state), ("error", LocalState::Error));
    assert!(info.error.contains("swarm-node.key"), "{}", info.error);
    let wanted =
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
    assert_eq!(text(second.control().map(drop), 503), wanted);
    assert!(dir.path().join("raft/log").exists(), "nothing is thrown away");
    assert!(text(second.leave(false).await, 503).contains("Doing so may lose the consensus of your cluster. "));
    second.leave(true).await.unwrap();
    assert_eq!(second.ping(), "inactive");
}

#[tokio::test]
async fn a_manager_whose_port_is_taken_comes_back_once_it_is_free() {
    let dir = TempDir::new().unwrap();
    let (first, _) = node(dir.path()).await;
    let port = free_port();
    first.init(request(port)).await.unwrap();
    first.stop().await;
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (second, _) = node(dir.path()).await;
    assert!(second.info().await.error.contains("Address already in use"));
    drop(taken);
    let mut status = second.status.subscribe();
    status.wait_for(|s| matches!(s, Status::Active(_))).await.unwrap();
    running_nodes(&second).await;
    second.stop().await;
}

/// Waits until the node's agent is in session.
async fn running_nodes(node: &Node) {
    let control = node.control().unwrap();
    let mut events = control.follow();
    while !control.snapshot().nodes().all(|n| n.status.state == NodeState::Ready) {
        events.next().await;
    }
}

#[tokio::test]
async fn a_certificate_that_ended_while_the_machine_was_off_is_renewed() {
    let dir = TempDir::new().unwrap();
    let (first, _) = node(dir.path()).await;
    let id = first.init(request(free_port())).await.unwrap();
    let cluster = first.control().unwrap().get_cluster().unwrap();
    first.stop().await;

    age(dir.path(), &cluster.root_ca);
    let (second, _) = node(dir.path()).await;
    renewed(&second).await;
    running_nodes(&second).await;
    let identity = kept(dir.path()).0;
    assert_eq!((identity.node, identity.has_expired(Timestamp::now())), (id, false));
    second.stop().await;
}

/// As if the node in `dir` had been off since 2020.
fn age(dir: &Path, root: &shoal_types::object::RootCa) {
    let (now, vault) = kept(dir);
    let subject = shoal_manager::ca::Subject { node: now.node, role: now.role, cluster: now.cluster };
    let key = rcgen::KeyPair::generate().unwrap();
    let long_ago: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let cert_pem = shoal_manager::ca::issue(root, &subject, &key, 0, long_ago).unwrap();
    let ended = Issued { cert_pem, key_pem: key.serialize_pem() };
    vault.keep(&Identity::new(ended, root.cert_pem.clone()).unwrap()).unwrap();
}

/// Waits until the node has a certificate that is valid.
async fn renewed(node: &Node) {
    let mut identity = node.local().unwrap().identity.subscribe();
    identity.wait_for(|i| !i.has_expired(Timestamp::now())).await.unwrap();
}

#[tokio::test]
async fn strangers_are_turned_away_at_the_door() {
    let dir = TempDir::new().unwrap();
    let (node, _) = node(dir.path()).await;
    let port = free_port();
    let id = node.init(request(port)).await.unwrap();
    let own = kept(dir.path()).0;
    let listen = format!("127.0.0.1:{port}");

    let call = async |identity: Identity| {
        let channel = Dialer::new(watch::channel(identity).1).channel(&listen).unwrap();
        let mut client = shoal_wire::proto::dispatcher_client::DispatcherClient::new(channel);
        let hello = Hello { description: Default::default(), session_id: String::new() };
        let session = client.session(shoal_wire::proto::SessionRequest::try_from(hello).unwrap()).await;
        session.map(drop).map_err(|status| status.to_string())
    };
    call(own.clone()).await.expect("our own certificate is good");

    // The right names from the wrong authority: neither side accepts the other.
    let root = shoal_manager::ca::new_root(Timestamp::now()).unwrap();
    let subject = shoal_manager::ca::Subject { node: id, role: own.role, cluster: own.cluster };
    let key = rcgen::KeyPair::generate().unwrap();
    let cert_pem = shoal_manager::ca::issue(&root, &subject, &key, 0, Timestamp::now()).unwrap();
    let issued = Issued { cert_pem, key_pem: key.serialize_pem() };
    let forged = Identity::new(issued.clone(), own.root_pem().to_owned()).unwrap();
    call(forged).await.expect_err("the server does not know the authority");
    let suspicious = Identity::new(issued, root.cert_pem).unwrap();
    call(suspicious).await.expect_err("the client does not know the authority");

    // A node of another cluster with the same authority.
    let authority = node.control().unwrap().get_cluster().unwrap().root_ca.clone();
    let other = shoal_manager::ca::Subject { cluster: "z".repeat(25).parse().unwrap(), ..subject };
    let cert_pem = shoal_manager::ca::issue(&authority, &other, &key, 0, Timestamp::now()).unwrap();
    let issued = Issued { cert_pem, key_pem: key.serialize_pem() };
    let refused = call(Identity::new(issued, own.root_pem().to_owned()).unwrap()).await.unwrap_err();
    assert!(refused.contains("remote certificate not part of organization"), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn log_lines_come_from_the_agent_and_end_when_it_has_no_more() {
    let dir = TempDir::new().unwrap();
    let (node, _) = node(dir.path()).await;
    node.init(request(free_port())).await.unwrap();
    let control = node.control().unwrap();
    let id = control.create_service(service("web", 2), None).await.unwrap();
    running(&node, "web", 2).await;
    let options = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
    let mut stream = control.service_logs(id, options.clone()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(line.unwrap());
    }
    let tasks = control.list_tasks(&Filters::default()).unwrap();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(tasks.iter().any(|t| t.id == line.task && t.service_id == line.service));
        assert_eq!(line.data, b"hello\n");
    }
    // Following does not end by itself, and sees tasks that come later.
    let mut stream = control.service_logs(id, LogOptions { follow: true, ..options }).await.unwrap();
    for _ in 0..2 {
        stream.next().await.unwrap().unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.next()).await.is_err());
    let web = control.get_service("web").unwrap();
    let update = ServiceUpdate { version: web.meta.version, ..ServiceUpdate::default() };
    control.update_service("web", service("web", 3), update).await.unwrap();
    let line = stream.next().await.unwrap().unwrap();
    assert_eq!(control.get_task(line.task.as_str()).unwrap().slot, 3);
    node.stop().await;
}
