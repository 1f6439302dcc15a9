//! The cluster's authority: locks and roots.

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::text;
use crate::error::{Failure, Result};
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, item_068_a_root_is_rotated_without_a_stop),
    story!(Loose, item_067_a_locked_manager_opens_with_the_key_alone),
];

/// What the list of nodes says about their certificates' roots.
fn roots(nodes: &[Value]) -> Vec<String> {
    let mut roots: Vec<String> = nodes.iter().map(|node| text(&node["Description"]["TLSInfo"]["TrustRoot"])).collect();
    roots.sort();
    roots.dedup();
    roots
}

fn item_068_a_root_is_rotated_without_a_stop(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 5)?;
    let before = cluster.processes(1, &service)?;
    let swarm = |via: usize| -> Result<Value> { cluster.call(via, "GET", "/swarm", None)?.json() };
    let old = swarm(1)?;
    let digest = |swarm: &Value, role: &str| -> String {
        text(&swarm["JoinTokens"][role]).split('-').nth(2).unwrap_or_default().to_owned()
    };
    let round = old["Spec"]["CAConfig"]["ForceRotate"].as_u64().unwrap_or(0) + 1;
    cluster.update_swarm(2, json!({"CAConfig": {"ForceRotate": round}}), "")?;
    let new = cluster.until("the rotation is finished", SOON, || {
        let now = swarm(3)?;
        let finished = now["RootRotationInProgress"] == false;
        let changed = digest(&now, "Worker") != digest(&old, "Worker");
        if !finished && changed {
            return Err(Failure::wrong("the tokens have changed before the rotation was finished"));
        }
        ensure!(finished && changed, "in progress: {}, tokens changed: {changed}", now["RootRotationInProgress"]);
        Ok(now)
    })?;
    same!(digest(&new, "Manager"), digest(&new, "Worker"), "digests of both tokens");
    let root = text(&new["TLSInfo"]["TrustRoot"]);
    ensure!(!root.is_empty() && root != text(&old["TLSInfo"]["TrustRoot"]), "the root is the same");
    cluster.until("every node trusts the new root alone", SOON, || {
        let nodes = cluster.nodes(1)?;
        same!(roots(&nodes), std::slice::from_ref(&root), "roots");
        Ok(())
    })?;
    cluster.wait_ready(1, 5)?;
    same!(cluster.processes(1, &service)?, before, "tasks and their processes");
    // the new certificates are good for a start, and the new token for a join
    cluster.lab.act("kill", &[2, 4])?;
    cluster.lab.act("start", &[2, 4])?;
    cluster.wait_managers(1, 3)?;
    cluster.wait_ready(2, 5)?;
    let five = cluster.id(5)?;
    cluster.leave(5)?;
    cluster.join(5, 2, "Worker")?;
    cluster.until("the node that left is down", SOON, || {
        cluster.cx(1).delete(&format!("/nodes/{five}"))?.status(200).map(drop)
    })?;
    cluster.wait_ready(1, 5)
}

fn item_067_a_locked_manager_opens_with_the_key_alone(cluster: &Cluster<'_>) -> Result<()> {
    cluster.init(1)?.status(200)?;
    let service = cluster.write(1)?;
    for node in [2, 3] {
        cluster.join(node, 1, "Manager")?;
    }
    cluster.wait_managers(1, 3)?;
    cluster.update_swarm(1, json!({"EncryptionConfig": {"AutoLockManagers": true}}), "")?;
    let key = text(&cluster.call(2, "GET", "/swarm/unlockkey", None)?.json()?["UnlockKey"]);
    ensure!(key.starts_with("SWMKEY-1-") && key.len() == 52, "key {key:?}");
    let unlock = |node: usize, key: &str| cluster.call(node, "POST", "/swarm/unlock", Some(&json!({"UnlockKey": key})));
    unlock(1, &key)?.refused(409, "swarm is not locked")?;
    let locked = |node: usize| {
        cluster.until("the manager is locked", SOON, || {
            same!(cluster.info(node)?["LocalNodeState"], "locked", "state of node {node}");
            Ok(())
        })
    };
    // every manager has to have put its own lock on before it is restarted
    cluster.until("one manager after the other comes up locked", SOON, || {
        cluster.lab.act("stop", &[3])?;
        cluster.lab.act("start", &[3])?;
        same!(cluster.info(3)?["LocalNodeState"], "locked", "state of node 3");
        Ok(())
    })?;
    let sentence = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
    cluster.cx(3).get("/nodes")?.refused(503, sentence)?;
    let leave = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
    cluster.call(3, "POST", "/swarm/leave", None)?.refused(503, leave)?;
    unlock(3, "nonsense")?.refused(400, "invalid key string")?;
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    unlock(3, &wrong)?.refused(401, "swarm could not be unlocked: invalid key provided")?;
    same!(cluster.info(3)?["LocalNodeState"], "locked", "state after a wrong key");
    cluster.write(1)?;
    unlock(3, &key)?.status(200)?;
    cluster.wait_managers(3, 3)?;
    cluster.cx(3).see_service(&service)?;
    cluster.lab.act("stop", &[1, 2, 3])?;
    cluster.lab.act("start", &[1, 2, 3])?;
    for node in [1, 2, 3] {
        locked(node)?;
    }
    // one alone has no quorum, and an engine may wait for it with its answer
    let (unlock, key) = (&unlock, key.as_str());
    std::thread::scope(|scope| {
        let unlocking = [1, 2, 3].map(|node| scope.spawn(move || unlock(node, key)));
        let panicked = |_| Failure::wrong("a thread panicked");
        unlocking.into_iter().try_for_each(|one| one.join().map_err(panicked)??.status(200).map(drop))
    })?;
    cluster.wait_write(&[1, 2, 3])?;
    cluster.wait_managers(1, 3)?;
    cluster.cx(2).see_service(&service)?;
    rotate_the_key(cluster, key)
}

fn rotate_the_key(cluster: &Cluster<'_>, old: &str) -> Result<()> {
    cluster.update_swarm(2, json!({}), "&rotateManagerUnlockKey=true")?;
    let new = text(&cluster.call(1, "GET", "/swarm/unlockkey", None)?.json()?["UnlockKey"]);
    ensure!(new != old, "the key is the same");
    let unlock = |key: &str| cluster.call(3, "POST", "/swarm/unlock", Some(&json!({"UnlockKey": key})));
    cluster.until("the new key alone opens", SOON, || {
        cluster.lab.act("stop", &[3])?;
        cluster.lab.act("start", &[3])?;
        let refused = unlock(old)?;
        if refused.status == 200 {
            cluster.wait_managers(1, 3)?;
            return Err(Failure::wrong("the old key still opens"));
        }
        refused.status(401)?;
        unlock(&new)?.status(200).map(drop)
    })?;
    cluster.wait_managers(1, 3)
}
