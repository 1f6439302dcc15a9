use std::sync::Arc;

use proptest::prelude::*;
use shoal_types::id::SecretKind;
use shoal_types::object::{NodeDescription, NodeState, NodeStatus, TaskStatus};
use shoal_types::spec::{Annotations, ContainerSpec, NodeRole, NodeSpec, PayloadSpec, ServiceSpec, TaskSpec};
use shoal_types::{
    Config, Id, Meta, Node, NodeId, Refusal, RefusalKind, Secret, Service, ServiceId, Settled, TaskId, TaskState,
};

use super::*;

fn id<K>(n: u64) -> Id<K> {
    format!("{n:0>25}").parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn service(n: u64, name: &str) -> Object {
    let spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
    Object::Service(Arc::new(Service {
        id: id(n),
        meta: Meta::default(),
        spec: Arc::new(spec),
        previous_spec: None,
        previous_spec_version: None,
        spec_version: 0,
        registry_auth: None,
        previous_registry_auth: None,
        update_status: None,
        job_status: None,
    }))
}

fn node(n: u64, hostname: &str) -> Object {
    Object::Node(Arc::new(Node {
        id: id(n),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        role: NodeRole::Worker,
        description: Some(Arc::new(NodeDescription { hostname: hostname.into(), ..NodeDescription::default() })),
        status: NodeStatus::default(),
        manager_addr: None,
        wanted_issuer: None,
    }))
}

fn secret(n: u64, name: &str) -> Object {
    let data = b"s3cr3t".to_vec().into();
    let spec = PayloadSpec { name: name.into(), data, ..PayloadSpec::default() };
    Object::Secret(Arc::new(Secret { id: id(n), meta: Meta::default(), spec: Arc::new(spec) }))
}

fn config(n: u64, name: &str) -> Object {
    let spec = PayloadSpec { name: name.into(), ..PayloadSpec::default() };
    Object::Config(Arc::new(Config { id: id(n), meta: Meta::default(), spec: Arc::new(spec) }))
}

fn task_of(n: u64, service: u64, node: Option<u64>) -> Task {
    let container = ContainerSpec { image: format!("image-{service}"), ..ContainerSpec::default() };
    Task {
        id: id(n),
        meta: Meta::default(),
        service_id: id(service),
        slot: n,
        node_id: node.map(id),
        annotations: Arc::new(Annotations { name: format!("s{service}"), labels: Default::default() }),
        spec: Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() }),
        spec_version: 1,
        endpoint: None,
        registry_auth: Some("token".into()),
        status: TaskStatus::default(),
        desired_state: TaskState::Running,
        job_iteration: None,
        assigned_generic: Vec::new(),
    }
}

fn task(n: u64, service: u64, node: Option<u64>) -> Change {
    Change::Put(Object::Task(Arc::new(task_of(n, service, node))))
}

fn status(n: u64, state: TaskState) -> Change {
    Change::Patch(TaskPatch { status: Some(TaskStatus { state, ..TaskStatus::default() }), ..TaskPatch::of(id(n)) })
}

fn store(changes: &[Change]) -> Store {
    let mut store = Store::new();
    store.apply(1, at(1), changes);
    store
}

#[test]
fn a_write_stamps_all_its_objects_with_its_index_and_keeps_the_time_of_creation() {
    let mut store = store(&[Change::Put(service(1, "web")), task(1, 1, None)]);
    store.apply(7, at(70), &[Change::Put(service(1, "web")), status(1, TaskState::Pending)]);
    let meta = Meta { version: 7, wanted: 7, created_at: at(1), updated_at: at(70) };
    let now = store.snapshot();
    assert_eq!(now.service(id(1)).unwrap().meta, Meta { wanted: 1, ..meta });
    assert_eq!(now.task(id(1)).unwrap().meta, meta);
    assert_eq!(now.index(), 7);
}

#[test]
fn what_the_cluster_writes_does_not_outdate_what_a_client_has_seen_and_another_client_does() {
    let of = |state, role| {
        let Object::Node(mut new) = node(1, "a") else { unreachable!("it is a node") };
        let it = Arc::make_mut(&mut new);
        (it.status.state, it.spec.role) = (state, role);
        Change::Put(Object::Node(new))
    };
    let mut store = store(&[of(NodeState::Unknown, NodeRole::Worker)]);
    store.apply(5, at(5), &[of(NodeState::Ready, NodeRole::Worker)]);
    let seen_current =
        |store: &Store| [1, 5, 8].map(|seen| store.snapshot().node(id(1)).unwrap().meta.is_current(seen));
    assert_eq!(seen_current(&store), [true, true, false]);
    store.apply(8, at(8), &[of(NodeState::Ready, NodeRole::Manager)]);
    assert_eq!(seen_current(&store), [false, false, true]);
    let mut tx = Tx::new(&store.snapshot());
    tx.change(of(NodeState::Ready, NodeRole::Worker)).unwrap();
    assert!(!tx.node(id(1)).unwrap().meta.is_current(8), "the first update of a transaction outdates the second");
}

