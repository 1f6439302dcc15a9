//! Generic resources: what a node has is reserved by services and given to tasks. The engines that the tests start have two
//! things with names and three that are only counted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cx::{Cx, array, merge, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, a_node_shows_its_generic_resources, since 1, 30),
    case!(Alone, named_resources_are_handed_out_one_by_one, since 1, 30),
    case!(Alone, counted_resources_add_up_and_are_given_back, since 1, 30),
    case!(Swarm, a_kind_that_no_node_has_keeps_tasks_waiting, since 1, 30),
    case!(Swarm, the_client_reserves_generic_resources, since 1, 30),
];

/// What the engines that the tests start are told that they have.
pub const HAS: [&str; 3] = ["confgpu=UUID1", "confgpu=UUID2", "confssd=3"];

fn reserving(kind: &str, count: i64, replicas: u64) -> Value {
    let wanted = json!([{"DiscreteResourceSpec": {"Kind": kind, "Value": count}}]);
    json!({
        "TaskTemplate": {"Resources": {"Reservations": {"GenericResources": wanted}}},
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

fn is_left_out(task: &Value) -> bool {
    task["Status"]["State"] == "pending"
        && task["Status"]["Err"] == "no suitable node (insufficient resources on 1 node)"
}

impl Cx<'_> {
    /// What the node has.
    fn generic(&self) -> Result<Vec<Value>> {
        let node = self.get(&format!("/nodes/{}", self.node_id()?))?.json()?;
        let has = array(&node["Description"]["Resources"]["GenericResources"]).to_vec();
        if has.is_empty() {
            return Err(Failure::Skipped("the engine was not told of any generic resources".to_owned()));
        }
        Ok(has)
    }

    /// The variable in the environment of a running task's container.
    fn variable(&self, task: &Value, name: &str) -> Result<String> {
        let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
        let env = self.inspect(&container)?["Config"]["Env"].clone();
        let found = array(&env).iter().filter_map(Value::as_str).find_map(|v| v.strip_prefix(&format!("{name}=")));
        found.map(str::to_owned).ok_or_else(|| Failure::wrong(format!("no {name} in {env}")))
    }
}

fn a_node_shows_its_generic_resources(cx: &Cx<'_>) -> Result<()> {
    let mut has = cx.generic()?;
    has.sort_by_key(Value::to_string);
    let named = |name: &str| json!({"NamedResourceSpec": {"Kind": "confgpu", "Value": name}});
    let counted = json!({"DiscreteResourceSpec": {"Kind": "confssd", "Value": 3}});
    same!(has, [counted, named("UUID1"), named("UUID2")], "generic resources");
    Ok(())
}

fn named_resources_are_handed_out_one_by_one(cx: &Cx<'_>) -> Result<()> {
    cx.generic()?;
    let service = cx.service("gpu", reserving("confgpu", 1, 3))?;
    cx.wait_task(&service, "a task for which nothing is left", is_left_out)?;
    let running = cx.until("two run", || {
        let running = cx.running(&service)?;
        ensure!(running.len() == 2, "{}", cx.states(&service)?);
        Ok(running)
    })?;
    let mut given = BTreeSet::new();
    for task in &running {
        let resources = array(&task["GenericResources"]);
        same!(resources.len(), 1, "resources of a task");
        same!(resources[0]["NamedResourceSpec"]["Kind"], "confgpu", "kind");
        let name = text(&resources[0]["NamedResourceSpec"]["Value"]);
        same!(cx.variable(task, "DOCKER_RESOURCE_CONFGPU")?, name, "environment");
        given.insert(name);
    }
    same!(given, BTreeSet::from(["UUID1".to_owned(), "UUID2".to_owned()]), "names");
    Ok(())
}

fn counted_resources_add_up_and_are_given_back(cx: &Cx<'_>) -> Result<()> {
    cx.generic()?;
    let first = cx.service("first", reserving("confssd", 2, 1))?;
    let task = cx.wait_running(&first, 1)?.remove(0);
    let wanted = json!([{"DiscreteResourceSpec": {"Kind": "confssd", "Value": 2}}]);
    same!(task["GenericResources"], wanted, "what the task was given");
    same!(cx.variable(&task, "DOCKER_RESOURCE_CONFSSD")?, "2", "environment");
    let second = cx.service("second", reserving("confssd", 2, 1))?;
    cx.wait_task(&second, "a task for which nothing is left", is_left_out)?;
    cx.delete(&format!("/services/{first}"))?.ok()?;
    cx.wait_running(&second, 1).map(drop)
}

fn a_kind_that_no_node_has_keeps_tasks_waiting(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("fpga", reserving("conffpga", 1, 1))?;
    cx.wait_task(&service, "a task for which nothing is there", is_left_out)?;
    let mut freed = cx.see_service(&service)?["Spec"]["TaskTemplate"].clone();
    merge(&mut freed, json!({"Resources": {"Reservations": {"GenericResources": []}}}));
    cx.update(&service, json!({"TaskTemplate": freed}))?;
    cx.wait_running(&service, 1).map(drop)
}

fn the_client_reserves_generic_resources(cx: &Cx<'_>) -> Result<()> {
    cx.generic()?;
    let name = cx.name("ssd");
    let create = ["service", "create", "--detach", "--name", &name, "--generic-resource", "confssd=1"];
    cx.docker(&[&create[..], &["--stop-signal", "SIGKILL", "busybox", "sleep", "1000"]].concat())?.ended(0)?;
    let seen = cx.see_service(&name)?;
    let wanted = json!([{"DiscreteResourceSpec": {"Kind": "confssd", "Value": 1}}]);
    same!(seen["Spec"]["TaskTemplate"]["Resources"]["Reservations"]["GenericResources"], wanted, "reservation");
    let service = text(&seen["ID"]);
    cx.wait_running(&service, 1)?;
    let update = ["service", "update", "--detach", "--generic-resource-rm", "confssd", &name];
    cx.docker(&update)?.ended(0)?;
    cx.until("a task without", || {
        let running = cx.running(&service)?;
        ensure!(running.len() == 1 && running[0].get("GenericResources").is_none(), "{}", cx.states(&service)?);
        Ok(())
    })
}
