//! Which node runs what: spread, preferences, constraints, drain and pause.

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::text;
use crate::error::Result;
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, item_037_replicas_spread_evenly_over_equal_nodes),
    story!(Five, item_038_a_preference_spreads_over_the_values_of_a_label),
    story!(Five, item_039_an_unequal_constraint_matches_nodes_without_the_label),
    story!(Five, item_040_drain_moves_tasks_at_once_and_pause_moves_none),
    story!(Five, item_041_nothing_returns_to_a_node_that_was_drained),
    story!(Five, item_042_a_task_whose_constraint_breaks_is_rejected_and_moves),
    story!(Five, a_global_service_has_one_task_on_each_node),
    story!(Five, what_fits_nowhere_says_why_with_counts),
    story!(Five, max_replicas_per_node_holds_over_nodes),
];

fn item_037_replicas_spread_evenly_over_equal_nodes(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(2, 10)?;
    same!(cluster.spread(1, &service)?, [2, 2, 2, 2, 2], "ten on five");
    for node in [1, 3, 5] {
        cluster.label(node, &json!({"half": "yes"}))?;
    }
    let only = json!({"Mode": {"Replicated": {"Replicas": 6}},
        "TaskTemplate": {"Placement": {"Constraints": ["node.labels.half==yes"]}}});
    let cx = cluster.cx(3);
    let six = cx.service("six", only)?;
    cx.wait_running(&six, 6)?;
    same!(cluster.spread(1, &six)?, [2, 0, 2, 0, 2], "six on three");
    Ok(())
}

fn item_038_a_preference_spreads_over_the_values_of_a_label(cluster: &Cluster<'_>) -> Result<()> {
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        cluster.label(node, &json!({"zone": zone, "zoned": "yes"}))?;
    }
    let cx = cluster.cx(1);
    let service = cx.service(
        "svc",
        json!({"Mode": {"Replicated": {"Replicas": 6}}, "TaskTemplate": {"Placement": {
            "Constraints": ["node.labels.zoned==yes"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]}}}),
    )?;
    cx.wait_running(&service, 6)?;
    let spread = cluster.spread(1, &service)?;
    same!((spread[0] + spread[1], spread[2]), (3, 3), "by zone, of {spread:?}");
    Ok(())
}

fn item_039_an_unequal_constraint_matches_nodes_without_the_label(cluster: &Cluster<'_>) -> Result<()> {
    cluster.label(1, &json!({"x": "a"}))?;
    cluster.label(2, &json!({"x": "b"}))?;
    let cx = cluster.cx(1);
    let service = cx.service(
        "svc",
        json!({"Mode": {"Replicated": {"Replicas": 4}},
            "TaskTemplate": {"Placement": {"Constraints": ["node.labels.x!=a"]}}}),
    )?;
    cx.wait_running(&service, 4)?;
    same!(cluster.spread(1, &service)?, [0, 1, 1, 1, 1], "all but the one with the label");
    Ok(())
}

fn item_040_drain_moves_tasks_at_once_and_pause_moves_none(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let (four, five) = (cluster.id(4)?, cluster.id(5)?);
    cluster.update_node(1, &five, &json!({"Availability": "pause"}))?;
    // five seconds is the delay that a restart would have
    let begin = std::time::Instant::now();
    cluster.update_node(1, &four, &json!({"Availability": "drain"}))?;
    cluster.until("a drained node empties", SOON, || {
        same!(cluster.containers(4)?.iter().filter(|container| container["State"] == "running").count(), 0, "left");
        same!(cluster.spread(1, &service)?.iter().sum::<usize>(), 10, "running");
        Ok(())
    })?;
    let took = begin.elapsed();
    ensure!(
        took < std::time::Duration::from_millis(4500),
        "the tasks of a drained node waited for their restart delay: {took:?}"
    );
    let spread = cluster.spread(1, &service)?;
    same!((spread[3], spread[4]), (0, 2), "none on the drained node, no change on the paused one: {spread:?}");
    let cx = cluster.cx(1);
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 14}}}))?;
    cx.wait_running(&service, 14)?;
    let spread = cluster.spread(1, &service)?;
    same!((spread[3], spread[4]), (0, 2), "nothing new on either: {spread:?}");
    Ok(())
}

