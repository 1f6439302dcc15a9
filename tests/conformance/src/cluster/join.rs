//! Swarms from nothing: who gets in, two managers, a new address, and a majority that never comes back.

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::{array, text};
use crate::error::{Failure, Result};
use crate::launch::Kind;
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Loose, item_060_only_a_valid_token_opens),
    story!(Loose, two_managers_are_warned_of),
    story!(Loose, a_node_joins_with_the_availability_that_it_asks_for),
    story!(Loose, a_join_that_is_killed_anywhere_goes_on_or_leaves_nothing),
    story!(Loose, a_manager_comes_back_under_another_address),
    story!(Loose, a_manager_whose_address_changes_while_it_runs_is_found_at_the_new_one),
    story!(Loose, item_066_the_last_of_three_managers_starts_a_new_cluster_with_everything),
    story!(Loose, managers_that_come_back_to_a_cluster_that_went_on_by_force_are_its_workers),
];

fn item_060_only_a_valid_token_opens(cluster: &Cluster<'_>) -> Result<()> {
    cluster.init(1)?.status(200)?;
    let token = cluster.token(1, "Worker")?;
    let mut parts: Vec<&str> = token.split('-').collect();
    let refused = |token: &str, wanted: &str| -> Result<()> {
        let answer = cluster.try_join(2, 1, token)?;
        ensure!(answer.status >= 400, "{token} was accepted");
        ensure!(answer.text().contains(wanted), "{token}: {}", answer.text());
        same!(cluster.info(2)?["LocalNodeState"], "inactive", "a node that was refused");
        Ok(())
    };
    let (digest, secret) = (parts[2], parts[3]);
    let zeros = "0".repeat(25);
    parts[3] = &zeros;
    refused(&parts.join("-"), "A valid join token is necessary to join this cluster")?;
    let zeros = "0".repeat(50);
    (parts[2], parts[3]) = (&zeros, secret);
    refused(&parts.join("-"), "remote CA does not match fingerprint")?;
    refused("nonsense", "invalid join token")?;
    same!(cluster.nodes(1)?.len(), 1, "nodes, after all that");
    ensure!(digest.len() == 50, "digest {digest:?}");
    cluster.join(2, 1, "Worker")?;
    cluster.join(3, 1, "Manager")?;
    cluster.wait_ready(3, 3)
}

fn two_managers_are_warned_of(cluster: &Cluster<'_>) -> Result<()> {
    let warned = |node: usize| -> Result<bool> {
        let info = cluster.info(node)?;
        let warnings = array(&info["Warnings"]).iter().map(text).collect::<Vec<_>>();
        Ok(warnings.iter().any(|text| text.starts_with("WARNING: Running Swarm in a two-manager configuration.")))
    };
    cluster.init(1)?.status(200)?;
    ensure!(!warned(1)?, "one manager is warned of");
    cluster.join(2, 1, "Manager")?;
    cluster.wait_managers(1, 2)?;
    for node in [1, 2] {
        cluster.until("the warning", SOON, || {
            ensure!(warned(node)?, "node {node} does not warn of two managers");
            Ok(())
        })?;
    }
    cluster.write(2)?;
    cluster.join(3, 2, "Manager")?;
    cluster.wait_managers(1, 3)?;
    cluster.until("the warning is gone", SOON, || {
        ensure!(!warned(1)?, "three managers are warned of");
        Ok(())
    })
}

fn a_node_joins_with_the_availability_that_it_asks_for(cluster: &Cluster<'_>) -> Result<()> {
    cluster.init(1)?.status(200)?;
    let token = cluster.token(1, "Worker")?;
    let body = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": cluster.lab.address(2), "JoinToken": token,
        "RemoteAddrs": [format!("{}:2377", cluster.lab.address(1))], "Availability": "drain"});
    cluster.call(2, "POST", "/swarm/join", Some(&body))?.status(200)?;
    cluster.wait_ready(1, 2)?;
    let id = cluster.id(2)?;
    let node = cluster.cx(1).get(&format!("/nodes/{id}"))?.json()?;
    same!(node["Spec"]["Availability"], "drain", "availability");
    same!(node["Status"]["Addr"], cluster.lab.address(2), "address");
    let again = cluster.try_join(2, 1, &token)?;
    again.refused(503, "This node is already part of a swarm").map(drop)
}

/// What a joining node has on disk, step by step.
const STEPS: [&str; 4] =
    ["certificates", "certificates/join.json", "certificates/swarm-node.crt", "raft/log/0000000000000001.log"];

