//! The engine under test: the Engine API as JSON over HTTP, and the `docker` command.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Failure, Result};
use crate::http::{Address, Answer, SILENCE, Stream, encode};

/// The newest API version that these tests were written for.
const NEWEST: Api = Api(1, 53);

/// An Engine API version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Api(pub u16, pub u16);

/// An engine that answers.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Where it listens.
    pub address: Address,
    /// The version that every versioned request asks for: the engine's newest that the tests know.
    pub api: Api,
    /// The docker client's program, where this machine has one that the engine accepts.
    pub cli: Option<String>,
}

/// How a command of the docker client ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Api {
    /// Parses `1.44`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Engine {
    /// Asks the engine at `address` for its version.
    ///
    /// # Errors
    /// It does not answer, or not as an engine does.
    pub fn connect(address: Address) -> Result<Self> {
        let answer = address
            .request("GET", "/_ping", &[], b"")
            .map_err(|error| Failure::wrong(format!("no engine answers on {}: {error}", address.url())))?;
        let api = answer.header("api-version").and_then(Api::parse);
        let api = api.ok_or_else(|| Failure::wrong("the engine's answer to /_ping has no Api-Version header"))?;
        let mut engine = Self { address, api: api.min(NEWEST), cli: None };
        let program = std::env::var("CLIENT").unwrap_or_else(|_| "docker".to_owned());
        engine.cli = Some(program);
        let works =
            engine.docker(&["version", "--format", "{{.Server.APIVersion}}"], None).is_ok_and(|done| done.code == 0);
        engine.cli = engine.cli.filter(|_| works);
        Ok(engine)
    }

    /// Waits until an engine answers at `address`.
    ///
    /// # Errors
    /// None does within `patience`.
    pub fn wait(address: &Address, patience: Duration) -> Result<Self> {
        let end = Instant::now() + patience;
        loop {
            match Self::connect(address.clone()) {
                Ok(engine) => return Ok(engine),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Sends a request for a versioned path and returns whatever the engine answers.
    ///
    /// # Errors
    /// The connection fails.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.call_within(SILENCE, method, path, body)
    }

    /// The same with an engine that may stay silent for so long only.
    ///
    /// # Errors
    /// The connection fails, or nothing comes in time.
    pub fn call_within(&self, silence: Duration, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let headers: &[_] = if body.is_some() { &[("Content-Type", "application/json")] } else { &[] };
        let path = format!("/v{}{path}", self.api);
        let answer = self.address.request_within(silence, method, &path, headers, bytes.as_bytes());
        answer.map_err(|error| Failure::wrong(format!("{method} {path}: {error}")))
    }

    /// Opens a streaming answer for a versioned path.
    ///
    /// # Errors
    /// The connection fails.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Stream> {
        let path = format!("/v{}{path}", self.api);
        self.address
            .open(method, &path, headers, body)
            .map_err(|error| Failure::wrong(format!("{method} {path}: {error}")))
    }

    /// `GET`.
    ///
    /// # Errors
    /// The connection fails.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.call("GET", path, None)
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// The connection fails.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call("POST", path, Some(body))
    }

    /// `POST` without a body.
    ///
    /// # Errors
    /// The connection fails.
    pub fn act(&self, path: &str) -> Result<Answer> {
        self.call("POST", path, None)
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// The connection fails.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.call("DELETE", path, None)
    }

    /// `GET` of a list with filters.
    ///
    /// # Errors
    /// The connection fails, or the engine refuses.
    pub fn list(&self, path: &str, filters: &Value) -> Result<Vec<Value>> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let answer = self.get(&format!("{path}{joint}filters={}", encode(&filters.to_string())))?.json()?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    }

    /// Loads an image archive.
    ///
    /// # Errors
    /// The engine refuses it.
    pub fn load(&self, archive: &[u8]) -> Result<String> {
        let path = format!("/v{}/images/load?quiet=1", self.api);
        let answer = self.address.request("POST", &path, &[("Content-Type", "application/x-tar")], archive)?.ok()?;
        let text = answer.text();
        if text.contains("errorDetail") { Err(Failure::wrong(format!("load: {text}"))) } else { Ok(text) }
    }

    /// Whether the engine is a swarm manager.
    ///
    /// # Errors
    /// The connection fails, or the engine refuses.
    pub fn in_swarm(&self) -> Result<bool> {
        Ok(self.get("/info")?.json()?["Swarm"]["LocalNodeState"] == "active")
    }

    /// Makes a swarm of this one node.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn swarm_init(&self) -> Result<String> {
        let body = serde_json::json!({"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"});
        let id = self.post("/swarm/init", &body)?.json()?;
        Ok(id.as_str().unwrap_or_default().to_owned())
    }

    /// Leaves the swarm, with force.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn swarm_leave(&self) -> Result<()> {
        self.act("/swarm/leave?force=1")?.ok().map(drop)
    }

    /// Runs the docker client, with `input` on its standard input.
    ///
    /// # Errors
    /// There is no client that this engine accepts.
    pub fn docker(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<Done> {
        let program = self.cli.as_deref();
        let program =
            program.ok_or_else(|| Failure::Skipped("no docker client here that the engine accepts".to_owned()))?;
        let mut command = Command::new(program);
        command.args(arguments).env("DOCKER_HOST", self.address.url());
        finish(command, input)
    }
}