fn item_041_nothing_returns_to_a_node_that_was_drained(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 5)?;
    let four = cluster.id(4)?;
    let cx = cluster.cx(1);
    cluster.update_node(1, &four, &json!({"Availability": "drain"}))?;
    cluster.until("five run elsewhere", SOON, || {
        let spread = cluster.spread(1, &service)?;
        ensure!(spread[3] == 0 && spread.iter().sum::<usize>() == 5, "{spread:?}");
        Ok(())
    })?;
    let before = cluster.processes(1, &service)?.len();
    cluster.update_node(1, &four, &json!({"Availability": "active"}))?;
    // a later service finds room there, and by then the earlier one would have moved
    let later =
        cx.service("later", json!({"TaskTemplate": {"Placement": {"Constraints": [format!("node.id=={four}")]}}}))?;
    cx.wait_running(&later, 1)?;
    same!((cluster.spread(1, &service)?[3], before), (0, 5), "tasks that returned");
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 9}}}))?;
    cx.wait_running(&service, 9)?;
    let spread = cluster.spread(1, &service)?;
    ensure!(spread[3] >= 1, "new ones go where there is room: {spread:?}");
    Ok(())
}

fn item_042_a_task_whose_constraint_breaks_is_rejected_and_moves(cluster: &Cluster<'_>) -> Result<()> {
    cluster.label(4, &json!({"disk": "fast"}))?;
    let cx = cluster.cx(1);
    let service = cx.service(
        "svc",
        json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.disk==fast"]},
            "RestartPolicy": {"Delay": 100_000_000}}}),
    )?;
    let first = text(&cx.wait_running(&service, 1)?[0]["ID"]);
    cluster.label(5, &json!({"disk": "fast"}))?;
    cluster.label(4, &json!({}))?;
    let rejected = cx.wait_task(&service, "the task is rejected", |task| {
        task["ID"] == first.as_str() && task["Status"]["State"] == "rejected"
    })?;
    same!(rejected["Status"]["Err"], "assigned node no longer meets constraints", "error");
    cluster.until("it runs where the label is", SOON, || {
        same!(cluster.spread(1, &service)?, [0, 0, 0, 0, 1], "spread");
        Ok(())
    })
}

fn a_global_service_has_one_task_on_each_node(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(2);
    let service = cx.service("svc", json!({"Mode": {"Global": {}}}))?;
    cluster.until("one on each", SOON, || {
        same!(cluster.spread(1, &service)?, [1, 1, 1, 1, 1], "spread");
        Ok(())
    })?;
    let five = cluster.id(5)?;
    cluster.update_node(1, &five, &json!({"Availability": "drain"}))?;
    cluster.until("none on a drained node", SOON, || {
        same!(cluster.spread(1, &service)?, [1, 1, 1, 1, 0], "spread");
        Ok(())
    })?;
    cluster.update_node(1, &five, &json!({"Availability": "active"}))?;
    cluster.until("and one again when it is active", SOON, || {
        same!(cluster.spread(1, &service)?, [1, 1, 1, 1, 1], "spread");
        Ok(())
    })
}

fn what_fits_nowhere_says_why_with_counts(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(3);
    let pending = |suffix: &str, spec: Value, wanted: &str| -> Result<()> {
        let service = cx.service(suffix, spec)?;
        cx.wait_task(&service, &format!("{wanted:?} is told"), |task| text(&task["Status"]["Err"]) == wanted).map(drop)
    };
    pending(
        "label",
        json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.no==such"]}}}),
        "no suitable node (scheduling constraints not satisfied on 5 nodes)",
    )?;
    pending(
        "memory",
        json!({"TaskTemplate": {"Resources": {"Reservations": {"MemoryBytes": 1_u64 << 50}}}}),
        "no suitable node (insufficient resources on 5 nodes)",
    )?;
    for node in [4, 5] {
        cluster.update_node(1, &cluster.id(node)?, &json!({"Availability": "pause"}))?;
    }
    pending(
        "both",
        json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.no==such"]}}}),
        "no suitable node (scheduling constraints not satisfied on 3 nodes; 2 nodes not available for new tasks)",
    )
}

fn max_replicas_per_node_holds_over_nodes(cluster: &Cluster<'_>) -> Result<()> {
    let cx = cluster.cx(1);
    let service = cx.service(
        "svc",
        json!({"Mode": {"Replicated": {"Replicas": 6}}, "TaskTemplate": {"Placement": {"MaxReplicas": 1}}}),
    )?;
    cx.wait_task(&service, "the sixth waits", |task| {
        text(&task["Status"]["Err"]).contains("no suitable node (max replicas per node limit exceed")
    })?;
    cluster.until("one on each", SOON, || {
        same!(cluster.spread(1, &service)?, [1, 1, 1, 1, 1], "spread");
        Ok(())
    })
}