fn a_join_that_is_killed_anywhere_goes_on_or_leaves_nothing(cluster: &Cluster<'_>) -> Result<()> {
    if cluster.lab.kind == Kind::Reference {
        return Err(Failure::Skipped("the steps are those of Shoal's files".to_owned()));
    }
    cluster.init(1)?.status(200)?;
    let files = cluster.lab.home(2).join("data/swarm");
    let killed = |step: &str, role: &str| -> Result<()> {
        let pid = cluster.lab.pid(2)?.to_string();
        let token = cluster.token(1, role)?;
        std::thread::scope(|scope| {
            let join = scope.spawn(|| cluster.try_join(2, 1, &token));
            while !files.join(step).exists() && !join.is_finished() {
                std::hint::spin_loop();
            }
            let kill = std::process::Command::new("kill").args(["-KILL", &pid]).status();
            ensure!(kill?.success(), "cannot kill {pid}");
            // The answer, if one came still, is of no interest.
            drop(join.join());
            Ok(())
        })
    };
    let mut joined = 0;
    for (step, role) in STEPS.iter().flat_map(|step| [(step, "Worker"), (step, "Manager")]) {
        if role == "Worker" && step.starts_with("raft") {
            continue;
        }
        killed(step, role)?;
        cluster.lab.act("kill", &[2])?;
        cluster.lab.act("start", &[2])?;
        let state = cluster.until(&format!("it is in or out, killed at {step} as {role}"), SOON, || {
            let state = text(&cluster.info(2)?["LocalNodeState"]);
            ensure!(["active", "inactive"].contains(&state.as_str()), "{state}");
            Ok(state)
        })?;
        let members = if state == "active" { 2 } else { 1 };
        cluster.wait_ready(1, members)?;
        same!(cluster.nodes(1)?.len(), members, "nodes, killed at {step} as {role}: {state}");
        if state == "active" {
            joined += 1;
            cluster.wait_managers(1, if role == "Manager" { 2 } else { 1 })?;
            let id = cluster.id(2)?;
            cluster.leave(2)?;
            cluster.call(1, "DELETE", &format!("/nodes/{id}?force=true"), None)?.status(200)?;
            cluster.wait_managers(1, 1)?;
        }
    }
    ensure!(joined > 0, "no join went on: the test does not test it");
    Ok(())
}

/// Where manager 2 goes.
const ELSEWHERE: &str = "10.77.0.22";

fn a_manager_comes_back_under_another_address(cluster: &Cluster<'_>) -> Result<()> {
    cluster.init(1)?.status(200)?;
    let body = json!({"JoinToken": cluster.token(1, "Manager")?,
        "RemoteAddrs": [format!("{}:2377", cluster.lab.address(1))]});
    cluster.call(2, "POST", "/swarm/join", Some(&body))?.status(200)?;
    cluster.join(3, 1, "Manager")?;
    cluster.wait_managers(1, 3)?;
    let id = cluster.id(2)?;
    let before = cluster.write(2)?;
    let home = cluster.lab.address(2);
    let rename = |from: &str, to: &str| -> Result<()> {
        cluster.lab.act("stop", &[2])?;
        cluster.lab.inside(2, &["ip", "addr", "del", &format!("{from}/24"), "dev", "eth0"])?;
        cluster.lab.inside(2, &["ip", "addr", "add", &format!("{to}/24"), "dev", "eth0"])?;
        cluster.lab.act("start", &[2])
    };
    rename(&home, ELSEWHERE)?;
    let outcome = (|| {
        cluster.until("it is reachable at its new address", SOON, || {
            let node = cluster.cx(1).get(&format!("/nodes/{id}"))?.json()?;
            same!(text(&node["ManagerStatus"]["Addr"]), format!("{ELSEWHERE}:2377"), "address");
            same!(node["ManagerStatus"]["Reachability"], "reachable", "reachability");
            same!(node["Status"]["State"], "ready", "state");
            Ok(())
        })?;
        same!(cluster.id(2)?, id, "its identity");
        cluster.wait_write(&[2])?;
        cluster.cx(2).see_service(&before)?;
        // with its vote, two of three are a quorum
        cluster.lab.act("kill", &[3])?;
        cluster.wait_write(&[1, 2]).map(drop)
    })();
    cluster.lab.act("start", &[3])?;
    rename(ELSEWHERE, &home)?;
    outcome
}

