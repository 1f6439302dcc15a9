//! A cluster as a story sees it: its nodes by number, whoever answers for it, and what is done to all of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Engine;
use crate::cx::{Cx, array, text};
use crate::ensure;
use crate::error::{Failure, Result};
use crate::http::Answer;
use crate::lab::Lab;

/// Seconds that nodes may take to change their state. Docker's take up to a quarter of a minute.
pub const SOON: u64 = 60;
/// How long a request may take in a cluster that is not well.
const PATIENCE: Duration = Duration::from_secs(40);

/// The nodes of a lab, with names that are one story's own.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// The lab.
    pub lab: &'a Lab,
    prefix: String,
    count: AtomicU32,
}

impl<'a> Cluster<'a> {
    /// A view whose names begin with `prefix`.
    #[must_use]
    pub fn new(lab: &'a Lab, prefix: String) -> Self {
        Self { lab, prefix, count: AtomicU32::new(0) }
    }

    /// Names of this story's objects begin so.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A name that nothing has yet.
    #[must_use]
    pub fn fresh(&self, what: &str) -> String {
        format!("{}-{what}{}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A node's engine, with the means of single-node tests.
    #[must_use]
    pub fn cx(&self, node: usize) -> Cx<'a> {
        Cx::new(self.lab.engine(node), self.prefix.clone())
    }

    /// Looks until `condition` gives a value.
    ///
    /// # Errors
    /// It does not within `seconds`.
    pub fn until<T>(&self, what: &str, seconds: u64, condition: impl FnMut() -> Result<T>) -> Result<T> {
        self.cx(1).until_within(what, Duration::from_secs(seconds), condition)
    }

    /// The `Swarm` part of what a node tells of itself.
    ///
    /// # Errors
    /// Its engine does not answer.
    pub fn info(&self, node: usize) -> Result<Value> {
        Ok(self.call(node, "GET", "/info", None)?.json()?["Swarm"].take())
    }

    /// One request to a node that may be in trouble.
    ///
    /// # Errors
    /// The connection fails, or there is no answer in time.
    pub fn call(&self, node: usize, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.lab.engine(node).call_within(PATIENCE, method, path, body)
    }

    /// A node's id in the swarm.
    ///
    /// # Errors
    /// Its engine does not answer, or is in no swarm.
    pub fn id(&self, node: usize) -> Result<String> {
        let id = text(&self.info(node)?["NodeID"]);
        if id.is_empty() { Err(Failure::wrong(format!("node {node} is in no swarm"))) } else { Ok(id) }
    }

    /// The nodes as manager `via` lists them.
    ///
    /// # Errors
    /// It does not.
    pub fn nodes(&self, via: usize) -> Result<Vec<Value>> {
        Ok(array(&self.call(via, "GET", "/nodes", None)?.json()?).to_vec())
    }

    /// The number in the lab of a node that is listed, by its address.
    #[must_use]
    pub fn number(node: &Value) -> Option<usize> {
        let address = [&node["ManagerStatus"]["Addr"], &node["Status"]["Addr"]].into_iter().find_map(Value::as_str)?;
        address.split(':').next()?.rsplit('.').next()?.parse().ok()
    }

    /// Waits until `via` sees exactly `count` nodes ready.
    ///
    /// # Errors
    /// That does not come true in time.
    pub fn wait_ready(&self, via: usize, count: usize) -> Result<()> {
        self.until(&format!("{count} nodes are ready, as node {via} sees it"), SOON, || {
            let nodes = self.nodes(via)?;
            let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
            ensure!(ready == count, "{ready} are: {}", list(&nodes));
            Ok(())
        })
    }

    /// Waits until `via` sees exactly `count` managers that it reaches or that lead.
    ///
    /// # Errors
    /// That does not come true in time.
    pub fn wait_managers(&self, via: usize, count: usize) -> Result<()> {
        self.until(&format!("{count} managers are reachable, as node {via} sees it"), SOON, || {
            let nodes = self.nodes(via)?;
            let reachable = nodes.iter().filter(|node| node["ManagerStatus"]["Reachability"] == "reachable").count();
            ensure!(reachable == count, "{reachable} are: {}", list(&nodes));
            Ok(())
        })
    }

    /// The number of the node that leads, as `via` sees it.
    ///
    /// # Errors
    /// There is none.
    pub fn leader(&self, via: usize) -> Result<usize> {
        let nodes = self.nodes(via)?;
        let leader = nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true);
        leader.and_then(Self::number).ok_or_else(|| Failure::wrong(format!("nobody leads: {}", list(&nodes))))
    }

    /// Managers besides this one, among the first three.
    #[must_use]
    pub fn besides(&self, node: usize) -> [usize; 2] {
        match node {
            1 => [2, 3],
            2 => [1, 3],
            _ => [1, 2],
        }
    }

    /// How many tasks of a service run on each node, from node 1.
    ///
    /// # Errors
    /// The manager does not tell.
    pub fn spread(&self, via: usize, service: &str) -> Result<Vec<usize>> {
        let mut counts = vec![0; self.lab.nodes().count()];
        let nodes = self.nodes(via)?;
        for task in self.cx(via).running(service)? {
            let node = nodes.iter().find(|node| node["ID"] == task["NodeID"]).and_then(Self::number);
            let slot = node.and_then(|number| counts.get_mut(number - 1));
            *slot.ok_or_else(|| Failure::wrong(format!("a task on no node: {}", task["NodeID"])))? += 1;
        }
        Ok(counts)
    }