#[test]
fn events_carry_the_object_before_and_after() {
    let mut store = store(&[task(1, 1, None)]);
    let events = store.apply(2, at(2), &[status(1, TaskState::Assigned), Change::Remove(ObjectKind::Task(id(1)))]);
    let [Event::Task(patched), Event::Task(removed)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(patched.before.as_ref().unwrap().status.state, TaskState::New);
    assert_eq!(patched.after.as_ref().unwrap().status.state, TaskState::Assigned);
    assert_eq!(removed.before, patched.after);
    assert_eq!(removed.after, None);
}

#[test]
fn a_change_without_effect_makes_no_event_and_keeps_the_version() {
    let mut store = store(&[task(1, 1, None), status(1, TaskState::Running)]);
    let late = [
        status(1, TaskState::Starting),
        status(9, TaskState::Running),
        TaskPatch::desire(id(1), TaskState::Ready),
        Change::Remove(ObjectKind::Node(id(1))),
    ];
    assert_eq!(store.apply(2, at(2), &late), vec![]);
    assert_eq!(store.snapshot().task(id(1)).unwrap().meta.version, 1);
}

#[test]
fn a_snapshot_does_not_move_when_the_store_does() {
    let mut store = store(&[task(1, 1, Some(1))]);
    let before = store.snapshot();
    store.apply(2, at(2), &[Change::Remove(ObjectKind::Task(id(1))), task(2, 1, Some(1))]);
    assert_eq!(before.tasks_on(id(1)).map(|t| t.id).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(store.snapshot().tasks_on(id(1)).map(|t| t.id).collect::<Vec<_>>(), [id(2)]);
}

#[test]
fn tasks_of_one_service_and_spec_version_share_their_template() {
    let store = store(&[task(1, 1, None), task(2, 1, None), task(3, 2, None)]);
    let now = store.snapshot();
    let [a, b, c] = [1, 2, 3].map(|n| now.task(id(n)).unwrap());
    assert!(Arc::ptr_eq(&a.spec, &b.spec) && Arc::ptr_eq(&a.annotations, &b.annotations));
    assert!(Arc::ptr_eq(a.registry_auth.as_ref().unwrap(), b.registry_auth.as_ref().unwrap()));
    assert!(!Arc::ptr_eq(&a.spec, &c.spec));
}

#[test]
fn a_task_whose_template_differs_keeps_its_own() {
    let mut odd = task_of(2, 1, None);
    odd.spec = Arc::new(TaskSpec { force_update: 9, ..(*odd.spec).clone() });
    let store = store(&[task(1, 1, None), Change::Put(Object::Task(Arc::new(odd))), task(3, 1, None)]);
    assert_eq!(store.snapshot().task(id(2)).unwrap().spec.force_update, 9);
    assert_eq!(store.snapshot().task(id(3)).unwrap().spec.force_update, 0);
}

#[test]
fn a_service_is_found_by_its_name_in_any_case_until_it_is_renamed_or_removed() {
    let mut store = store(&[Change::Put(service(1, "Web"))]);
    assert!(store.snapshot().service_named("wEB").is_some());
    store.apply(2, at(2), &[Change::Put(service(1, "api"))]);
    assert!(store.snapshot().service_named("web").is_none());
    store.apply(3, at(3), &[Change::Remove(ObjectKind::Service(id(1)))]);
    assert!(store.snapshot().service_named("api").is_none());
}

#[test]
fn what_a_transaction_has_written_has_no_version_that_anybody_has_seen() {
    let store = store(&[Change::Put(service(1, "a")), Change::Put(node(2, "b"))]);
    let mut tx = Tx::new(&store.snapshot());
    let seen = (tx.service(id(1)).unwrap().meta.version, tx.node(id(2)).unwrap().meta.version);
    tx.change(Change::Put(service(1, "a"))).unwrap();
    tx.change(Change::Put(node(2, "c"))).unwrap();
    let now = (tx.service(id(1)).unwrap().meta.version, tx.node(id(2)).unwrap().meta.version);
    assert!(now.0 > seen.0 && now.1 > seen.1, "{seen:?} {now:?}");
}

#[test]
fn a_transaction_refuses_a_name_that_is_taken_in_another_case() {
    let mut tx = Tx::new(&store(&[Change::Put(service(1, "web"))]).snapshot());
    let refusal = Refusal::from(tx.change(Change::Put(service(2, "Web"))).unwrap_err());
    assert_eq!(refusal.kind, RefusalKind::AlreadyExists);
    assert_eq!(
        refusal.to_string(),
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service Web already exists"
    );
    tx.change(Change::Remove(ObjectKind::Service(id(1)))).unwrap();
    tx.change(Change::Put(service(2, "Web"))).unwrap();
}

#[test]
fn what_came_of_requests_survives_a_snapshot_and_the_first_word_stays() {
    let settled = |n: u64, text: &str| Change::Settle(Settled { request: id(n), outcome: text.into() });
    let mut store = Store::new();
    assert!(store.apply(1, at(1), &[settled(2, "a"), settled(1, "b"), settled(2, "c")]).is_empty());
    let read = Snapshot::decode(&store.snapshot().encode()).unwrap();
    assert_eq!(read.encode(), store.snapshot().encode());
    assert_eq!((read.outcome_of(id(2)).map(|o| &**o), read.outcome_of(id(3))), (Some("a"), None));
    let mut tx = Tx::new(&read);
    tx.change(settled(2, "d")).unwrap();
    assert!(tx.changes().is_empty());
    tx.change(settled(3, "e")).unwrap();
    assert_eq!((tx.outcome_of(id(3)).map(|o| &**o), tx.changes().len()), (Some("e"), 1));
}

#[test]
fn secrets_and_configs_have_names_of_their_own_and_survive_a_snapshot() {
    let now = store(&[secret(1, "Pass"), config(1, "Pass"), secret(2, "other")].map(Change::Put)).snapshot();
    assert_eq!(now.secret_named("pASS").map(|s| s.id), Some(id(1)));
    assert_eq!(now.secrets().map(|s| s.id).collect::<Vec<_>>(), [id(1), id(2)]);
    let mut tx = Tx::new(&now);
    let refusal = Refusal::from(tx.change(Change::Put(config(2, "pass"))).unwrap_err());
    assert_eq!(refusal.to_string(), "rpc error: code = AlreadyExists desc = config pass already exists");
    tx.change(Change::Put(secret(1, "Pass"))).unwrap();
    tx.change(Change::Remove(ObjectKind::Secret(id(1)))).unwrap();
    tx.change(Change::Put(secret(3, "pass"))).unwrap();
    let read = Snapshot::decode(&now.encode()).unwrap();
    assert_eq!(read.secret(id(1)), now.secret(id(1)));
    assert_eq!(read.config_named("pass"), now.config(id(1)));
    let found = |input: &str| resolve::payload::<SecretKind>(&now, input).map(|s| s.id);
    assert_eq!(found("Pass"), Ok(id(1)));
    assert_eq!(found("pass").unwrap_err().to_string(), "secret pass not found");
    assert_eq!(found("000").unwrap_err().to_string(), "secret 000 is ambiguous (2 matches found)");
}

#[test]
fn a_part_of_a_transaction_that_fails_leaves_nothing() {
    let mut tx = Tx::new(&store(&[Change::Put(service(1, "web"))]).snapshot());
    tx.change(task(1, 1, None)).unwrap();
    tx.extend([task(2, 1, None), Change::Put(service(2, "web"))]).unwrap_err();
    assert!(tx.task(id(2)).is_none());
    assert_eq!(tx.tasks_of(id(1)).count(), 1);
    tx.change(status(1, TaskState::Running)).unwrap();
    assert_eq!(tx.into_changes(), [task(1, 1, None), status(1, TaskState::Running)]);
}

#[test]
fn the_whole_identifier_wins_over_a_name_and_a_name_over_a_prefix() {
    let first: ServiceId = id(1);
    let changes = [service(1, "web"), service(2, first.as_str()), service(3, "00")].map(Change::Put);
    let now = store(&changes).snapshot();
    let found = |input: &str| resolve::service(&now, input).map(|s| s.id);
    assert_eq!(found(first.as_str()), Ok(first));
    assert_eq!(found("web"), Ok(id(1)));
    assert_eq!(found("00"), Ok(id(3)));
    assert_eq!(found(&id::<()>(3).as_str()[..25]), Ok(id(3)));
    assert_eq!(found("000").unwrap_err().to_string(), "service 000 is ambiguous (3 matches found)");
    assert_eq!(found("WEB").unwrap_err().to_string(), "service WEB not found");
    assert_eq!(found("").unwrap_err().kind, RefusalKind::NotFound);
}

#[test]
fn a_node_goes_by_its_host_name_and_a_task_by_its_computed_name() {
    let now = store(&[
        Change::Put(node(1, "a")),
        Change::Put(node(2, "twin")),
        Change::Put(node(3, "twin")),
        task(1, 1, None),
        task(10, 1, None),
    ])
    .snapshot();
    assert_eq!(resolve::node(&now, "a").unwrap().id, id(1));
    assert_eq!(resolve::node(&now, "twin").unwrap_err().to_string(), "node twin is ambiguous (2 matches found)");
    let name = shoal_types::name::task_name(now.task(id(1)).unwrap());
    assert_eq!(resolve::task(&now, &name).unwrap().id, id(1));
    assert_eq!(resolve::task(&now, &name.replace("s1", "s2")).unwrap_err().kind, RefusalKind::NotFound);
    assert_eq!(resolve::task(&now, id::<()>(10).as_str()).unwrap().id, id(10));
}

#[test]
fn a_snapshot_survives_its_bytes_however_they_are_cut_and_templates_stay_shared() {
    let mut store = store(&[Change::Put(service(1, "web")), Change::Put(node(1, "a"))]);
    let tasks: Vec<_> = (0..50).map(|n| task(n, n % 2, Some(1))).collect();
    store.apply(9, at(9), &tasks);
    let now = store.snapshot();
    let bytes = now.encode();
    assert_eq!(now.encode_pieces(100).flatten().collect::<Vec<_>>(), bytes);
    for size in [1, 7, 1000, bytes.len()] {
        let mut decoder = Decoder::default();
        bytes.chunks(size).for_each(|piece| decoder.feed(piece).unwrap());
        let read = decoder.finish().unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.check(), Ok(()));
        let [a, b] = [2, 4].map(|n| &read.task(id(n)).unwrap().spec);
        assert!(Arc::ptr_eq(a, b));
    }
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("image-1").count(), 1);
}

