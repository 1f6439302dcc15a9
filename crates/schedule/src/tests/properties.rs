use proptest::prelude::*;
use shoal_types::{Node, Task, TaskState};

use super::world::{self, World, node, task};

const CPU: i64 = 1_000_000_000;

#[derive(Debug, Clone)]
struct Plan {
    nodes: Vec<(i64, bool, u8)>,
    tasks: Vec<(u64, bool)>,
    reserves: Vec<i64>,
    ends: Vec<u64>,
    preferences: bool,
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        prop::collection::vec((0..6i64, prop::bool::weighted(0.9), 0..3u8), 1..12),
        prop::collection::vec((1..4u64, prop::bool::weighted(0.2)), 0..60),
        prop::collection::vec(0..3i64, 4),
        prop::collection::vec(1..60u64, 0..20),
        any::<bool>(),
    )
        .prop_map(|(nodes, tasks, reserves, ends, preferences)| Plan { nodes, tasks, reserves, ends, preferences })
}

fn build_node(n: usize, (cpus, up, zone): (i64, bool, u8)) -> Node {
    let node = world::labelled(world::with_resources(node(n as u64 + 1), cpus * CPU, 0), "zone", &zone.to_string());
    if up { node } else { world::down(node) }
}

fn build_task(plan: &Plan, n: u64, service: u64) -> Task {
    let task = world::of_service(world::reserving(task(n), plan.reserves[service as usize] * CPU, 0), service);
    if plan.preferences { world::spread_over(task, &["node.labels.zone"]) } else { task }
}

/// Runs a plan; tasks end on the way, and the scheduler may see all at once or in two parts.
fn run(plan: &Plan) -> World {
    let mut world = World::new(plan.nodes.iter().enumerate().map(|(n, node)| build_node(n, *node)));
    for (n, (service, pause)) in (1..).zip(&plan.tasks) {
        world.add(build_task(plan, n, *service));
        if *pause {
            world.settle();
        }
    }
    world.settle();
    for n in plan.ends.iter().filter(|n| **n <= plan.tasks.len() as u64) {
        if world.task(*n).status.state == TaskState::Assigned {
            world.observe(*n, TaskState::Complete);
        }
    }
    world.settle();
    world
}

proptest! {
    #[test]
    fn nothing_is_placed_beyond_what_a_node_has_or_where_it_is_not_ready(plan in plans()) {
        let world = run(&plan);
        for (at, node) in world.all_nodes().enumerate() {
            let here = || world.all_tasks().filter(|t| t.is_active() && t.node_id == Some(node.id));
            let reserved: i64 = here()
                .filter_map(|t| t.spec.resources.as_ref()?.reservations.as_ref())
                .map(|r| r.nano_cpus)
                .sum();
            prop_assert!(reserved <= node.description.as_ref().unwrap().resources.nano_cpus);
            prop_assert!(plan.nodes[at].1 || here().count() == 0);
        }
    }

    #[test]
    fn every_task_has_a_node_or_a_reason_and_the_reason_is_true(plan in plans()) {
        let world = run(&plan);
        for task in world.all_tasks().filter(|t| t.node_id.is_none()) {
            prop_assert_eq!(task.status.state, TaskState::Pending);
            prop_assert!(task.status.err.starts_with("no suitable node ("), "{}", task.status.err);
            let wanted = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref()).map_or(0, |r| r.nano_cpus);
            for (at, node) in world.all_nodes().enumerate().filter(|(at, _)| plan.nodes[*at].1) {
                let taken: i64 = world.all_tasks()
                    .filter(|t| t.is_active() && t.node_id == Some(node.id))
                    .filter_map(|t| t.spec.resources.as_ref()?.reservations.as_ref())
                    .map(|r| r.nano_cpus)
                    .sum();
                prop_assert!(plan.nodes[at].0 * CPU - taken < wanted, "task {} would fit on {}", task.id, node.id);
            }
        }
    }

    #[test]
    fn equal_nodes_differ_by_one_task_of_a_service_at_most(
        nodes in 1..20u64, services in prop::collection::vec(0..50u64, 1..4), batches in 1..5u64
    ) {
        let mut world = World::new((1..=nodes).map(node));
        let mut n = 0;
        for (service, tasks) in (1..).zip(&services) {
            for left in (0..*tasks).rev() {
                n += 1;
                world.add(world::of_service(task(n), service));
                if left % batches == 0 {
                    world.settle();
                }
            }
        }
        for service in 1..=services.len() as u64 {
            let of_service = |t: &&std::sync::Arc<Task>| t.service_id == world::id(service);
            let counts: Vec<_> = world.all_nodes()
                .map(|node| world.all_tasks().filter(of_service).filter(|t| t.node_id == Some(node.id)).count())
                .collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        prop_assert!(world.used_nodes().len() <= nodes as usize);
    }

    #[test]
    fn the_same_cluster_is_decided_the_same_way_by_a_new_leader(plan in plans()) {
        let mut world = run(&plan);
        for n in 100..110 {
            world.add(build_task(&plan, n, n % 4));
        }
        let seen = world.decide();
        world.restart();
        prop_assert_eq!(world.decide(), seen);
    }
}
