//! Managers and workers: promote, demote, leave, join again, remove; and tokens.

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON, list};
use crate::cx::text;
use crate::error::Result;
use crate::http::Answer;
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, a_worker_is_promoted_and_demoted),
    story!(Five, the_leader_is_demoted_and_promoted),
    story!(Five, item_061_a_rotated_token_is_refused_and_members_stay),
    story!(Five, item_063_a_ready_node_is_removed_only_by_force_and_for_good),
    story!(Five, item_065_a_manager_leaves_only_with_force_and_is_told_why),
    story!(Five, a_worker_leaves_and_joins_again_through_another_manager),
    story!(Loose, item_064_the_last_manager_is_not_demoted),
];

impl Cluster<'_> {
    /// Makes a swarm with this node as its first.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn init(&self, node: usize) -> Result<Answer> {
        let address = self.lab.address(node);
        let body = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": format!("{address}:2377")});
        self.call(node, "POST", "/swarm/init", Some(&body))
    }

    /// A join token: `Worker` or `Manager`.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn token(&self, via: usize, role: &str) -> Result<String> {
        Ok(text(&self.call(via, "GET", "/swarm", None)?.json()?["JoinTokens"][role]))
    }

    /// Asks a node to join through another, with this token; its answer.
    ///
    /// # Errors
    /// The connection fails.
    pub fn try_join(&self, node: usize, via: usize, token: &str) -> Result<Answer> {
        let body = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": format!("{}:2377", self.lab.address(node)),
            "RemoteAddrs": [format!("{}:2377", self.lab.address(via))], "JoinToken": token});
        self.call(node, "POST", "/swarm/join", Some(&body))
    }

    /// A node joins through another as `Worker` or `Manager`.
    ///
    /// # Errors
    /// It is refused.
    pub fn join(&self, node: usize, via: usize, role: &str) -> Result<()> {
        self.try_join(node, via, &self.token(via, role)?)?.status(200).map(drop)
    }

    /// A node leaves and everything of the swarm on it is gone.
    ///
    /// # Errors
    /// It is refused, or a container stays.
    pub fn leave(&self, node: usize) -> Result<()> {
        self.call(node, "POST", "/swarm/leave?force=1", None)?.status(200)?;
        same!(self.info(node)?["LocalNodeState"], "inactive", "state of a node that has left");
        self.until("its containers are gone", SOON, || {
            same!(self.containers(node)?.len(), 0, "containers");
            Ok(())
        })
    }

    /// Sends the swarm's spec back, with a change and these parameters.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn update_swarm(&self, via: usize, change: Value, parameters: &str) -> Result<()> {
        self.until("a swarm update that nobody overtakes", 20, || {
            let swarm = self.call(via, "GET", "/swarm", None)?.json()?;
            let mut spec = swarm["Spec"].clone();
            crate::cx::merge(&mut spec, change.clone());
            let path = format!("/swarm/update?version={}{parameters}", swarm["Version"]["Index"]);
            self.call(via, "POST", &path, Some(&spec))?.status(200).map(drop)
        })
    }
}

fn a_worker_is_promoted_and_demoted(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 5)?;
    let before = cluster.processes(1, &service)?;
    let four = cluster.id(4)?;
    cluster.update_node(1, &four, &json!({"Role": "manager"}))?;
    cluster.wait_managers(1, 4)?;
    cluster.wait_ready(4, 5)?;
    cluster.write(4)?;
    cluster.update_node(4, &four, &json!({"Role": "worker"}))?;
    cluster.wait_managers(1, 3)?;
    let hint = "Worker nodes can't be used to view or modify cluster state";
    cluster.until("it answers for the cluster no longer", SOON, || {
        cluster.cx(4).get("/nodes")?.refused(503, hint).map(drop)
    })?;
    cluster.wait_ready(1, 5)?;
    same!(cluster.info(4)?["ControlAvailable"], false, "control");
    cluster.until("no task was touched", SOON, || {
        same!(cluster.processes(1, &service)?, before, "tasks and their processes");
        Ok(())
    })
}

fn the_leader_is_demoted_and_promoted(cluster: &Cluster<'_>) -> Result<()> {
    let leader = cluster.leader(1)?;
    let [other, _] = cluster.besides(leader);
    let id = cluster.id(leader)?;
    cluster.update_node(leader, &id, &json!({"Role": "worker"}))?;
    cluster.until("two managers are left, and one leads", SOON, || {
        let nodes = cluster.nodes(other)?;
        let managers = nodes.iter().filter(|node| node["ManagerStatus"].is_object()).count();
        ensure!(managers == 2 && cluster.leader(other)? != leader, "{}", list(&nodes));
        Ok(())
    })?;
    cluster.write(other)?;
    cluster.wait_ready(other, 5)?;
    cluster.update_node(other, &id, &json!({"Role": "manager"}))?;
    cluster.wait_managers(other, 3)?;
    cluster.wait_ready(leader, 5)?;
    cluster.write(leader).map(drop)
}

