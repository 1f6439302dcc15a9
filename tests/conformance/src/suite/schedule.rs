//! What cannot be placed says why, and goes on as soon as it can.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_033_an_unsatisfied_constraint_says_so),
    case!(Swarm, item_034_too_large_a_reservation_says_so),
    case!(Swarm, item_035_a_host_port_is_used_once_on_a_node),
    case!(Swarm, item_036_max_replicas_per_node_says_so),
    case!(Swarm, item_039_a_missing_label_is_not_equal_to_anything),
    case!(Swarm, constraints_compare_as_documented),
    case!(Swarm, a_global_service_counts_only_nodes_that_match),
    case!(Swarm, a_platform_that_no_node_has_says_so),
    case!(Swarm, preferences_never_prevent_placement),
    case!(Swarm, a_pending_task_runs_once_the_service_allows_it),
    case!(Alone, reservations_add_up_and_are_given_back),
];

impl Cx<'_> {
    /// Waits until a task of the service is pending with exactly this error.
    fn wait_pending(&self, service: &str, error: &str) -> Result<Value> {
        let task = self.wait_task(service, &format!("a task pending with {error:?}"), |task| {
            task["Status"]["State"] == "pending" && task["Status"]["Err"] == error
        })?;
        same!(task.get("NodeID"), None, "node of a pending task");
        Ok(task)
    }
}

fn constrained(constraint: &str) -> Value {
    json!({"TaskTemplate": {"Placement": {"Constraints": [constraint]}}})
}

fn item_033_an_unsatisfied_constraint_says_so(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", constrained("node.labels.zone==mars"))?;
    let task = cx.wait_pending(&service, "no suitable node (scheduling constraints not satisfied on 1 node)")?;
    same!(task["DesiredState"], "running", "desired state");
    Ok(())
}

fn item_034_too_large_a_reservation_says_so(cx: &Cx<'_>) -> Result<()> {
    for (name, reservation) in
        [("memory", json!({"MemoryBytes": 1_u64 << 50})), ("cpu", json!({"NanoCPUs": 1_000_000_000_000_u64}))]
    {
        let service = cx.service(name, json!({"TaskTemplate": {"Resources": {"Reservations": reservation}}}))?;
        cx.wait_pending(&service, "no suitable node (insufficient resources on 1 node)")?;
    }
    Ok(())
}

fn item_035_a_host_port_is_used_once_on_a_node(cx: &Cx<'_>) -> Result<()> {
    let ports = json!([{"PublishMode": "host", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 18099}]);
    let answer =
        cx.try_service("svc", json!({"EndpointSpec": {"Ports": ports}, "Mode": {"Replicated": {"Replicas": 3}}}))?;
    if answer.status == 501 {
        // an engine that cannot do it yet must say so
        return answer.refused(501, "port").map(drop);
    }
    let service = text(&answer.status(201)?.json()?["ID"]);
    cx.until("one runs and two wait", || {
        let wanted = "no suitable node (host-mode port already in use on 1 node)";
        let tasks = cx.tasks(&service)?;
        let waiting =
            tasks.iter().filter(|task| task["Status"]["State"] == "pending" && task["Status"]["Err"] == wanted).count();
        ensure!(waiting == 2 && cx.running(&service)?.len() == 1, "{}", cx.states(&service)?);
        Ok(())
    })
}

fn item_036_max_replicas_per_node_says_so(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service(
        "svc",
        json!({"TaskTemplate": {"Placement": {"MaxReplicas": 1}}, "Mode": {"Replicated": {"Replicas": 2}}}),
    )?;
    cx.wait_pending(&service, "no suitable node (max replicas per node limit exceed)")?;
    cx.until("the other one runs", || {
        ensure!(cx.running(&service)?.len() == 1, "{}", cx.states(&service)?);
        Ok(())
    })
}

fn item_039_a_missing_label_is_not_equal_to_anything(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", constrained("node.labels.nosuchlabel!=a"))?;
    cx.wait_running(&service, 1).map(drop)
}

