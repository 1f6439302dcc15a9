//! What is put right after each story.

use serde_json::{Value, json};

use super::view::{Cluster, SOON};
use crate::cx::{array, text};
use crate::ensure;
use crate::error::Result;
use crate::launch::Kind;

/// The managers of a cluster of five.
const MANAGERS: [usize; 3] = [1, 2, 3];

impl Cluster<'_> {
    /// Cables in, engines running, five nodes as they were, nothing left of the story.
    ///
    /// # Errors
    /// The cluster does not become whole again.
    pub fn heal(&self) -> Result<()> {
        self.revive()?;
        self.wait_write(&MANAGERS)?;
        self.wait_managers(1, 3)?;
        self.wait_ready(1, self.lab.nodes().count())?;
        for node in self.lab.nodes() {
            let role = if MANAGERS.contains(&node) { "manager" } else { "worker" };
            let id = self.id(node)?;
            let spec = self.cx(1).get(&format!("/nodes/{id}"))?.json()?["Spec"].take();
            let bare = spec["Labels"].as_object().is_none_or(|labels| labels.is_empty());
            if !bare || spec["Role"] != role || spec["Availability"] != "active" {
                self.update_node(1, &id, &json!({"Role": role, "Availability": "active", "Labels": {}}))?;
            }
        }
        self.wait_managers(1, 3)?;
        self.clean()
    }

    /// Every engine runs and no longer is in a swarm.
    ///
    /// # Errors
    /// One does not.
    pub fn disband(&self) -> Result<()> {
        self.revive()?;
        for node in self.lab.nodes() {
            self.until("the node leaves", SOON, || {
                let state = self.info(node)?["LocalNodeState"].take();
                if state == "inactive" {
                    return Ok(());
                }
                self.call(node, "POST", "/swarm/leave?force=1", None)?.ok().map(drop)
            })?;
            self.until("its containers are gone", SOON, || {
                let left = self.containers(node)?;
                ensure!(left.is_empty(), "{} are left on node {node}", left.len());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Cables in, engines running.
    ///
    /// # Errors
    /// One does not start.
    pub fn revive(&self) -> Result<()> {
        let nodes: Vec<usize> = self.lab.nodes().collect();
        self.lab.act("mend", &nodes)?;
        let paused = self.lab.run(&["ls"])?.lines().filter(|line| line.contains(" paused ")).count();
        if paused > 0 {
            for node in &nodes {
                // one that has ended need not be resumed
                if let Err(error) = self.lab.act("resume", &[*node]) {
                    ensure!(error.to_string().contains("does not run"), "{error}");
                }
            }
        }
        self.lab.act("start", &nodes)
    }

    /// The reference leaves containers of jobs behind.
    fn sweep(&self, node: usize) -> Result<()> {
        let ended = self.containers(node)?.into_iter().filter(|container| container["State"] == "exited");
        for container in ended.filter(|_| self.lab.kind == Kind::Reference) {
            self.cx(node).delete(&format!("/containers/{}", text(&container["Id"])))?;
        }
        Ok(())
    }

    /// Removes everything that bears the story's names.
    fn clean(&self) -> Result<()> {
        for (kind, filter) in [("services", "name"), ("secrets", "name"), ("configs", "name")] {
            self.until(&format!("the story's {kind} are gone"), SOON, || {
                let found = self.lab.engine(1).list(&format!("/{kind}"), &json!({filter: [self.prefix()]}))?;
                for object in &found {
                    self.cx(1).delete(&format!("/{kind}/{}", text(&object["ID"])))?.ok()?;
                }
                Ok(())
            })?;
        }
        for node in self.lab.nodes() {
            self.until("its containers are gone", SOON, || {
                self.sweep(node)?;
                let left = self.containers(node)?;
                let names: Vec<&Value> = left.iter().flat_map(|container| array(&container["Names"])).collect();
                ensure!(left.is_empty(), "node {node} has {names:?}");
                Ok(())
            })?;
        }
        Ok(())
    }
}
