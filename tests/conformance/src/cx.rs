//! What one test works with: the engine, names that are its own, and the removal of everything that bears them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Api, Done, Engine};
use crate::error::{Failure, Result};
use crate::http::{Answer, Stream, encode};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long what should happen soon may take, on a slow machine with other tests beside. Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A test's own view of the engine.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The engine under test.
    pub engine: &'a Engine,
    prefix: String,
}

/// A container's output, demultiplexed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// What came on stream 1.
    pub out: String,
    /// What came on stream 2.
    pub err: String,
}

impl<'a> Cx<'a> {
    /// A view whose names begin with `prefix`.
    #[must_use]
    pub fn new(engine: &'a Engine, prefix: String) -> Self {
        Self { engine, prefix }
    }

    /// A name for something that this test makes; it is removed when the test ends.
    #[must_use]
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    /// `GET`.
    ///
    /// # Errors
    /// The connection fails.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.engine.get(path)
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// The connection fails.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.engine.post(path, body)
    }

    /// `POST` without a body.
    ///
    /// # Errors
    /// The connection fails.
    pub fn act(&self, path: &str) -> Result<Answer> {
        self.engine.act(path)
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// The connection fails.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.engine.delete(path)
    }

    /// Runs the docker client.
    ///
    /// # Errors
    /// There is none that the engine accepts; the test is skipped.
    pub fn docker(&self, arguments: &[&str]) -> Result<Done> {
        self.engine.docker(arguments, None)
    }

    /// Looks until `condition` gives a value.
    ///
    /// # Errors
    /// It does not within a minute; the failure says what was waited for and the condition's last complaint.
    pub fn until<T>(&self, what: &str, condition: impl FnMut() -> Result<T>) -> Result<T> {
        self.until_within(what, PATIENCE, condition)
    }

    /// Looks until `condition` gives a value, but not for longer than `patience`.
    ///
    /// # Errors
    /// It does not; the failure says what was waited for and the condition's last complaint.
    pub fn until_within<T>(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let end = Instant::now() + patience;
        loop {
            match condition() {
                Ok(value) => return Ok(value),
                Err(Failure::Wrong(why)) if Instant::now() > end => {
                    return Err(Failure::Wrong(format!("not within {patience:?}: {what}: {why}")));
                }
                Err(Failure::Wrong(_)) => std::thread::sleep(LOOK),
                Err(skipped) => return Err(skipped),
            }
        }
    }

    /// Creates a container of busybox, or of what `spec` names; its id.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn create(&self, suffix: &str, spec: Value) -> Result<String> {
        let answer = self.try_create(suffix, spec)?.status(201)?.json()?;
        Ok(text(&answer["Id"]))
    }

    /// Asks for a container and returns the engine's answer as it is.
    ///
    /// # Errors
    /// The connection fails.
    pub fn try_create(&self, suffix: &str, spec: Value) -> Result<Answer> {
        let mut body = json!({"Image": "busybox:latest", "StopSignal": "SIGKILL"});
        merge(&mut body, spec);
        self.post(&format!("/containers/create?name={}", self.name(suffix)), &body)
    }

    /// Creates and starts a container; its id.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn run(&self, suffix: &str, spec: Value) -> Result<String> {
        let id = self.create(suffix, spec)?;
        self.act(&format!("/containers/{id}/start"))?.status(204)?;
        Ok(id)
    }

    /// Starts a container that sleeps; its id.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn sleeper(&self, suffix: &str) -> Result<String> {
        self.run(suffix, json!({"Cmd": ["sleep", "1000"]}))
    }

    /// Runs a container to its end; its exit code and output.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn run_to_end(&self, suffix: &str, spec: Value) -> Result<(i64, Output)> {
        let id = self.run(suffix, spec)?;
        let code = self.wait(&id)?;
        Ok((code, self.logs(&id, "stdout=1&stderr=1")?))
    }

    /// Runs a shell line in a container with the extra settings; what it printed, if it succeeded.
    ///
    /// # Errors
    /// The engine refuses, or the line fails.
    pub fn shell(&self, suffix: &str, line: &str, settings: Value) -> Result<String> {
        let mut spec = json!({"Cmd": ["sh", "-c", line]});
        merge(&mut spec, settings);
        let (code, output) = self.run_to_end(suffix, spec)?;
        if code == 0 {
            Ok(output.out.trim_end().to_owned())
        } else {
            Err(Failure::wrong(format!("`{line}` ended with {code}: {output:?}")))
        }
    }

    /// Waits for a container's end; its exit code.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn wait(&self, container: &str) -> Result<i64> {
        let answer = self.act(&format!("/containers/{container}/wait"))?.json()?;
        answer["StatusCode"].as_i64().ok_or_else(|| Failure::wrong(format!("wait without a status: {answer}")))
    }

    /// A container's inspection.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn inspect(&self, container: &str) -> Result<Value> {
        self.get(&format!("/containers/{container}/json"))?.json()
    }

    /// A container's log with these query parameters.
    ///
    /// # Errors
    /// The engine refuses, or its frames are broken.
    pub fn logs(&self, container: &str, query: &str) -> Result<Output> {
        demultiplex(&self.get(&format!("/containers/{container}/logs?{query}"))?.ok()?.body)
    }

    /// Runs a command in a running container; its exit code and output.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn exec(&self, container: &str, command: &[&str], settings: Value) -> Result<(i64, Output)> {
        let mut body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": command});
        merge(&mut body, settings);
        let exec = self.post(&format!("/containers/{container}/exec"), &body)?.status(201)?.json()?;
        let id = text(&exec["Id"]);
        let started = self.post(&format!("/exec/{id}/start"), &json!({}))?.ok()?;
        let state = self.get(&format!("/exec/{id}/json"))?.json()?;
        let code = state["ExitCode"]
            .as_i64()
            .ok_or_else(|| Failure::wrong(format!("an ended exec without exit code: {state}")))?;
        Ok((code, demultiplex(&started.body)?))
    }

    /// Events from `since` (a time as the engine prints it in `docker info`) until they are read with [`Stream::line`].
    ///
    /// # Errors
    /// The engine refuses.
    pub fn events(&self, filters: &Value) -> Result<Stream> {
        self.engine.open("GET", &format!("/events?filters={}", encode(&filters.to_string())), &[], b"")
    }

    /// Removes everything that bears this test's names.
    ///
    /// # Errors
    /// The engine refuses, or a container does not go within a minute.
    pub fn clean(&self) -> Result<()> {
        // without the dash, the first test's names are the beginning of the tenth's
        let prefix = self.name("");
        if self.engine.in_swarm()? {
            for service in self.engine.list("/services", &json!({"name": [prefix]}))? {
                self.delete(&format!("/services/{}", text(&service["ID"])))?.ok()?;
            }
        }
        self.until("every container of the test is gone", || {
            let left = self.mine()?;
            // the reference leaves the tasks of a removed job as they are
            let is_ours = |c: &&Value| self.engine.api < Api(1, 44) || c["Labels"]["com.docker.swarm.task"].is_null();
            for container in left.iter().filter(is_ours) {
                self.delete(&format!("/containers/{}?force=1&v=1", text(&container["Id"])))?;
            }
            let left = self.mine()?;
            crate::ensure!(left.is_empty(), "{} left, {}", left.len(), left[0]["Names"]);
            Ok(())
        })?;
        for kind in if self.engine.in_swarm()? { &["secrets", "configs"][..] } else { &[] } {
            for kept in self.engine.list(&format!("/{kind}"), &json!({"name": [prefix]}))? {
                self.delete(&format!("/{kind}/{}", text(&kept["ID"])))?.ok()?;
            }
        }
        let volumes = self.get("/volumes")?.json()?;
        for volume in volumes["Volumes"].as_array().into_iter().flatten() {
            let name = text(&volume["Name"]);
            if name.starts_with(&prefix) {
                self.delete(&format!("/volumes/{name}"))?.ok()?;
            }
        }
        for image in self.engine.list("/images/json", &json!({}))? {
            for tag in image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if tag.contains(&prefix) {
                    self.delete(&format!("/images/{}?force=1", encode(tag)))?.ok()?;
                }
            }
        }
        Ok(())
    }

    fn mine(&self) -> Result<Vec<Value>> {
        self.engine.list("/containers/json?all=1", &json!({"name": [format!("^/{}-", self.prefix)]}))
    }
}

/// A string value's text, empty for anything else.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An array's elements, none for anything else.
#[must_use]
pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Lays `over` over `base`: objects field by field, everything else as a whole.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Takes a multiplexed stream apart.
///
/// # Errors
/// A header that is not one, or a frame cut short.
pub fn demultiplex(bytes: &[u8]) -> Result<Output> {
    let mut streams: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let mut rest = bytes;
    while let [stream, 0, 0, 0, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let frame = after
            .get(..length)
            .ok_or_else(|| Failure::wrong(format!("a frame of {length} bytes has only {}", after.len())))?;
        streams.entry(*stream).or_default().extend_from_slice(frame);
        rest = &after[length..];
    }
    crate::ensure!(rest.is_empty(), "not a frame header: {:?}", String::from_utf8_lossy(&rest[..rest.len().min(60)]));
    let mut take = |stream| String::from_utf8_lossy(&streams.remove(&stream).unwrap_or_default()).into_owned();
    Ok(Output { out: take(1), err: take(2) })
}
