//! The node as an object, and what its availability and labels do to tasks.

use serde_json::json;

use super::services::{ids, is_swarm_id};
use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, a_node_object_has_the_documented_fields),
    case!(Swarm, node_filters_select),
    case!(Alone, item_040_a_paused_node_keeps_its_tasks_and_takes_no_new_ones),
    case!(Alone, item_040_a_drained_node_loses_its_tasks_at_once),
    case!(Alone, item_042_a_removed_label_rejects_the_task_that_needs_it),
    case!(Alone, a_new_label_lets_a_pending_task_run),
    case!(Alone, item_063_a_ready_node_cannot_be_removed),
    case!(Alone, item_064_the_last_manager_stays_a_manager),
    case!(Alone, a_node_update_needs_role_and_availability),
];

fn a_node_object_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let nodes = cx.engine.list("/nodes", &json!({}))?;
    same!(nodes.len(), 1, "nodes");
    let (node, info) = (&nodes[0], cx.get("/info")?.json()?);
    ensure!(is_swarm_id(&text(&node["ID"])), "id {}", node["ID"]);
    same!(node["Status"]["State"], "ready", "state");
    same!(node["Status"]["Addr"], "127.0.0.1", "address");
    let description = &node["Description"];
    same!(description["Hostname"], info["Name"], "host name");
    same!(description["Platform"]["OS"], "linux", "system");
    same!(description["Platform"]["Architecture"], info["Architecture"], "architecture");
    same!(description["Resources"]["NanoCPUs"], info["NCPU"].as_u64().unwrap_or_default() * 1_000_000_000, "cpus");
    same!(description["Resources"]["MemoryBytes"], info["MemTotal"], "memory");
    same!(description["Engine"]["EngineVersion"], info["ServerVersion"], "version");
    ensure!(
        text(&description["TLSInfo"]["TrustRoot"]).contains("BEGIN CERTIFICATE"),
        "trust root {}",
        description["TLSInfo"]
    );
    ensure!(node["Version"]["Index"].as_u64() > Some(0) && node["CreatedAt"].is_string(), "{node}");
    for id in [text(&node["ID"]), text(&node["ID"])[..12].to_owned(), text(&description["Hostname"])] {
        same!(cx.get(&format!("/nodes/{id}"))?.json()?["ID"], node["ID"], "found by {id}");
    }
    Ok(())
}

fn node_filters_select(cx: &Cx<'_>) -> Result<()> {
    let node = cx.get(&format!("/nodes/{}", cx.node_id()?))?.json()?;
    let host = text(&node["Description"]["Hostname"]);
    for (filters, count) in [
        (json!({"role": ["manager"]}), 1),
        (json!({"role": ["worker"]}), 0),
        (json!({"id": [text(&node["ID"])[..10].to_owned()]}), 1),
        (json!({"name": [host[..1].to_owned()]}), 1),
        (json!({"name": ["nosuchnode"]}), 0),
        (json!({"membership": ["accepted", "pending"]}), 1),
        (json!({"node.label": ["nosuchlabel"]}), 0),
        (json!({"label": ["nosuchlabel=x"]}), 0),
    ] {
        same!(cx.engine.list("/nodes", &filters)?.len(), count, "nodes with {filters}");
    }
    Ok(())
}

/// Sets the node's availability, does something, and makes the node active again whatever happened.
fn while_not_active(cx: &Cx<'_>, availability: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    cx.update_node(json!({"Availability": availability}))?;
    let done = act();
    cx.update_node(json!({"Availability": "active"}))?;
    done
}

fn item_040_a_paused_node_keeps_its_tasks_and_takes_no_new_ones(cx: &Cx<'_>) -> Result<()> {
    let old = cx.service("old", json!({}))?;
    let tasks = ids(&cx.wait_running(&old, 1)?);
    let mut new = String::new();
    while_not_active(cx, "pause", || {
        new = cx.service("new", json!({}))?;
        let wanted = "no suitable node (1 node not available for new tasks)";
        cx.wait_task(&new, "the new task waits", |task| {
            task["Status"]["State"] == "pending" && task["Status"]["Err"] == wanted
        })?;
        same!(ids(&cx.running(&old)?), tasks, "the old service's tasks");
        Ok(())
    })?;
    cx.wait_running(&new, 1)?;
    same!(ids(&cx.running(&old)?), tasks, "the old service's tasks afterwards");
    Ok(())
}