/// Runs a command to its end and takes what it prints.
///
/// # Errors
/// It cannot be started.
pub fn finish(mut command: Command, input: Option<&[u8]>) -> Result<Done> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::wrong(format!("{shown}: {error}")))?;
    let feeder = child.stdin.take().zip(input.map(<[u8]>::to_vec)).map(|(mut pipe, bytes)| {
        // the command may end without reading all of it
        std::thread::spawn(move || pipe.write_all(&bytes).is_ok())
    });
    let output = child.wait_with_output()?;
    if let Some(feeder) = feeder {
        feeder.join().map_err(|_| Failure::wrong(format!("{shown}: feeding its input failed")))?;
    }
    Ok(Done {
        command: shown,
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// The answer, if its status is a success.
    ///
    /// # Errors
    /// The engine refused; the failure has its status and message.
    pub fn ok(self) -> Result<Self> {
        if (200..300).contains(&self.status) {
            Ok(self)
        } else {
            Err(Failure::wrong(format!("answered {} {}", self.status, self.text())))
        }
    }

    /// A successful answer's body as JSON.
    ///
    /// # Errors
    /// The engine refused, or sent something else.
    pub fn json(self) -> Result<Value> {
        let answer = self.ok()?;
        serde_json::from_slice(&answer.body).map_err(|error| Failure::wrong(format!("{error} in {:?}", answer.text())))
    }

    /// Demands exactly this status.
    ///
    /// # Errors
    /// Another status.
    pub fn status(self, wanted: u16) -> Result<Self> {
        if self.status == wanted {
            Ok(self)
        } else {
            Err(Failure::wrong(format!("wanted {wanted}, answered {} {}", self.status, self.text())))
        }
    }

    /// Demands a refusal with this status, whose message contains this text.
    ///
    /// # Errors
    /// Anything else.
    pub fn refused(self, status: u16, text: &str) -> Result<Self> {
        let answer = self.status(status)?;
        let message = serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .and_then(|body| body["message"].as_str().map(str::to_owned));
        let message =
            message.ok_or_else(|| Failure::wrong(format!("a refusal without a message: {:?}", answer.text())))?;
        if message.contains(text) && !message.is_empty() {
            Ok(answer)
        } else {
            Err(Failure::wrong(format!("wanted a message with {text:?}, got {message:?}")))
        }
    }
}

impl Done {
    /// What it printed, if it ended with exit code 0.
    ///
    /// # Errors
    /// Any other exit code.
    pub fn ok(self) -> Result<String> {
        self.ended(0).map(|done| done.out.trim_end().to_owned())
    }

    /// Demands this exit code.
    ///
    /// # Errors
    /// Any other exit code.
    pub fn ended(self, code: i32) -> Result<Self> {
        if self.code == code {
            Ok(self)
        } else {
            Err(Failure::wrong(format!(
                "`{}` ended with {}, wanted {code}: {}{}",
                self.command, self.code, self.out, self.err
            )))
        }
    }
}
