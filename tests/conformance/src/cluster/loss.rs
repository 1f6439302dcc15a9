//! What is lost and comes back: nodes, the leader, the quorum, the wire; and stalls and restarts that are no loss.

use std::time::Duration;

use serde_json::json;

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::text;
use crate::error::{Failure, Result};
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, writes_on_any_manager_are_read_on_any_manager),
    story!(Five, item_062_a_killed_worker_is_down_and_its_containers_go_on),
    story!(Five, a_lost_node_is_replaced_and_nothing_moves_back),
    story!(Five, a_worker_that_was_cut_off_stops_what_was_replaced),
    story!(Five, when_the_leader_is_lost_another_leads),
    story!(Five, a_leader_that_is_cut_off_accepts_nothing),
    story!(Five, without_a_quorum_nothing_changes_and_everything_runs_on),
    story!(Five, a_stall_of_two_seconds_moves_nothing),
    story!(Five, a_worker_whose_daemon_restarts_loses_no_task),
    story!(Five, all_daemons_restart_and_no_task_is_lost),
];

fn writes_on_any_manager_are_read_on_any_manager(cluster: &Cluster<'_>) -> Result<()> {
    for round in 0..12 {
        let (writer, reader) = (round % 3 + 1, (round / 3 + round) % 3 + 1);
        let id = cluster.write(writer)?;
        for via in [writer, reader] {
            let seen = cluster.cx(via).get(&format!("/services/{id}"))?;
            same!(seen.status, 200, "written through {writer}, read through {via}");
        }
    }
    let id = cluster.write(1)?;
    let service = cluster.cx(2).see_service(&id)?;
    let path = format!("/services/{id}/update?version={}", service["Version"]["Index"]);
    cluster.cx(2).post(&path, &service["Spec"])?.status(200)?;
    cluster.cx(3).post(&path, &service["Spec"])?.refused(500, "update out of sequence")?;
    cluster.wait_agreement(&[1, 2, 3])?;
    let hint = "Worker nodes can't be used to view or modify cluster state";
    cluster.cx(4).get("/nodes")?.refused(503, hint)?;
    let managers = cluster.nodes(2)?;
    let leaders = managers.iter().filter(|node| node["ManagerStatus"]["Leader"] == true).count();
    same!(leaders, 1, "leaders");
    Ok(())
}

fn item_062_a_killed_worker_is_down_and_its_containers_go_on(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 5)?;
    let id = cluster.id(5)?;
    let task = cluster.cx(1).running(&service)?.into_iter().find(|task| task["NodeID"] == id.as_str());
    let task = task.ok_or_else(|| Failure::wrong("no task on node 5"))?;
    let pid = task["Status"]["ContainerStatus"]["PID"].as_u64().unwrap_or_default();
    cluster.lab.act("kill", &[5])?;
    cluster.wait_ready(1, 4)?;
    let node = cluster.cx(1).get(&format!("/nodes/{id}"))?.json()?;
    same!(node["Status"]["State"], "down", "state");
    ensure!(text(&node["Status"]["Message"]).contains("heartbeat failure"), "message: {}", node["Status"]["Message"]);
    ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "its container has ended");
    cluster.cx(1).wait_running(&service, 5).map(drop)
}

fn a_lost_node_is_replaced_and_nothing_moves_back(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    cluster.lab.act("kill", &[5])?;
    cluster.lab.act("cut", &[5])?;
    cluster.wait_ready(1, 4)?;
    cluster.until("ten run on four nodes", SOON, || {
        let spread = cluster.spread(1, &service)?;
        ensure!(spread[4] == 0 && spread.iter().sum::<usize>() == 10, "{spread:?}");
        Ok(())
    })?;
    cluster.lab.act("mend", &[5])?;
    cluster.lab.act("start", &[5])?;
    cluster.wait_ready(1, 5)?;
    cluster.until("its old containers do not run", SOON, || {
        let left = cluster.containers(5)?.iter().filter(|container| container["State"] == "running").count();
        same!(left, 0, "containers");
        Ok(())
    })?;
    same!(cluster.spread(1, &service)?[4], 0, "tasks that moved back");
    Ok(())
}

fn a_worker_that_was_cut_off_stops_what_was_replaced(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 5)?;
    cluster.lab.act("cut", &[4])?;
    cluster.wait_ready(1, 4)?;
    cluster.until("five run elsewhere", SOON, || {
        let spread = cluster.spread(1, &service)?;
        ensure!(spread[3] == 0 && spread.iter().sum::<usize>() == 5, "{spread:?}");
        Ok(())
    })?;
    let left = cluster.containers(4)?.iter().filter(|container| container["State"] == "running").count();
    same!(left, 1, "containers that run on while it is cut off");
    cluster.lab.act("mend", &[4])?;
    cluster.wait_ready(1, 5)?;
    cluster.until("what was replaced is stopped", SOON, || {
        let left = cluster.containers(4)?.iter().filter(|container| container["State"] == "running").count();
        same!(left, 0, "containers");
        Ok(())
    })?;
    cluster.cx(1).wait_running(&service, 5).map(drop)
}

