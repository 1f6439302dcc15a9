//! Where tasks go, and what those that go nowhere are told.

use shoal_types::generic;
use shoal_types::object::NodeState;
use shoal_types::spec::{EndpointSpec, NodeRole, PortConfig, PublishMode};

use crate::support::*;

fn publishing(mut spec: shoal_types::spec::ServiceSpec, port: u32) -> shoal_types::spec::ServiceSpec {
    let port =
        PortConfig { target_port: 80, published_port: port, publish_mode: PublishMode::Host, ..PortConfig::default() };
    spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    spec
}

#[test]
fn item_33_a_constraint_that_no_node_satisfies_is_named_with_the_number_of_nodes() {
    let (mut world, nodes) = World::new(3);
    let web = world.create(constrained(service(2), &["node.labels.zone==mars"]));
    assert_eq!(world.reasons(web), ["no suitable node (scheduling constraints not satisfied on 3 nodes)"]);
    world.label(nodes[1], "zone", "mars");
    assert_eq!(world.spread(web), [0, 2, 0]);
}

#[test]
fn item_34_more_memory_than_any_node_has_is_said_to_be_too_much() {
    let (mut world, _) = World::new(2);
    let big = world.create(reserving(service(1), |r| r.memory_bytes = 2 << 30));
    assert_eq!(world.reasons(big), ["no suitable node (insufficient resources on 2 nodes)"]);
    // what is there is given out until it is used up
    let half = world.create(named("half", reserving(service(5), |r| r.memory_bytes = 512 << 20)));
    assert_eq!(world.spread(half), [2, 2]);
    assert_eq!(world.reasons(half), ["no suitable node (insufficient resources on 2 nodes)"]);
}

#[test]
fn item_35_a_port_of_a_node_is_used_once() {
    let (mut world, _) = World::new(2);
    let web = world.create(publishing(service(3), 8080));
    assert_eq!(world.spread(web), [1, 1]);
    assert_eq!(world.reasons(web), ["no suitable node (host-mode port already in use on 2 nodes)"]);
    world.add_node("n3");
    world.settle();
    assert_eq!(world.spread(web), [1, 1, 1]);
}

#[test]
fn item_36_no_node_has_more_replicas_than_allowed() {
    let (mut world, _) = World::new(2);
    let web = world.create(placed(service(5), |p| p.max_replicas = 2));
    assert_eq!(world.spread(web), [2, 2]);
    assert_eq!(world.reasons(web), ["no suitable node (max replicas per node limit exceed)"]);
}

#[test]
fn item_37_replicas_are_spread_evenly_then_over_the_emptier_nodes() {
    let (mut world, _) = World::new(3);
    let six = world.create(service(6));
    assert_eq!(world.spread(six), [2, 2, 2]);
    let pinned = world.create(named("pinned", constrained(service(4), &["node.hostname==n1"])));
    assert_eq!(world.spread(pinned), [4, 0, 0]);
    let two = world.create(named("two", service(2)));
    assert_eq!(world.spread(two), [0, 1, 1]);
}

#[test]
fn item_38_a_preference_divides_over_the_values_of_a_label() {
    let (mut world, nodes) = World::new(3);
    for (node, zone) in nodes.iter().zip(["a", "a", "b"]) {
        world.label(*node, "zone", zone);
    }
    let web = world.create(spread_over(service(6), "node.labels.zone"));
    let spread = world.spread(web);
    assert_eq!((spread[0] + spread[1], spread[2]), (3, 3));
    assert!(spread[0].abs_diff(spread[1]) == 1);
}

#[test]
fn item_39_a_missing_label_is_different_from_every_value() {
    let (mut world, nodes) = World::new(2);
    world.label(nodes[0], "x", "a");
    let web = world.create(constrained(service(2), &["node.labels.x!=a"]));
    assert_eq!(world.spread(web), [0, 2]);
}