    /// A service of sleeping busyboxes with this many replicas, all running; its id.
    ///
    /// # Errors
    /// The manager refuses, or they do not run in time.
    pub fn replicas(&self, via: usize, count: usize) -> Result<String> {
        let cx = self.cx(via);
        let name = self.fresh("svc");
        let suffix = name.strip_prefix(&format!("{}-", self.prefix)).unwrap_or_default();
        let service = cx.service(suffix, json!({"Mode": {"Replicated": {"Replicas": count}}}))?;
        cx.wait_running(&service, count)?;
        Ok(service)
    }

    /// One small change of the cluster, tried once.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn write(&self, via: usize) -> Result<String> {
        let body = json!({"Name": self.fresh("w"), "Mode": {"Replicated": {"Replicas": 0}},
            "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}}});
        let made = self.call(via, "POST", "/services/create", Some(&body))?.status(201)?.json()?;
        Ok(text(&made["ID"]))
    }

    /// Waits until one of these managers accepts a change; which.
    ///
    /// # Errors
    /// None does in time.
    pub fn wait_write(&self, managers: &[usize]) -> Result<usize> {
        self.until("a manager accepts a change", SOON, || {
            let tried = managers.iter().map(|via| self.write(*via).map(|_| *via));
            tried.reduce(Result::or).unwrap_or_else(|| Err(Failure::wrong("no manager to ask")))
        })
    }

    /// Waits until these managers tell the same of services, nodes, secrets and configs.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_agreement(&self, managers: &[usize]) -> Result<()> {
        self.until("all managers tell the same", SOON, || {
            for path in ["/services", "/secrets", "/configs"] {
                let told = managers.iter().map(|via| versions(&self.call(*via, "GET", path, None)?.json()?));
                let told = told.collect::<Result<Vec<_>>>()?;
                ensure!(told.windows(2).all(|pair| pair[0] == pair[1]), "{path}: {told:?}");
            }
            Ok(())
        })
    }

    /// This story's containers on a node, running or not.
    ///
    /// # Errors
    /// Its engine does not answer.
    pub fn containers(&self, node: usize) -> Result<Vec<Value>> {
        let filter = json!({"name": [format!("^/{}-", self.prefix)]});
        self.engine(node).list("/containers/json?all=1", &filter)
    }

    /// The running tasks of a service with their processes, sorted.
    ///
    /// # Errors
    /// The manager does not tell.
    pub fn processes(&self, via: usize, service: &str) -> Result<Vec<(String, u64)>> {
        let tasks = self.cx(via).running(service)?;
        let mut seen: Vec<(String, u64)> = tasks
            .iter()
            .map(|task| (text(&task["ID"]), task["Status"]["ContainerStatus"]["PID"].as_u64().unwrap_or_default()))
            .collect();
        seen.sort();
        Ok(seen)
    }

    /// Changes a node's spec, again as long as others change it in between.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn update_node(&self, via: usize, id: &str, change: &Value) -> Result<()> {
        self.until("a node update that nobody overtakes", 20, || {
            let answer = self.try_update_node(via, id, change)?;
            answer.status(200).map(drop)
        })
    }

    /// The same once, with the engine's answer as it is.
    ///
    /// # Errors
    /// The connection fails, or there is no such node.
    pub fn try_update_node(&self, via: usize, id: &str, change: &Value) -> Result<Answer> {
        let node = self.call(via, "GET", &format!("/nodes/{id}"), None)?.json()?;
        let mut spec = node["Spec"].clone();
        for (field, value) in change.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let path = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
        self.call(via, "POST", &path, Some(&spec))
    }

    /// Labels a node; these are all that it has then.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn label(&self, node: usize, labels: &Value) -> Result<()> {
        self.update_node(1, &self.id(node)?, &json!({"Labels": labels}))
    }

    fn engine(&self, node: usize) -> &Engine {
        self.lab.engine(node)
    }
}

/// Object ids with their versions, in order.
fn versions(list: &Value) -> Result<Vec<(String, u64)>> {
    let mut seen: Vec<(String, u64)> = array(list)
        .iter()
        .map(|object| (text(&object["ID"]), object["Version"]["Index"].as_u64().unwrap_or(0)))
        .collect();
    seen.sort();
    Ok(seen)
}

/// One line about each node, for messages.
#[must_use]
pub fn list(nodes: &[Value]) -> String {
    let line = |node: &Value| {
        let manager = &node["ManagerStatus"];
        let role = match (manager["Leader"] == true, manager["Reachability"].as_str()) {
            (true, _) => "leader",
            (_, Some(reachability)) => reachability,
            (_, None) => "worker",
        };
        let number = Cluster::number(node).map_or_else(|| "?".to_owned(), |number| number.to_string());
        format!("{number} {} {} {role}", text(&node["Status"]["State"]), text(&node["Spec"]["Availability"]))
    };
    nodes.iter().map(line).collect::<Vec<_>>().join("; ")
}
