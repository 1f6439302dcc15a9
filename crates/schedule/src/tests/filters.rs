use shoal_types::object::Platform;
use shoal_types::object::PluginDescription;
use shoal_types::spec::{Availability, ContainerSpec, LogDriver, Mount, MountType, VolumeDriver, VolumeOptions};
use shoal_types::{Node, Task, TaskState, generic};

use super::world::{self, World, id, node, task};

/// What a task that nobody can take is told.
fn reason(nodes: impl IntoIterator<Item = Node>, task: Task) -> String {
    let mut world = World::new(nodes);
    let n = task.slot.max(1);
    world.add(task);
    world.settle();
    assert_eq!(world.task(n).node_id.filter(|_| world.task(n).status.state >= TaskState::Assigned), None);
    world.task(n).status.err.strip_prefix("no suitable node (").unwrap().strip_suffix(')').unwrap().to_owned()
}

fn accepted(node: Node, task: Task) -> bool {
    let mut world = World::new([node]);
    world.add(task);
    world.settle();
    world.task(1).status.state == TaskState::Assigned
}

#[test]
fn only_ready_and_active_nodes_take_tasks() {
    let mut paused = node(2);
    paused.spec.availability = Availability::Pause;
    let mut drained = node(3);
    drained.spec.availability = Availability::Drain;
    assert_eq!(reason([world::down(node(1))], task(1)), "1 node not available for new tasks");
    let nodes = [world::down(node(1)), paused, drained];
    assert_eq!(reason(nodes, task(1)), "3 nodes not available for new tasks");
}

#[test]
fn reservations_must_fit_into_what_is_left() {
    let small = || world::with_resources(node(1), 1_000_000_000, 100 << 20);
    assert!(accepted(small(), world::reserving(task(1), 1_000_000_000, 100 << 20)));
    let cpu = world::reserving(task(1), 1_000_000_001, 0);
    assert_eq!(reason([small()], cpu), "insufficient resources on 1 node");
    let memory = world::reserving(task(1), 0, (100 << 20) + 1);
    assert_eq!(reason([small(), world::with_resources(node(2), 0, 0)], memory), "insufficient resources on 2 nodes");
}

#[test]
fn limits_take_no_room() {
    let limited = world::specified(task(1), |s| {
        let limits = shoal_types::spec::Limits { memory_bytes: 1 << 40, ..Default::default() };
        s.resources.get_or_insert_default().limits = Some(limits);
    });
    assert!(accepted(world::with_resources(node(1), 0, 1), limited));
}