#[test]
fn constraints_look_at_every_attribute_of_a_node() {
    let (mut world, nodes) = World::new(2);
    world.change_node(nodes[1], |n| {
        n.role = NodeRole::Manager;
        n.status.addr = "10.1.2.3".into();
        let mut description = n.description.as_deref().unwrap().clone();
        description.platform.architecture = "aarch64".into();
        description.engine.labels.insert("disk".into(), "ssd".into());
        n.description = Some(description.into());
    });
    world.label(nodes[1], "zone", "b");
    let id = format!("node.id=={}", nodes[1]);
    let good = [
        &*id,
        "node.hostname == N2",
        "node.role==manager",
        "node.ip==10.1.0.0/16",
        "node.platform.arch==aarch64",
        "node.labels.zone==b",
        "engine.labels.disk==ssd",
    ];
    for (n, constraint) in good.iter().enumerate() {
        let web =
            world.create(named(&format!("s{n}"), constrained(service(1), &[constraint, "node.platform.os==linux"])));
        assert_eq!(world.spread(web), [0, 1], "{constraint}");
        let other = constraint.replace("==", "!=");
        let web = world.create(named(&format!("t{n}"), constrained(service(1), &[&other])));
        assert_eq!(world.spread(web), [1, 0], "{other}");
    }
}

#[test]
fn a_waiting_task_counts_each_reason_over_all_nodes() {
    let (mut world, nodes) = World::new(4);
    world.set_state(nodes[0], NodeState::Down);
    world.label(nodes[1], "zone", "a");
    let picky = reserving(constrained(service(1), &["node.labels.zone==a"]), |r| r.memory_bytes = 1 << 30);
    let full =
        world.create(named("full", constrained(reserving(service(1), |r| r.memory_bytes = 1), &["node.hostname==n2"])));
    assert_eq!(world.spread(full), [0, 1, 0, 0]);
    let web = world.create(named("picky", picky));
    let reasons = "scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks; \
                   insufficient resources on 1 node";
    assert_eq!(world.reasons(web), [format!("no suitable node ({reasons})")]);
}

#[test]
fn generic_resources_decide_where_tasks_go_and_are_theirs_alone() {
    let (mut world, nodes) = World::new(3);
    world.offer(nodes[0], &["gpu=a", "gpu=b"]);
    world.offer(nodes[1], &["gpu=c"]);
    let web = world.create(reserving(service(4), |r| r.generic_resources = things("gpu", 1)));
    assert_eq!(world.spread(web), [2, 1, 0]);
    let mut given: Vec<_> =
        world.running(web).iter().flat_map(|t| generic::environment("X", &t.assigned_generic)).collect();
    given.sort();
    assert_eq!(given, ["X_GPU=a", "X_GPU=b", "X_GPU=c"]);
    assert_eq!(world.reasons(web), ["no suitable node (insufficient resources on 3 nodes)"]);
    world.offer(nodes[2], &["gpu=d"]);
    assert_eq!(world.spread(web), [2, 1, 1]);
    // a node that loses a thing loses the task that has it
    world.offer(nodes[0], &["gpu=b"]);
    world.run(10);
    assert_eq!(world.spread(web), [1, 1, 1]);
    assert_eq!(world.reasons(web), ["no suitable node (insufficient resources on 3 nodes)"]);
}

#[test]
fn a_node_where_a_service_keeps_failing_is_avoided_by_it_alone() {
    let (mut world, nodes) = World::new(1);
    let bad = world.create(service(1));
    world.failing.push(bad);
    world.run(40);
    let failed = world.tasks(bad).len();
    assert!(failed >= 5, "{failed} tasks failed");
    let second = world.add_node("n2");
    world.run(10);
    assert_eq!(world.tasks(bad).last().unwrap().node_id, Some(second));
    let good = world.create(named("good", service(1)));
    assert_eq!(world.running(good)[0].node_id, Some(nodes[0]), "the other node has a task");
}
