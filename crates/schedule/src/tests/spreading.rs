use shoal_types::object::TaskStatus;
use shoal_types::{Task, TaskState, Timestamp};

use super::world::{self, World, id, node, task};

/// The task runs on that node.
fn running(task: Task, node: u64) -> Task {
    Task { node_id: Some(id(node)), status: TaskStatus { state: TaskState::Running, ..task.status }, ..task }
}

/// How the tasks of service 1 lie on five nodes once four have been added to `before`, so many at a time. Each of nodes 4 and 5
/// has seen so many failures of the service, and has so many tasks of another one.
fn scaled_up_by_four(before: [u64; 5], batch: u64, failures: u64, others: u64) -> Vec<usize> {
    let mut world = World::new((1..=5).map(node));
    let mut numbers = 1..;
    let mut next = || task(numbers.next().unwrap());
    for (at, count) in (1..).zip(before) {
        (0..count).for_each(|_| world.add(running(next(), at)));
    }
    for at in [4, 5] {
        (0..others).for_each(|_| world.add(running(world::of_service(next(), 2), at)));
        for _ in 0..failures {
            let failing = running(next(), at);
            world.add(failing.clone());
            world.add(Task { status: TaskStatus { state: TaskState::Failed, ..failing.status.clone() }, ..failing });
        }
    }
    for n in 1..=4 {
        world.add(next());
        if n % batch == 0 {
            world.settle();
        }
    }
    let mine =
        |at| world.all_tasks().filter(|t| t.service_id == id(1) && t.is_active() && t.node_id == Some(id(at))).count();
    (1..=5).map(mine).collect()
}

#[test]
fn what_is_added_goes_to_the_nodes_with_fewest_whatever_was_there_before() {
    let befores = [[2, 4, 4, 0, 0], [0, 5, 5, 0, 0], [10, 0, 0, 0, 0], [4, 3, 3, 0, 0], [3, 3, 2, 2, 0], [2; 5]];
    for before in befores {
        let mut wanted = before.map(|count| count as usize);
        for _ in 0..4 {
            *wanted.iter_mut().min().unwrap() += 1;
        }
        wanted.sort_unstable();
        for (failures, others) in [(0, 0), (0, 1), (0, 7), (4, 0), (4, 7)] {
            for batch in [1, 2, 4] {
                let mut counts = scaled_up_by_four(before, batch, failures, others);
                counts.sort_unstable();
                assert_eq!(counts, wanted, "{before:?} in batches of {batch}, {failures} failures, {others} others");
            }
        }
    }
    assert_eq!(scaled_up_by_four([2, 4, 4, 0, 0], 4, 0, 0), [2, 4, 4, 2, 2]);
}

#[test]
fn only_where_the_service_keeps_failing_nothing_is_added() {
    for (batch, others) in [(1, 0), (2, 0), (4, 0), (2, 7)] {
        assert_eq!(scaled_up_by_four([2, 4, 4, 0, 0], batch, 5, others), [5, 5, 4, 0, 0]);
    }
}

#[test]
fn six_replicas_over_three_empty_nodes_are_two_each() {
    let mut world = World::new((1..=3).map(node));
    for n in 1..=6 {
        world.add(task(n));
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [2, 2, 2]);
}

#[test]
fn fewer_tasks_of_the_service_count_before_fewer_tasks() {
    let mut world = World::new([node(1), node(2)]);
    for n in 1..=5 {
        let other = world::of_service(task(n), 9);
        world.add(if n == 1 {
            task(1)
        } else {
            world::placed(other, |p| p.constraints = vec!["node.hostname==n2".into()])
        });
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [1, 4]);
    world.add(task(6));
    world.settle();
    assert_eq!(world.task(6).node_id, Some(id(2)));
    // equal in tasks of the service: the emptier node
    world.add(task(7));
    world.settle();
    assert_eq!(world.task(7).node_id, Some(id(1)));
}

#[test]
fn equal_nodes_are_taken_in_the_order_of_their_identifiers() {
    let mut world = World::new([3, 1, 2].map(node));
    for n in 1..=3 {
        world.add(task(n));
    }
    world.settle();
    assert_eq!(world.nodes_of_tasks(), [1, 2, 3].map(|n| Some(id(n))));
}

