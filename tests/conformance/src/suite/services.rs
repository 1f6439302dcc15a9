//! What the tests of services have in common.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cx::{Cx, merge, text};
use crate::ensure;
use crate::error::Result;
use crate::http::Answer;

impl Cx<'_> {
    /// Creates a service of sleeping busyboxes with `spec` laid over it; its id.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn service(&self, suffix: &str, spec: Value) -> Result<String> {
        let created = self.try_service(suffix, spec)?.status(201)?.json()?;
        Ok(text(&created["ID"]))
    }

    /// Asks for a service and returns the engine's answer as it is.
    ///
    /// # Errors
    /// The connection fails.
    pub fn try_service(&self, suffix: &str, spec: Value) -> Result<Answer> {
        let mut body = json!({"Name": self.name(suffix), "TaskTemplate": {"ContainerSpec": {
            "Image": "busybox:latest", "Command": ["sleep", "1000"], "StopSignal": "SIGKILL"}}});
        merge(&mut body, spec);
        self.post("/services/create", &body)
    }

    /// Creates a service whose containers run this shell line; its id.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn shell_service(&self, suffix: &str, line: &str, spec: Value) -> Result<String> {
        let mut body = json!({"TaskTemplate": {"ContainerSpec": {"Command": ["sh", "-c", line]}}});
        merge(&mut body, spec);
        self.service(suffix, body)
    }

    /// A service as the engine describes it.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn see_service(&self, id: &str) -> Result<Value> {
        self.get(&format!("/services/{id}"))?.json()
    }

    /// Sends the service's spec back with a change, again as long as others change the service in between.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn update(&self, id: &str, change: Value) -> Result<()> {
        self.until("an update that nobody overtakes", || {
            let service = self.see_service(id)?;
            let mut spec = service["Spec"].clone();
            merge(&mut spec, change.clone());
            let version = &service["Version"]["Index"];
            self.post(&format!("/services/{id}/update?version={version}"), &spec)?.status(200).map(drop)
        })
    }

    /// Asks for the previous spec.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn roll_back(&self, id: &str) -> Result<()> {
        self.until("a rollback that nobody overtakes", || {
            let service = self.see_service(id)?;
            let path = format!("/services/{id}/update?rollback=previous&version={}", service["Version"]["Index"]);
            self.post(&path, &service["Spec"])?.status(200).map(drop)
        })
    }

    /// The tasks of a service.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn tasks(&self, service: &str) -> Result<Vec<Value>> {
        self.engine.list("/tasks", &json!({"service": [service]}))
    }

    /// The tasks of a service that should run and do.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn running(&self, service: &str) -> Result<Vec<Value>> {
        let mut tasks = self.tasks(service)?;
        tasks.retain(|task| task["DesiredState"] == "running" && task["Status"]["State"] == "running");
        Ok(tasks)
    }

    /// Waits until exactly `count` tasks should run and all of them do.
    ///
    /// # Errors
    /// That does not come true in time.
    pub fn wait_running(&self, service: &str, count: usize) -> Result<Vec<Value>> {
        self.until(&format!("{count} running tasks"), || {
            let wanted = self.tasks(service)?.into_iter().filter(|task| task["DesiredState"] == "running").count();
            let running = self.running(service)?;
            ensure!(
                running.len() == count && wanted == count,
                "{} run of {wanted} wanted: {}",
                running.len(),
                self.states(service)?
            );
            Ok(running)
        })
    }

    /// Waits until the program of a running task has made `/tmp/ready`: that it runs says nothing about how far it is.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_ready(&self, task: &Value) -> Result<()> {
        let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
        self.until("the task's program is ready", || {
            let (code, _) = self.exec(&container, &["test", "-e", "/tmp/ready"], json!({}))?;
            crate::same!(code, 0, "exit code of the question");
            Ok(())
        })
    }

    /// Waits for a task of the service for which `wanted` holds.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_task(&self, service: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until(what, || {
            let found = self.tasks(service)?.into_iter().find(&wanted);
            match found {
                Some(task) => Ok(task),
                None => Err(crate::error::Failure::Wrong(self.states(service)?)),
            }
        })
    }

    /// Waits for two more tasks of a service whose tasks end and are replaced: the first may have been decided on already.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn wait_another(&self, service: &str) -> Result<()> {
        let mut seen: BTreeSet<String> = ids(&self.tasks(service)?).into_iter().collect();
        let before = seen.len();
        self.until("two more tasks", || {
            seen.extend(ids(&self.tasks(service)?));
            ensure!(seen.len() >= before + 2, "{}", self.states(service)?);
            Ok(())
        })
    }

    /// Waits until the service's update status is `state`; the status.
    ///
    /// # Errors
    /// That does not come true in time.
    pub fn wait_update(&self, service: &str, state: &str) -> Result<Value> {
        self.until(&format!("update status {state}"), || {
            let status = self.see_service(service)?["UpdateStatus"].clone();
            ensure!(status["State"] == state, "status {status}; {}", self.states(service)?);
            Ok(status)
        })
    }

    /// One line about each task, for messages.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn states(&self, service: &str) -> Result<String> {
        let tasks = self.tasks(service)?;
        let lines = tasks.iter().map(|task| {
            let status = &task["Status"];
            format!(
                "slot {} {}/{} {} {}",
                task["Slot"],
                text(&task["DesiredState"]),
                text(&status["State"]),
                text(&status["Message"]),
                text(&status["Err"])
            )
        });
        Ok(lines.collect::<Vec<_>>().join("; "))
    }

    /// The id of this node.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn node_id(&self) -> Result<String> {
        Ok(text(&self.get("/info")?.json()?["Swarm"]["NodeID"]))
    }

    /// Sends this node's spec back with a change.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn update_node(&self, change: Value) -> Result<()> {
        let id = self.node_id()?;
        self.until("a node update that nobody overtakes", || {
            let node = self.get(&format!("/nodes/{id}"))?.json()?;
            let mut spec = node["Spec"].clone();
            merge(&mut spec, change.clone());
            self.post(&format!("/nodes/{id}/update?version={}", node["Version"]["Index"]), &spec)?.status(200).map(drop)
        })
    }
}

/// The ids of some objects, sorted.
#[must_use]
pub fn ids(objects: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = objects.iter().map(|object| text(&object["ID"])).collect();
    ids.sort();
    ids
}

/// Whether this is an id as Swarm makes them.
#[must_use]
pub fn is_swarm_id(id: &str) -> bool {
    id.len() == 25 && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}