#[test]
fn volume_and_log_drivers_must_be_there() {
    let has = |plugins: &[(&str, &str)]| {
        let plugins =
            plugins.iter().map(|(kind, name)| PluginDescription { r#type: (*kind).into(), name: (*name).into() });
        world::described(node(1), |d| d.engine.plugins = plugins.collect())
    };
    let volume = |driver: &str| {
        let driver_config = Some(VolumeDriver { name: driver.into(), ..VolumeDriver::default() });
        let mount = Mount {
            r#type: MountType::Volume,
            volume_options: Some(VolumeOptions { driver_config, ..VolumeOptions::default() }),
            ..Mount::default()
        };
        let container = ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() };
        world::specified(task(1), |s| s.container_spec = Some(container))
    };
    let log = |name: &str| {
        world::specified(task(1), |s| s.log_driver = Some(LogDriver { name: name.into(), ..LogDriver::default() }))
    };
    assert!(accepted(has(&[("Volume", "nfs:latest")]), volume("nfs")));
    assert!(accepted(has(&[]), volume("local")) && accepted(has(&[]), volume("")));
    assert_eq!(reason([has(&[("Volume", "local")])], volume("nfs")), "missing plugin on 1 node");
    assert!(accepted(has(&[("Log", "syslog")]), log("syslog")));
    assert!(accepted(has(&[]), log("syslog")), "a node that reports no log drivers passes");
    assert!(accepted(has(&[("Log", "local")]), log("none")));
    assert_eq!(reason([has(&[("Log", "local")])], log("syslog")), "missing plugin on 1 node");
}

#[test]
fn constraints_must_be_satisfied() {
    let bound = |text: &str| world::placed(task(1), |p| p.constraints = vec![text.into()]);
    assert!(accepted(world::labelled(node(1), "zone", "a"), bound("node.labels.zone==a")));
    let text = "scheduling constraints not satisfied on 2 nodes";
    assert_eq!(reason([node(1), node(2)], bound("node.labels.zone==a")), text);
    assert_eq!(reason([node(1)], bound("malformed")), "scheduling constraints not satisfied on 1 node");
}

#[test]
fn one_of_the_platforms_must_match_whatever_the_architecture_is_called() {
    let built_for = |arch: &str, os: &str| {
        let platforms = vec![Platform { architecture: arch.into(), os: os.into() }];
        world::placed(task(1), |p| p.platforms = platforms)
    };
    for (arch, os) in [("amd64", "linux"), ("x86_64", "linux"), ("", "linux"), ("amd64", ""), ("", "")] {
        assert!(accepted(node(1), built_for(arch, os)), "{os}/{arch}");
    }
    let arm = world::described(node(1), |d| d.platform.architecture = "aarch64".into());
    assert!(accepted(arm, built_for("arm64", "linux")));
    assert_eq!(reason([node(1)], built_for("arm64", "linux")), "unsupported platform on 1 node");
    assert_eq!(reason([node(1)], built_for("amd64", "windows")), "unsupported platform on 1 node");
}

#[test]
fn a_port_of_the_node_is_taken_once_for_each_protocol() {
    let mut world = World::new([node(1)]);
    world.add(world::publishing(task(1), "tcp", 8080));
    world.add(world::of_service(world::publishing(task(2), "udp", 8080), 2));
    world.add(world::of_service(world::publishing(task(3), "", 8080), 3));
    world.add(world::of_service(world::publishing(task(4), "tcp", 0), 4));
    world.settle();
    assert_eq!(world.nodes_of_tasks(), [Some(id(1)), Some(id(1)), None, Some(id(1))]);
    assert_eq!(world.task(3).status.err, "no suitable node (host-mode port already in use on 1 node)");
}

#[test]
fn three_replicas_that_publish_one_port_on_one_node_leave_two_waiting() {
    let mut world = World::new([node(1)]);
    for n in 1..=3 {
        world.add(world::publishing(task(n), "tcp", 80));
    }
    world.settle();
    assert_eq!(world.nodes_of_tasks(), [Some(id(1)), None, None]);
    for n in [2, 3] {
        assert_eq!(world.task(n).status.err, "no suitable node (host-mode port already in use on 1 node)");
    }
}

#[test]
fn no_node_has_more_replicas_than_allowed() {
    let mut world = World::new([node(1), node(2)]);
    for n in 1..=5 {
        world.add(world::placed(task(n), |p| p.max_replicas = 2));
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [2, 2]);
    assert_eq!(world.task(5).status.err, "no suitable node (max replicas per node limit exceed)");
}

#[test]
fn the_first_failing_filter_counts_and_the_most_frequent_reason_comes_first() {
    let picky = world::placed(world::reserving(task(1), 1_000_000, 0), |p| {
        p.constraints = vec!["node.labels.x==y".into()];
    });
    let big = |n| world::with_resources(node(n), 1_000_000_000, 0);
    let nodes = [world::down(node(1)), node(2), big(3), big(4)];
    assert_eq!(
        reason(nodes, picky),
        "scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks; \
         insufficient resources on 1 node"
    );
}

#[test]
fn generic_resources_are_counted_or_handed_out_by_name_and_come_back() {
    let node = |n| world::with_generic(node(n), &["gpu=b", "gpu=a", "ssd=3"]);
    let mut world = World::new([node(1)]);
    for n in 1..=3 {
        world.add(world::reserving_generic(task(n), "gpu", 1));
    }
    for n in 4..=5 {
        world.add(world::of_service(world::reserving_generic(task(n), "ssd", 2), 2));
    }
    world.settle();
    let given = |world: &World, n: u64| generic::environment("X", &world.task(n).assigned_generic);
    assert_eq!([1, 2, 4].map(|n| given(&world, n)), [["X_GPU=b"], ["X_GPU=a"], ["X_SSD=2"]]);
    for n in [3, 5] {
        assert_eq!(world.task(n).status.err, "no suitable node (insufficient resources on 1 node)");
    }
    world.observe(1, TaskState::Failed);
    world.observe(4, TaskState::Complete);
    world.settle();
    assert_eq!([3, 5].map(|n| given(&world, n)), [["X_GPU=b"], ["X_SSD=2"]]);
    // a new leader learns from the tasks what is given away
    world.restart();
    world.add(world::reserving_generic(task(6), "gpu", 1));
    world.settle();
    assert_eq!(world.task(6).node_id, None);
    world.put_node(node(2));
    world.settle();
    assert_eq!((world.task(6).node_id, given(&world, 6)), (Some(id(2)), vec!["X_GPU=b".to_owned()]));
}

#[test]
fn a_task_for_one_node_is_given_its_generic_resources_too() {
    let mut world = World::new([world::with_generic(node(1), &["gpu=a"])]);
    for n in 1..=2 {
        let global = world::of_service(world::reserving_generic(task(n), "gpu", 1), n);
        world.add(world::preset(global, 1));
    }
    world.settle();
    assert_eq!(generic::environment("X", &world.task(1).assigned_generic), ["X_GPU=a"]);
    assert_eq!(world.task(2).status.err, "no suitable node (insufficient resources on 1 node)");
}