#[test]
fn a_node_where_the_service_keeps_failing_is_avoided_for_five_minutes() {
    let minutes = |n: i64| Timestamp::from_second(n * 60).unwrap();
    let mut world = World::new([node(1)]);
    for n in 1..=5 {
        world.add(task(n));
        world.settle();
        world.observe(n, TaskState::Failed);
    }
    world.put_node(node(2));
    for n in 6..=9 {
        world.add(task(n));
    }
    world.add(world::of_service(task(10), 2));
    world.settle();
    assert_eq!(world.tasks_per_node(), [1, 4], "only the other service uses node 1");
    assert_eq!(world.task(10).node_id, Some(id(1)));
    world.now = minutes(6);
    world.add(task(11));
    world.settle();
    assert_eq!(world.task(11).node_id, Some(id(1)));
}

#[test]
fn failing_less_often_or_with_another_spec_does_not_count() {
    for (failures, version) in [(4, 1), (5, 2)] {
        let mut world = World::new([node(1)]);
        for n in 1..=failures {
            world.add(task(n));
            world.settle();
            world.observe(n, TaskState::Rejected);
        }
        world.put_node(world::described(node(2), |_| {}));
        world.add(world::of_service(task(20), 2));
        world.settle();
        let mut next = task(10);
        next.spec_version = version;
        world.add(next);
        world.settle();
        // node 1 took the other service's task, so node 2 is emptier; one more shows that node 1 is not avoided
        let mut last = task(11);
        last.spec_version = version;
        world.add(last);
        world.settle();
        assert_eq!(world.task(11).node_id, Some(id(1)));
    }
}

#[test]
fn where_all_nodes_fail_the_one_that_fails_less_is_taken() {
    let mut world = World::new([node(1), node(2)]);
    for n in 1..=11 {
        world.add(world::placed(task(n), |p| p.constraints = vec![format!("node.hostname==n{}", n % 2 + 1)]));
        world.settle();
        world.observe(n, TaskState::Failed);
    }
    for n in 12..=14 {
        world.add(task(n));
    }
    world.settle();
    // node 1 failed five times, node 2 six times
    assert_eq!(world.tasks_per_node(), [3, 0]);
}

#[test]
fn a_preference_divides_tasks_over_the_values_of_a_label_not_over_nodes() {
    let zones = [(1, "a"), (2, "a"), (3, "b")].map(|(n, zone)| world::labelled(node(n), "zone", zone));
    let mut world = World::new(zones);
    for n in 1..=6 {
        world.add(world::spread_over(task(n), &["node.labels.zone"]));
    }
    world.settle();
    let mut counts = world.tasks_per_node();
    counts[..2].sort_unstable();
    assert_eq!(counts, [1, 2, 3]);
}

#[test]
fn preferences_form_levels_and_nodes_without_the_label_are_a_branch_of_their_own() {
    let at = |n, zone, rack| world::labelled(world::labelled(node(n), "zone", zone), "rack", rack);
    let mut world = World::new([at(1, "a", "1"), at(2, "a", "2"), at(3, "a", "2"), at(4, "b", "1"), node(5)]);
    for n in 1..=12 {
        world.add(world::spread_over(task(n), &["node.labels.zone", "node.labels.rack"]));
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [2, 1, 1, 4, 4]);
}

#[test]
fn tasks_that_are_there_count_towards_their_branch() {
    let zones = [(1, "a"), (2, "b")].map(|(n, zone)| world::labelled(node(n), "zone", zone));
    let mut world = World::new(zones);
    for n in 1..=2 {
        world.add(world::placed(task(n), |p| p.constraints = vec!["node.hostname==n1".into()]));
    }
    world.settle();
    for n in 3..=6 {
        world.add(world::spread_over(task(n), &["node.labels.zone"]));
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [3, 3]);
}

#[test]
fn a_branch_that_is_full_leaves_its_share_to_the_others() {
    let node = |n, zone, memory: i64| world::with_resources(world::labelled(node(n), "zone", zone), 0, memory << 20);
    let mut world = World::new([node(1, "a", 10), node(2, "b", 100)]);
    for n in 1..=6 {
        world.add(world::spread_over(world::reserving(task(n), 0, 10 << 20), &["node.labels.zone"]));
    }
    world.settle();
    assert_eq!(world.tasks_per_node(), [1, 5]);
}