fn constraints_compare_as_documented(cx: &Cx<'_>) -> Result<()> {
    let node = cx.get(&format!("/nodes/{}", cx.node_id()?))?.json()?;
    let (id, host) = (text(&node["ID"]), text(&node["Description"]["Hostname"]));
    let platform = &node["Description"]["Platform"];
    let good = [
        format!("node.id=={id}"),
        format!("node.hostname=={}", host.to_uppercase()),
        format!("node.hostname != {host}x"),
        "node.role == MANAGER".to_owned(),
        "node.platform.os==linux".to_owned(),
        format!("node.platform.arch=={}", text(&platform["Architecture"])),
        format!("node.ip=={}", text(&node["Status"]["Addr"])),
        "node.ip==127.0.0.0/8".to_owned(),
        "node.ip!=10.0.0.0/8".to_owned(),
        "engine.labels.nosuch!=x".to_owned(),
    ];
    let all = cx.service("good", json!({"TaskTemplate": {"Placement": {"Constraints": good}}}))?;
    cx.wait_running(&all, 1)?;
    for (number, constraint) in
        ["node.role==worker", "node.unknown==x", "node.ip==10.0.0.0/8", "node.hostname==*"].iter().enumerate()
    {
        let service = cx.service(&format!("bad{number}"), constrained(constraint))?;
        cx.wait_pending(&service, "no suitable node (scheduling constraints not satisfied on 1 node)")?;
    }
    Ok(())
}

fn a_global_service_counts_only_nodes_that_match(cx: &Cx<'_>) -> Result<()> {
    let mut spec = constrained("node.labels.zone==mars");
    crate::cx::merge(&mut spec, json!({"Mode": {"Global": {}}}));
    let service = cx.service("svc", spec)?;
    let mut update = constrained("node.role==manager");
    crate::cx::merge(&mut update, json!({"Labels": {"a": "b"}}));
    same!(cx.tasks(&service)?.len(), 0, "tasks where no node matches");
    cx.update(&service, update)?;
    cx.wait_running(&service, 1)?;
    cx.update(&service, constrained("node.labels.zone==mars"))?;
    cx.until("no task should run any more", || {
        let live = cx.tasks(&service)?.into_iter().filter(|task| task["DesiredState"] == "running").count();
        ensure!(live == 0, "{}", cx.states(&service)?);
        Ok(())
    })
}

fn a_platform_that_no_node_has_says_so(cx: &Cx<'_>) -> Result<()> {
    let platform = json!({"TaskTemplate": {"Placement": {"Platforms": [{"Architecture": "s390x", "OS": "linux"}]}}});
    let service = cx.service("svc", platform)?;
    cx.wait_pending(&service, "no suitable node (unsupported platform on 1 node)")?;
    let platform = json!({"TaskTemplate": {"Placement": {"Platforms": [{"Architecture": "s390x", "OS": "linux"}, {"OS": "linux"}]}}});
    let service = cx.service("any", platform)?;
    cx.wait_running(&service, 1).map(drop)
}

fn preferences_never_prevent_placement(cx: &Cx<'_>) -> Result<()> {
    let preferences = json!([{"Spread": {"SpreadDescriptor": "node.labels.zone"}}, {"Spread": {"SpreadDescriptor": "engine.labels.rack"}}]);
    let spec =
        json!({"TaskTemplate": {"Placement": {"Preferences": preferences}}, "Mode": {"Replicated": {"Replicas": 3}}});
    let service = cx.service("svc", spec)?;
    cx.wait_running(&service, 3)?;
    same!(
        cx.see_service(&service)?["Spec"]["TaskTemplate"]["Placement"]["Preferences"],
        preferences,
        "preferences read back"
    );
    Ok(())
}

fn a_pending_task_runs_once_the_service_allows_it(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", constrained("node.labels.zone==mars"))?;
    cx.wait_pending(&service, "no suitable node (scheduling constraints not satisfied on 1 node)")?;
    cx.update(&service, constrained("node.labels.zone!=mars"))?;
    cx.wait_running(&service, 1).map(drop)
}

fn reservations_add_up_and_are_given_back(cx: &Cx<'_>) -> Result<()> {
    let node = cx.get(&format!("/nodes/{}", cx.node_id()?))?.json()?;
    let all = node["Description"]["Resources"]["NanoCPUs"].as_u64().unwrap_or_default();
    let reserve = |cpus: u64| json!({"TaskTemplate": {"Resources": {"Reservations": {"NanoCPUs": cpus}}}});
    let first = cx.service("first", reserve(all / 2 + 1))?;
    cx.wait_running(&first, 1)?;
    let second = cx.service("second", reserve(all / 2 + 1))?;
    cx.wait_pending(&second, "no suitable node (insufficient resources on 1 node)")?;
    cx.delete(&format!("/services/{first}"))?.status(200)?;
    cx.wait_running(&second, 1).map(drop)
}