fn item_040_a_drained_node_loses_its_tasks_at_once(cx: &Cx<'_>) -> Result<()> {
    let replicated = cx.service("replicated", json!({}))?;
    let global = cx.service("global", json!({"Mode": {"Global": {}}}))?;
    let first = cx.wait_running(&replicated, 1)?.remove(0);
    let everywhere = cx.wait_running(&global, 1)?.remove(0);
    let bystander = cx.sleeper("bystander")?;
    while_not_active(cx, "drain", || {
        let wanted = "no suitable node (1 node not available for new tasks)";
        // no restart delay: the replacement does not wait in READY, it is wanted running from the start
        cx.wait_task(&replicated, "the replacement waits for a node", |task| {
            task["Status"]["State"] == "pending" && task["Status"]["Err"] == wanted && task["DesiredState"] == "running"
        })?;
        for (service, old) in [(&replicated, &first), (&global, &everywhere)] {
            cx.wait_task(service, "the old task is shut down", |task| {
                task["ID"] == old["ID"] && task["Status"]["State"] == "shutdown"
            })?;
        }
        let live = cx.tasks(&global)?.into_iter().filter(|task| task["DesiredState"] == "running").count();
        same!(live, 0, "wanted tasks of the global service");
        same!(cx.inspect(&bystander)?["State"]["Running"], true, "a container outside the swarm runs");
        Ok(())
    })?;
    cx.wait_running(&replicated, 1)?;
    cx.wait_running(&global, 1).map(drop)
}

fn item_042_a_removed_label_rejects_the_task_that_needs_it(cx: &Cx<'_>) -> Result<()> {
    cx.update_node(json!({"Labels": {"zone": "a"}}))?;
    let service =
        cx.service("svc", json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.zone==a"]}}}))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    cx.update_node(json!({"Labels": {"zone": "b"}}))?;
    let rejected = cx.wait_task(&service, "the task is rejected", |other| {
        other["ID"] == task["ID"] && other["Status"]["State"] == "rejected"
    })?;
    same!(rejected["Status"]["Err"], "assigned node no longer meets constraints", "error");
    same!(rejected["Status"]["Message"], "task rejected by constraint enforcer", "message");
    let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
    cx.until("its container is stopped", || {
        let state = cx.inspect(&container)?["State"]["Running"].clone();
        ensure!(state == false, "running: {state}");
        Ok(())
    })
}

fn a_new_label_lets_a_pending_task_run(cx: &Cx<'_>) -> Result<()> {
    let service =
        cx.service("svc", json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.late==yes"]}}}))?;
    cx.wait_task(&service, "the task waits", |task| {
        task["Status"]["State"] == "pending" && !text(&task["Status"]["Err"]).is_empty()
    })?;
    cx.update_node(json!({"Labels": {"late": "yes"}}))?;
    cx.wait_running(&service, 1)?;
    same!(cx.engine.list("/nodes", &json!({"node.label": ["late=yes"]}))?.len(), 1, "nodes with the label");
    Ok(())
}

fn item_063_a_ready_node_cannot_be_removed(cx: &Cx<'_>) -> Result<()> {
    let id = cx.node_id()?;
    cx.delete(&format!("/nodes/{id}"))?.refused(400, "")?;
    cx.delete(&format!("/nodes/{id}?force=true"))?.refused(400, "")?;
    same!(cx.get(&format!("/nodes/{id}"))?.json()?["Status"]["State"], "ready", "state afterwards");
    Ok(())
}

fn item_064_the_last_manager_stays_a_manager(cx: &Cx<'_>) -> Result<()> {
    let node = cx.get(&format!("/nodes/{}", cx.node_id()?))?.json()?;
    let mut spec = node["Spec"].clone();
    spec["Role"] = json!("worker");
    let path = format!("/nodes/{}/update?version={}", text(&node["ID"]), node["Version"]["Index"]);
    cx.post(&path, &spec)?.refused(400, "attempting to demote the last manager of the swarm").map(drop)
}

fn a_node_update_needs_role_and_availability(cx: &Cx<'_>) -> Result<()> {
    let node = cx.get(&format!("/nodes/{}", cx.node_id()?))?.json()?;
    let path = format!("/nodes/{}/update?version={}", text(&node["ID"]), node["Version"]["Index"]);
    cx.post(&path, &json!({"Availability": "active"}))?.refused(400, "invalid Role: \"\"")?;
    cx.post(&path, &json!({"Role": "manager"}))?.refused(400, "invalid Availability: \"\"")?;
    let stale = format!("/nodes/{}/update?version=1", text(&node["ID"]));
    cx.post(&stale, &node["Spec"])?.refused(500, "update out of sequence").map(drop)
}