fn when_the_leader_is_lost_another_leads(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let old = cluster.leader(2)?;
    let others = cluster.besides(old);
    cluster.lab.act("kill", &[old])?;
    cluster.lab.act("cut", &[old])?;
    let other = cluster.wait_write(&others)?;
    cluster.until("another leads", SOON, || {
        let leader = cluster.leader(other)?;
        ensure!(leader != old, "node {leader} leads");
        Ok(())
    })?;
    cluster.until("ten run without it", SOON, || {
        let spread = cluster.spread(other, &service)?;
        ensure!(spread[old - 1] == 0 && spread.iter().sum::<usize>() == 10, "{spread:?}");
        Ok(())
    })?;
    cluster.cx(other).update(&service, json!({"Mode": {"Replicated": {"Replicas": 12}}}))?;
    cluster.cx(other).wait_running(&service, 12)?;
    cluster.lab.act("mend", &[old])?;
    cluster.lab.act("start", &[old])?;
    cluster.wait_managers(other, 3)?;
    cluster.wait_ready(old, 5)?;
    cluster.wait_agreement(&[1, 2, 3])
}

fn a_leader_that_is_cut_off_accepts_nothing(cluster: &Cluster<'_>) -> Result<()> {
    let old = cluster.leader(1)?;
    let others = cluster.besides(old);
    cluster.lab.act("cut", &[old])?;
    let other = cluster.wait_write(&others)?;
    let stray = cluster.fresh("stray");
    let body = json!({"Name": stray, "Mode": {"Replicated": {"Replicas": 0}},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}}});
    // an answer that does not come is as good as a refusal
    if let Ok(answer) = cluster.call(old, "POST", "/services/create", Some(&body)) {
        ensure!(answer.status >= 500, "the leader that is cut off answered {} {}", answer.status, answer.text());
    }
    cluster.lab.act("mend", &[old])?;
    cluster.wait_ready(old, 5)?;
    cluster.wait_managers(other, 3)?;
    cluster.wait_agreement(&[1, 2, 3])?;
    for via in [1, 2, 3] {
        let found = cluster.lab.engine(via).list("/services", &json!({"name": [stray]}))?;
        ensure!(found.is_empty(), "manager {via} knows what was never accepted");
    }
    Ok(())
}

fn without_a_quorum_nothing_changes_and_everything_runs_on(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let before = cluster.processes(1, &service)?;
    let id = cluster.write(1)?;
    cluster.lab.act("kill", &[2, 3])?;
    let refusal = cluster.until("a change is refused", SOON, || match cluster.write(1) {
        Ok(_) => Err(Failure::wrong("a change was accepted")),
        Err(refusal) => Ok(refusal.to_string()),
    })?;
    cluster.until("with the sentence for it", SOON, || {
        let said = cluster.write(1).err().map_or(refusal.clone(), |error| error.to_string());
        ensure!(said.contains("The swarm does not have a leader"), "{said}");
        ensure!(said.contains("answered 500"), "{said}");
        Ok(())
    })?;
    same!(cluster.info(1)?["ControlAvailable"], true, "info answers");
    let running = cluster.containers(1)?.iter().filter(|container| container["State"] == "running").count();
    same!(running, 2, "containers on the manager that is left");
    ensure!(
        before.iter().all(|(_, pid)| std::path::Path::new(&format!("/proc/{pid}")).exists()),
        "a container has ended"
    );
    cluster.lab.act("start", &[2])?;
    cluster.wait_write(&[1])?;
    cluster.lab.act("start", &[3])?;
    cluster.wait_managers(1, 3)?;
    cluster.wait_ready(1, 5)?;
    cluster.cx(3).see_service(&id)?;
    cluster.cx(1).wait_running(&service, 10).map(drop)
}

/// Longer than any engine would wait to declare a node down that has stalled for two seconds.
const STALL: Duration = Duration::from_secs(2);

fn a_stall_of_two_seconds_moves_nothing(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let before = cluster.processes(1, &service)?;
    for node in [5, cluster.leader(1)?, 4] {
        cluster.lab.act("pause", &[node])?;
        std::thread::sleep(STALL);
        cluster.lab.act("resume", &[node])?;
        cluster.wait_write(&[node.min(3)])?;
        let down: Vec<_> =
            cluster.nodes(node.min(3))?.into_iter().filter(|node| node["Status"]["State"] == "down").collect();
        ensure!(down.is_empty(), "a node is down because node {node} stalled: {}", super::view::list(&down));
    }
    cluster.wait_ready(1, 5)?;
    cluster.until("every task is where it was", SOON, || {
        same!(cluster.processes(1, &service)?, before, "tasks and their processes");
        Ok(())
    })
}

fn a_worker_whose_daemon_restarts_loses_no_task(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let before = cluster.processes(1, &service)?;
    for verb in ["stop", "kill"] {
        cluster.lab.act(verb, &[5])?;
        cluster.lab.act("start", &[5])?;
        cluster.wait_ready(1, 5)?;
        // what it runs now is known only once it has reported: a change on that node shows that it has
        let cx = cluster.cx(1);
        let place = json!({"Constraints": [format!("node.id=={}", cluster.id(5)?)]});
        let later = cx.service(verb, json!({"TaskTemplate": {"Placement": place}}))?;
        cx.wait_running(&later, 1)?;
        same!(cluster.processes(1, &service)?, before, "tasks and their processes after {verb}");
    }
    Ok(())
}

fn all_daemons_restart_and_no_task_is_lost(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let before = cluster.processes(1, &service)?;
    let nodes: Vec<usize> = cluster.lab.nodes().collect();
    cluster.lab.act("kill", &nodes)?;
    ensure!(
        before.iter().all(|(_, pid)| std::path::Path::new(&format!("/proc/{pid}")).exists()),
        "a container has ended with its daemon"
    );
    cluster.lab.act("start", &nodes)?;
    cluster.wait_write(&[1])?;
    cluster.wait_ready(1, 5)?;
    cluster.until("every task is where it was", SOON, || {
        same!(cluster.processes(1, &service)?, before, "tasks and their processes");
        Ok(())
    })
}
