//! One test for each refusal, by its text, and the calls that are not refused.

use std::collections::BTreeMap;

use shoal_types::spec::{Availability, ClusterSpec, Empty, NodeRole, NodeSpec, ServiceMode, UpdateState};
use shoal_types::{RefusalKind, View};
use shoal_wire::logs::LogOptions;

use super::*;
use crate::testing::{Fixture, service};

async fn fixture() -> Fixture {
    Fixture::new(ClusterSpec::initial()).await
}

fn filter(name: &str, value: &str) -> Filters {
    Filters::new(BTreeMap::from([(name.to_owned(), vec![value.to_owned()])]))
}

fn at(version: u64) -> ServiceUpdate {
    ServiceUpdate { version, ..ServiceUpdate::default() }
}

fn text<T: std::fmt::Debug>(result: Result<T, Refusal>, status: u16) -> String {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.kind.http_status(), status, "{refusal}");
    refusal.to_string()
}

#[tokio::test]
async fn a_client_reads_its_own_writes() {
    let f = fixture().await;
    let id = f.control.create_service(service("web", 2), Some("auth".into())).await.unwrap();
    let made = f.control.get_service("web").unwrap();
    assert_eq!((made.id, made.spec_version, made.registry_auth.as_deref()), (id, 0, Some("auth")));
    f.control.update_service(&id.as_str()[..8], service("web", 3), at(made.meta.version)).await.unwrap();
    let changed = f.control.get_service(id.as_str()).unwrap();
    assert_eq!(changed.spec.mode.replicas(), 3);
    assert_eq!(changed.previous_spec.as_deref(), Some(&*made.spec));
    assert_eq!((changed.spec_version, changed.previous_spec_version), (made.meta.version, Some(0)));
    assert_eq!(changed.registry_auth.as_deref(), Some("auth"), "credentials stay");
    assert!(changed.meta.version > made.meta.version);
    f.control.remove_service("web").await.unwrap();
    assert_eq!(text(f.control.get_service("web"), 404), "service web not found");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_in_any_case() {
    let f = fixture().await;
    f.control.create_service(service("web", 0), None).await.unwrap();
    let refused = text(f.control.create_service(service("Web", 0), None).await, 409);
    let wanted =
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service Web already exists";
    assert_eq!(refused, wanted);
}

#[tokio::test]
async fn a_spec_that_is_not_valid_is_refused_before_anything_is_written() {
    let f = fixture().await;
    let index = f.control.snapshot().index();
    let refused = text(f.control.create_service(service("a.b", 0), None).await, 400);
    assert_eq!(refused, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component");
    assert_eq!(f.control.snapshot().services().count(), 0);
    assert!(f.control.snapshot().index() >= index);
}

#[tokio::test]
async fn an_update_with_an_old_version_is_out_of_sequence() {
    let f = fixture().await;
    f.control.create_service(service("web", 0), None).await.unwrap();
    let version = f.control.get_service("web").unwrap().meta.version;
    f.control.update_service("web", service("web", 0), at(version)).await.unwrap();
    let refused = text(f.control.update_service("web", service("web", 0), at(version)).await, 500);
    assert_eq!(refused, "rpc error: code = Unknown desc = update out of sequence");
}

#[tokio::test]
async fn a_service_keeps_its_name_and_its_mode() {
    let f = fixture().await;
    f.control.create_service(service("web", 0), None).await.unwrap();
    let version = f.control.get_service("web").unwrap().meta.version;
    let renamed = f.control.update_service("web", service("other", 0), at(version)).await;
    assert_eq!(text(renamed, 501), "rpc error: code = Unimplemented desc = renaming services is not supported");
    let mut global = service("web", 0);
    global.mode = ServiceMode { global: Some(Empty {}), ..ServiceMode::default() };
    let changed = f.control.update_service("web", global, at(version)).await;
    assert_eq!(text(changed, 501), "rpc error: code = Unimplemented desc = service mode change is not allowed");
}

#[tokio::test]
async fn a_rollback_changes_places_with_the_previous_spec_and_needs_one() {
    let f = fixture().await;
    let id = f.control.create_service(service("web", 0), None).await.unwrap();
    let back = |version| ServiceUpdate { is_rollback: true, ..at(version) };
    let first = f.control.get_service("web").unwrap();
    let refused = text(f.control.update_service("web", service("web", 0), back(first.meta.version)).await, 400);
    let wanted = format!("rpc error: code = InvalidArgument desc = service {id} does not have a previous spec");
    assert_eq!(refused, wanted);

    let mut spec = service("web", 0);
    spec.labels.insert("round".into(), "2".into());
    f.control.update_service("web", spec, at(first.meta.version)).await.unwrap();
    let second = f.control.get_service("web").unwrap();
    f.control.update_service("web", service("web", 0), back(second.meta.version)).await.unwrap();
    f.until(|s| s.service(id).is_some_and(|s| s.spec == first.spec)).await;
    let third = f.control.get_service("web").unwrap();
    assert_eq!((third.spec_version, third.previous_spec_version), (first.spec_version, Some(second.spec_version)));
    let status = third.update_status.clone().unwrap();
    assert!(matches!(status.state, UpdateState::RollbackStarted | UpdateState::RollbackCompleted));
    // The planner may write the service at any moment; as any client, read and try again.
    loop {
        let now = f.control.get_service("web").unwrap();
        match f.control.update_service("web", service("web", 0), back(now.meta.version)).await {
            Ok(()) => break,
            Err(refusal) => assert_eq!(refusal, Refusal::out_of_sequence()),
        }
    }
    f.until(|s| s.service(id).is_some_and(|s| s.spec == second.spec)).await;
}

#[tokio::test]
async fn credentials_of_a_previous_spec_need_one() {
    let f = fixture().await;
    f.control.create_service(service("web", 0), Some("old".into())).await.unwrap();
    let version = f.control.get_service("web").unwrap().meta.version;
    let previous = |version| ServiceUpdate { registry_auth_from: AuthFrom::PreviousSpec, ..at(version) };
    let refused = f.control.update_service("web", service("web", 0), previous(version)).await;
    assert_eq!(text(refused, 500), "service does not have a previous spec");
    let new = ServiceUpdate { registry_auth: Some("new".into()), ..at(version) };
    f.control.update_service("web", service("web", 0), new).await.unwrap();
    let version = f.control.get_service("web").unwrap().meta.version;
    f.control.update_service("web", service("web", 0), previous(version)).await.unwrap();
    assert_eq!(f.control.get_service("web").unwrap().registry_auth.as_deref(), Some("old"));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let f = fixture().await;
    assert_eq!(text(f.control.update_service("x", service("x", 0), at(1)).await, 404), "service x not found");
    assert_eq!(text(f.control.remove_service("x").await, 404), "service x not found");
    assert_eq!(text(f.control.get_task("x"), 404), "task x not found");
    assert_eq!(text(f.control.get_node("x"), 404), "node x not found");
    assert_eq!(text(f.control.update_node("x", 1, NodeSpec::default()).await, 404), "node x not found");
    assert_eq!(text(f.control.remove_node("x", true).await, 404), "node x not found");
    assert_eq!(text(f.control.list_tasks(&filter("service", "x")), 404), "service x not found");
    assert_eq!(text(f.control.list_tasks(&filter("node", "x")), 404), "node x not found");
}

#[tokio::test]
async fn filters_that_are_not_known_or_not_readable_are_refused() {
    let f = fixture().await;
    assert_eq!(text(f.control.list_services(&filter("foo", "x")), 400), "invalid filter 'foo'");
    assert_eq!(text(f.control.list_tasks(&filter("foo", "x")), 400), "invalid filter 'foo'");
    assert_eq!(text(f.control.list_nodes(&filter("foo", "x")), 400), "invalid filter 'foo'");
    let state = f.control.list_tasks(&filter("desired-state", "x"));
    assert_eq!(text(state, 500), "Invalid desired-state filter: 'x'");
    assert_eq!(text(f.control.list_nodes(&filter("role", "x")), 500), "Invalid role filter: 'x'");
    assert_eq!(text(f.control.list_nodes(&filter("membership", "x")), 500), "Invalid membership filter: 'x'");
}

#[tokio::test]
async fn lists_are_filtered() {
    let f = fixture().await;
    let mut spec = service("web", 2);
    spec.labels.insert("a".into(), "1".into());
    let web = f.control.create_service(spec, None).await.unwrap();
    f.control.create_service(service("db", 1), None).await.unwrap();
    f.until(|s| s.tasks().count() == 3).await;
    let services = |name, value| f.control.list_services(&filter(name, value)).unwrap().len();
    assert_eq!(services("name", "we"), 1);
    assert_eq!(services("label", "a=1"), 1);
    assert_eq!(services("label", "a=2"), 0);
    assert_eq!(services("mode", "replicated"), 2);
    assert_eq!(services("mode", "global"), 0);
    assert_eq!(services("id", &web.as_str()[..10]), 1);
    assert_eq!(services("runtime", "plugin"), 0);
    let tasks = |name, value| f.control.list_tasks(&filter(name, value)).unwrap().len();
    assert_eq!(tasks("service", "web"), 2);
    assert_eq!(tasks("service", web.as_str()), 2);
    assert_eq!(tasks("name", "web.2"), 1);
    assert_eq!(tasks("label", "a"), 2);
    assert_eq!(tasks("desired-state", "RUNNING"), 3);
    assert_eq!(tasks("desired-state", "shutdown"), 0);
    assert_eq!(tasks("_up-to-date", "true"), 3);
    assert_eq!(tasks("node", f.node.as_str()), 0);
    let nodes = |name, value| f.control.list_nodes(&filter(name, value)).unwrap().len();
    assert_eq!((nodes("role", "Manager"), nodes("role", "worker")), (1, 0));
    assert_eq!((nodes("membership", "accepted"), nodes("membership", "pending")), (1, 0));
    assert_eq!(f.control.service_status(&f.control.get_service("web").unwrap()).desired_tasks, 2);
}

#[tokio::test]
async fn a_node_can_be_drained_and_labelled_and_the_last_manager_stays() {
    let f = fixture().await;
    let node = f.control.get_node(f.node.as_str()).unwrap();
    let spec = NodeSpec { availability: Availability::Drain, ..node.spec.clone() };
    f.control.update_node(f.node.as_str(), node.meta.version, spec.clone()).await.unwrap();
    assert_eq!(f.control.get_node(f.node.as_str()).unwrap().spec, spec);
    let again = f.control.update_node(f.node.as_str(), node.meta.version, spec).await;
    assert_eq!(text(again, 500), "rpc error: code = Unknown desc = update out of sequence");
    let demoted = NodeSpec { role: NodeRole::Worker, ..node.spec.clone() };
    let refused = f.control.update_node(f.node.as_str(), node.meta.version, demoted).await;
    let wanted = "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm";
    assert_eq!(text(refused, 400), wanted);
    let status = f.control.manager_status(f.node).unwrap();
    assert!(status.is_leader && status.addr == "10.0.0.1:2377" && status.reachability == Reachability::Reachable);
}

#[tokio::test]
async fn a_manager_cannot_be_removed() {
    let f = fixture().await;
    let refused = text(f.control.remove_node(f.node.as_str(), true).await, 400);
    let wanted = format!(
        "rpc error: code = FailedPrecondition desc = node {} is a cluster manager and is a member of the raft cluster. \
         It must be demoted to worker before removal",
        f.node
    );
    assert_eq!(refused, wanted);
}

#[tokio::test]
async fn a_worker_in_session_is_removed_only_by_force() {
    let f = fixture().await;
    let worker = shoal_types::NodeId::new(&mut crate::ids::RandomIds);
    let manager = f.control.get_node(f.node.as_str()).unwrap();
    let mut object = manager.as_ref().clone();
    (object.id, object.role, object.spec.role) = (worker, NodeRole::Worker, NodeRole::Worker);
    object.status.state = shoal_types::object::NodeState::Ready;
    let put = shoal_types::Change::Put(shoal_types::Object::Node(object.into()));
    f.raft.write(|tx: &mut shoal_raft::Tx| tx.change(put)).await.unwrap();
    let refused = text(f.control.remove_node(worker.as_str(), false).await, 400);
    let wanted = format!("rpc error: code = FailedPrecondition desc = node {worker} is not down and can't be removed");
    assert_eq!(refused, wanted);
    f.control.remove_node(worker.as_str(), true).await.unwrap();
    assert!(f.control.get_node(worker.as_str()).is_err());
}

#[tokio::test]
async fn tokens_are_rotated_one_at_a_time() {
    let f = fixture().await;
    let before = f.control.get_cluster().unwrap();
    let rotate = Rotate { worker_token: true, ..Rotate::default() };
    let update = |version| ClusterUpdate { version, spec: ClusterSpec::initial(), rotate };
    f.control.update_cluster(update(before.meta.version)).await.unwrap();
    let after = f.control.get_cluster().unwrap();
    assert_ne!(before.root_ca.worker_token, after.root_ca.worker_token);
    assert_eq!(before.root_ca.worker_token[..60], after.root_ca.worker_token[..60], "only the secret is new");
    assert_eq!(before.root_ca.manager_token, after.root_ca.manager_token);
    let again = f.control.update_cluster(update(before.meta.version)).await;
    assert_eq!(text(again, 500), "rpc error: code = Unknown desc = update out of sequence");
}

#[tokio::test]
async fn a_locked_cluster_has_a_key_until_it_is_unlocked_and_the_name_stays() {
    let f = fixture().await;
    let mut spec = ClusterSpec::initial();
    let update = |spec: &ClusterSpec, rotate: Rotate| ClusterUpdate {
        version: f.control.get_cluster().unwrap().meta.version,
        spec: spec.clone(),
        rotate,
    };
    assert_eq!(f.control.unlock_key().unwrap(), "");
    spec.encryption_config.auto_lock_managers = true;
    f.control.update_cluster(update(&spec, Rotate::default())).await.unwrap();
    let first = f.control.unlock_key().unwrap();
    assert!(first.starts_with("SWMKEY-1-"), "{first}");
    f.control.update_cluster(update(&spec, Rotate { unlock_key: true, ..Rotate::default() })).await.unwrap();
    assert_ne!(f.control.unlock_key().unwrap(), first);
    f.control.update_cluster(update(&ClusterSpec::initial(), Rotate::default())).await.unwrap();
    assert_eq!(f.control.unlock_key().unwrap(), "");
    let named = ClusterSpec { name: "x".into(), ..ClusterSpec::initial() };
    let wanted = "rpc error: code = InvalidArgument desc = modification of cluster name is not allowed";
    assert_eq!(text(f.control.update_cluster(update(&named, Rotate::default())).await, 400), wanted);
}

#[tokio::test]
async fn logs_need_a_stream_and_say_what_is_missing() {
    let f = fixture().await;
    let id = f.control.create_service(service("web", 1), None).await.unwrap();
    let none = f.control.service_logs(id, LogOptions::default()).await.map(drop);
    assert_eq!(text(none, 400), "must specify at least one of 'stdout' or 'stderr'");
    f.until(|s| s.tasks().count() == 1).await;
    let task = f.control.snapshot().tasks().next().unwrap().id;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let mut stream = f.control.task_logs(task, options).await.unwrap();
    let end = stream.next().await.unwrap().unwrap_err().to_string();
    assert!(end.ends_with(&format!("reasons: task {task} has not been scheduled")), "{end}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn without_consensus_calls_are_refused_in_time() {
    let f = fixture().await;
    f.raft.stop().await;
    let refused = f.control.create_service(service("web", 1), None).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Unknown);
    assert!(refused.message.starts_with("The swarm does not have a leader."), "{refused}");
    assert!(f.control.get_cluster().is_ok(), "reading goes on");
}

#[tokio::test]
async fn events_say_what_changed() {
    let f = fixture().await;
    let mut events = f.control.events();
    f.control.create_service(service("web", 0), None).await.unwrap();
    let created = events.next().await;
    assert_eq!((created.object, created.action), (EventObject::Service, EventAction::Create));
    assert_eq!(created.attributes, BTreeMap::from([("name".to_owned(), "web".to_owned())]));
    let version = f.control.get_service("web").unwrap().meta.version;
    f.control.update_service("web", service("web", 2), at(version)).await.unwrap();
    let updated = events.next().await;
    assert_eq!(updated.attributes["replicas.old"], "0");
    assert_eq!(updated.attributes["replicas.new"], "2");
    f.control.remove_service("web").await.unwrap();
    loop {
        let event = events.next().await;
        if event.action == EventAction::Remove {
            assert_eq!(event.id, created.id);
            break;
        }
    }
}