fn a_manager_whose_address_changes_while_it_runs_is_found_at_the_new_one(cluster: &Cluster<'_>) -> Result<()> {
    if cluster.lab.kind == Kind::Reference {
        return Err(Failure::Skipped("there an address that was named stays, whatever the machine has".to_owned()));
    }
    cluster.init(1)?.status(200)?;
    // these name the address
    cluster.join(2, 1, "Manager")?;
    cluster.join(3, 1, "Manager")?;
    cluster.wait_managers(1, 3)?;
    let (id, home) = (cluster.id(2)?, cluster.lab.address(2));
    let rename = |from: &str, to: &str| -> Result<()> {
        cluster.lab.inside(2, &["ip", "addr", "del", &format!("{from}/24"), "dev", "eth0"])?;
        cluster.lab.inside(2, &["ip", "addr", "add", &format!("{to}/24"), "dev", "eth0"]).map(drop)
    };
    let is_at = |address: &str| {
        cluster.until(&format!("it is reachable at {address}"), SOON, || {
            let node = cluster.cx(1).get(&format!("/nodes/{id}"))?.json()?;
            same!(text(&node["ManagerStatus"]["Addr"]), format!("{address}:2377"), "address");
            same!(node["ManagerStatus"]["Reachability"], "reachable", "reachability");
            same!(node["Status"]["State"], "ready", "state");
            Ok(())
        })
    };
    rename(&home, ELSEWHERE)?;
    let outcome = is_at(ELSEWHERE).and_then(|()| {
        cluster.wait_write(&[2])?;
        same!(cluster.id(2)?, id, "its identity");
        Ok(())
    });
    rename(ELSEWHERE, &home)?;
    // the one that was named counts as soon as it is there
    outcome.and_then(|()| is_at(&home))
}

fn item_066_the_last_of_three_managers_starts_a_new_cluster_with_everything(cluster: &Cluster<'_>) -> Result<()> {
    cluster.init(1)?.status(200)?;
    for node in [2, 3] {
        cluster.join(node, 1, "Manager")?;
    }
    cluster.wait_managers(1, 3)?;
    let service = cluster.replicas(1, 3)?;
    let secret = cluster.fresh("s");
    cluster.cx(2).post("/secrets/create", &json!({"Name": secret, "Data": "c2VjcmV0"}))?.status(201)?;
    let before = cluster.cx(1).see_service(&service)?;
    let running: Vec<Value> = cluster.containers(1)?;
    cluster.lab.act("kill", &[2, 3])?;
    cluster.until("changes are refused with the sentence for it", SOON, || {
        let said = cluster.write(1).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(said.contains("The swarm does not have a leader"), "{said:?}");
        Ok(())
    })?;
    same!(cluster.containers(1)?.len(), running.len(), "containers of the last one");
    let body = json!({"ListenAddr": "0.0.0.0:2377", "ForceNewCluster": true,
        "AdvertiseAddr": format!("{}:2377", cluster.lab.address(1))});
    cluster.call(1, "POST", "/swarm/init", Some(&body))?.status(200)?;
    cluster.wait_write(&[1])?;
    let after = cluster.cx(1).see_service(&service)?;
    same!(after["Spec"], before["Spec"], "the service's spec");
    same!(cluster.lab.engine(1).list("/secrets", &json!({"name": [secret]}))?.len(), 1, "secrets");
    cluster.cx(1).wait_running(&service, 3)?;
    let kept: Vec<String> = cluster.containers(1)?.iter().map(|container| text(&container["Id"])).collect();
    ensure!(running.iter().all(|container| kept.contains(&text(&container["Id"]))), "its container was replaced");
    cluster.lab.act("start", &[2])?;
    cluster.until("another node joins the new cluster", SOON, || {
        cluster.leave(2)?;
        cluster.join(2, 1, "Manager")
    })?;
    cluster.wait_managers(1, 2)?;
    cluster.cx(2).see_service(&service).map(drop)
}

fn managers_that_come_back_to_a_cluster_that_went_on_by_force_are_its_workers(cluster: &Cluster<'_>) -> Result<()> {
    if cluster.lab.kind == Kind::Reference {
        return Err(Failure::Skipped("in Swarm they stay managers by name".to_owned()));
    }
    cluster.init(1)?.status(200)?;
    for node in [2, 3] {
        cluster.join(node, 1, "Manager")?;
    }
    cluster.wait_managers(1, 3)?;
    cluster.lab.act("kill", &[2, 3])?;
    let body = json!({"ListenAddr": "0.0.0.0:2377", "ForceNewCluster": true,
        "AdvertiseAddr": format!("{}:2377", cluster.lab.address(1))});
    cluster.call(1, "POST", "/swarm/init", Some(&body))?.status(200)?;
    cluster.wait_write(&[1])?;
    let after = cluster.write(1)?;
    // both at once: the majority of what there was
    cluster.lab.act("start", &[2, 3])?;
    cluster.until("they are workers", SOON, || {
        for node in [2, 3] {
            let info = cluster.info(node)?;
            same!(info["LocalNodeState"], "active", "state of node {node}");
            same!(info["ControlAvailable"], false, "whether node {node} is a manager");
        }
        Ok(())
    })?;
    cluster.wait_ready(1, 3)?;
    cluster.wait_managers(1, 1)?;
    cluster.cx(1).see_service(&after)?;
    cluster.replicas(1, 3)?;
    cluster.update_node(1, &cluster.id(2)?, &json!({"Role": "manager"}))?;
    cluster.wait_managers(1, 2)?;
    cluster.until("it answers as a manager", SOON, || cluster.cx(2).see_service(&after).map(drop))
}