fn item_061_a_rotated_token_is_refused_and_members_stay(cluster: &Cluster<'_>) -> Result<()> {
    let old = cluster.token(1, "Worker")?;
    let manager = cluster.token(1, "Manager")?;
    cluster.update_swarm(2, json!({}), "&rotateWorkerToken=true")?;
    let new = cluster.token(3, "Worker")?;
    let parts = |token: &str| -> Vec<String> { token.split('-').map(str::to_owned).collect() };
    same!(parts(&new)[..3], parts(&old)[..3], "all but the last part");
    ensure!(parts(&new)[3] != parts(&old)[3], "the last part is the same");
    same!(cluster.token(3, "Manager")?, manager, "the other token");
    cluster.wait_ready(1, 5)?;
    cluster.leave(5)?;
    let refused = cluster.try_join(5, 1, &old)?;
    ensure!(refused.status >= 400, "the old token was accepted");
    let text = refused.text();
    ensure!(text.contains("A valid join token is necessary to join this cluster"), "{text}");
    same!(cluster.info(5)?["LocalNodeState"], "inactive", "a node that was refused");
    cluster.join(5, 2, "Worker")?;
    remove_down(cluster)?;
    cluster.wait_ready(1, 5)
}

/// Removes the nodes that left.
fn remove_down(cluster: &Cluster<'_>) -> Result<()> {
    cluster.until("what left is down, and removed", SOON, || {
        let nodes = cluster.nodes(1)?;
        for node in nodes.iter().filter(|node| node["Status"]["State"] == "down") {
            cluster.cx(1).delete(&format!("/nodes/{}", text(&node["ID"])))?.ok()?;
        }
        let count = cluster.nodes(1)?.len();
        same!(count, cluster.lab.nodes().count(), "nodes");
        Ok(())
    })
}

fn item_063_a_ready_node_is_removed_only_by_force_and_for_good(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 5)?;
    let id = cluster.id(5)?;
    let cx = cluster.cx(1);
    let refusal = cx.delete(&format!("/nodes/{id}"))?;
    refusal.refused(400, &format!("node {id} is not down and can't be removed"))?;
    let manager = cluster.id(2)?;
    let refusal = cx.delete(&format!("/nodes/{manager}?force=1"))?;
    refusal.refused(400, "must be demoted to worker before removal")?;
    cx.delete(&format!("/nodes/{id}?force=1"))?.status(200)?;
    cx.wait_running(&service, 5)?;
    same!(cluster.nodes(2)?.len(), 4, "nodes");
    // its certificate is worth nothing, however often it comes with it
    cluster.lab.act("kill", &[5])?;
    cluster.lab.act("start", &[5])?;
    let later = cluster.replicas(1, 8)?;
    same!(cluster.nodes(2)?.len(), 4, "nodes after the removed one has started again");
    same!(cluster.spread(1, &later)?, [2, 2, 2, 2, 0], "spread over those that are left");
    cluster.leave(5)?;
    cluster.join(5, 3, "Worker")?;
    ensure!(cluster.id(5)? != id, "the removed node has its old id");
    cluster.wait_ready(1, 5)
}

fn item_065_a_manager_leaves_only_with_force_and_is_told_why(cluster: &Cluster<'_>) -> Result<()> {
    let leave = |node: usize| cluster.call(node, "POST", "/swarm/leave", None);
    let start = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let end = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
    leave(2)?.refused(503, start)?.refused(503, end)?;
    cluster.lab.act("kill", &[3])?;
    cluster.wait_managers(1, 2)?;
    let why = "Removing this node leaves 1 managers out of 3. Without a Raft quorum your swarm will be inaccessible. ";
    cluster.until("the reason is told", SOON, || leave(2)?.refused(503, &format!("{start}{why}{end}")).map(drop))
}

fn a_worker_leaves_and_joins_again_through_another_manager(cluster: &Cluster<'_>) -> Result<()> {
    let service = cluster.replicas(1, 10)?;
    let id = cluster.id(5)?;
    // a worker needs no force
    cluster.call(5, "POST", "/swarm/leave", None)?.status(200)?;
    cluster.until("its containers are gone", SOON, || {
        same!(cluster.containers(5)?.len(), 0, "containers");
        Ok(())
    })?;
    cluster.wait_ready(1, 4)?;
    cluster.cx(1).delete(&format!("/nodes/{id}"))?.status(200)?;
    cluster.cx(1).wait_running(&service, 10)?;
    cluster.join(5, 2, "Worker")?;
    cluster.wait_ready(1, 5)?;
    ensure!(cluster.id(5)? != id, "it has its old id");
    same!(cluster.spread(1, &service)?[4], 0, "tasks that moved to it by themselves");
    Ok(())
}

fn item_064_the_last_manager_is_not_demoted(cluster: &Cluster<'_>) -> Result<()> {
    cluster.init(1)?.status(200)?;
    cluster.join(2, 1, "Worker")?;
    cluster.wait_ready(1, 2)?;
    let refusal = cluster.try_update_node(1, &cluster.id(1)?, &json!({"Role": "worker"}))?;
    refusal.refused(400, "attempting to demote the last manager of the swarm")?;
    cluster.write(1).map(drop)
}