#[test]
fn a_store_restored_from_a_snapshot_goes_on_sharing() {
    let read = Snapshot::decode(&store(&[task(1, 1, None)]).snapshot().encode()).unwrap();
    let mut restored = Store::from(read);
    restored.apply(2, at(2), &[task(2, 1, None)]);
    let now = restored.snapshot();
    assert!(Arc::ptr_eq(&now.task(id(1)).unwrap().spec, &now.task(id(2)).unwrap().spec));
}

#[test]
fn damaged_cut_and_foreign_snapshots_are_refused() {
    let bytes = store(&[task(1, 1, None), task(2, 1, None)]).snapshot().encode();
    let decode = |bytes: &[u8]| Snapshot::decode(bytes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(decode(b""), "the snapshot ends early, after 0 lines");
    assert_eq!(decode(&bytes[..bytes.len() - 1]), "the snapshot ends early, after 4 lines");
    let lines: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').collect();
    let without = |skip: usize| lines.iter().enumerate().filter(move |(n, _)| *n != skip).flat_map(|(_, l)| l.to_vec());
    assert_eq!(decode(&without(0).collect::<Vec<_>>()), "line 1 of the snapshot is out of place");
    assert_eq!(decode(&without(1).collect::<Vec<_>>()), "line 2 of the snapshot is out of place");
    assert_eq!(decode(&without(3).collect::<Vec<_>>()), "the snapshot ends early, after 3 lines");
    assert_eq!(
        decode(b"{\"Head\":{\"format\":2,\"index\":1}}\n"),
        "the snapshot has format 2, this version reads format 1"
    );
    assert_eq!(decode(b"nonsense\n"), "line 1 of the snapshot is damaged");
}

fn changes() -> impl Strategy<Value = Change> {
    let states = prop::sample::select(TaskState::ALL.to_vec());
    prop_oneof![
        (0..12u64, 0..3u64, prop::option::of(0..3u64)).prop_map(|(n, s, node)| task(n, s, node)),
        (0..12u64, states.clone()).prop_map(|(n, state)| status(n, state)),
        (0..12u64, states).prop_map(|(n, state)| TaskPatch::desire(id(n), state)),
        (0..12u64, 0..3u64)
            .prop_map(|(n, node)| Change::Patch(TaskPatch { node_id: Some(id(node)), ..TaskPatch::of(id(n)) })),
        (0..3u64, 0..9u64).prop_map(|(n, name)| Change::Put(service(n, &format!("s{n}-{name}")))),
        (0..12u64).prop_map(|n| Change::Remove(ObjectKind::Task(id(n)))),
        (0..3u64).prop_map(|n| Change::Remove(ObjectKind::Service(id(n)))),
        (0..3u64).prop_map(|n| Change::Put(node(n, "host"))),
        (0..3u64, 0..9u64).prop_map(|(n, name)| Change::Put(secret(n, &format!("s{n}-{name}")))),
        (0..3u64).prop_map(|n| Change::Put(config(n, &format!("c{n}")))),
        (0..3u64).prop_map(|n| Change::Remove(ObjectKind::Secret(id(n)))),
        (0..3u64).prop_map(|n| Change::Remove(ObjectKind::Config(id(n)))),
        (0..3u64).prop_map(|n| Change::Remove(ObjectKind::Node(id(n)))),
    ]
}

proptest! {
    #[test]
    fn indexes_agree_with_tables_and_a_transaction_foresees_what_is_applied(
        batches in prop::collection::vec(prop::collection::vec(changes(), 0..8), 0..8)
    ) {
        let (mut store, mut replica) = (Store::new(), Store::new());
        for (index, batch) in (1..).zip(&batches) {
            let mut tx = Tx::new(&store.snapshot());
            tx.extend(batch.clone()).unwrap();
            let before: Vec<_> = store.snapshot().tasks().map(|t| (t.id, t.desired_state, t.status.state)).collect();
            let events = store.apply(index, at(index.cast_signed()), batch);
            prop_assert_eq!(replica.apply(index, at(index.cast_signed()), tx.changes()), events);
            let now = store.snapshot();
            prop_assert_eq!(now.check(), Ok(()));
            prop_assert_eq!(replica.snapshot().encode(), now.encode());
            let bare = |t: &Arc<Task>| Task { meta: Meta::default(), ..(**t).clone() };
            prop_assert_eq!(tx.tasks().map(bare).collect::<Vec<_>>(), now.tasks().map(bare).collect::<Vec<_>>());
            let replaced = |t: TaskId| batch.iter().any(|c| match c {
                Change::Put(Object::Task(put)) => put.id == t,
                _ => false,
            });
            for (id, desired, state) in before.into_iter().filter(|(id, ..)| !replaced(*id)) {
                if let Some(task) = now.task(id) {
                    prop_assert!(task.desired_state >= desired && task.status.state >= state);
                }
            }
        }
        let read = Snapshot::decode(&store.snapshot().encode()).unwrap();
        prop_assert_eq!(read.encode(), store.snapshot().encode());
        prop_assert_eq!(read.check(), Ok(()));
    }
}

#[test]
fn nodes_are_listed_in_the_order_of_their_identifiers() {
    let now = store(&[3, 1, 2].map(|n| Change::Put(node(n, "x")))).snapshot();
    assert_eq!(now.nodes().map(|n| n.id).collect::<Vec<NodeId>>(), [1, 2, 3].map(id));
}

/// As the log holds a list of changes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Logged(#[serde(with = "crate::packed")] Arc<[Change]>);

#[test]
fn a_list_of_changes_survives_the_log_and_holds_each_template_once() {
    let template = task_of(1, 1, None);
    let like = |n: u64| Change::Put(Object::Task(Arc::new(Task { id: id(n), slot: n, ..template.clone() })));
    let other =
        [Change::Put(service(1, "web")), status(2, TaskState::Running), Change::Remove(ObjectKind::Task(id(1)))];
    let changes: Vec<_> = (1..=50).map(like).chain(other).chain([task(51, 2, Some(1)), like(52)]).collect();
    let text = serde_json::to_string(&Logged(changes.clone().into())).unwrap();
    assert_eq!((text.matches("image-1").count(), text.matches("image-2").count()), (1, 1));
    let Logged(read) = serde_json::from_str(&text).unwrap();
    assert_eq!(*read, changes);
    let [Change::Put(Object::Task(first)), .., Change::Put(Object::Task(last))] = &*read else { unreachable!() };
    assert!(Arc::ptr_eq(&first.spec, &last.spec));
}

#[test]
fn a_list_without_templates_is_read_and_one_without_its_template_is_not() {
    let plain = vec![task(1, 1, None), status(1, TaskState::Ready)];
    let Logged(read) = serde_json::from_str(&serde_json::to_string(&plain).unwrap()).unwrap();
    assert_eq!(*read, plain);
    let packed = serde_json::to_value(Logged(plain.into())).unwrap();
    let rows = packed.as_array().unwrap();
    assert!(rows[0].get("Template").is_some());
    assert!(serde_json::from_value::<Logged>(rows[1..].into()).is_err());
}
