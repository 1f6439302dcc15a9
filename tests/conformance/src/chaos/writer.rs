//! A client that writes while nodes are in trouble, and remembers what it was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::Game;
use super::dice::Dice;
use crate::client::Engine;
use crate::cx::text;
use crate::http::Answer;

/// How long a client waits for one answer. Docker's own gives up after 20 seconds.
const PATIENCE: Duration = Duration::from_secs(25);
/// Sentences by which an engine may honestly refuse while nodes are in trouble.
const HONEST: &[&str] = &[
    "The swarm does not have a leader",
    "context deadline exceeded",
    "lost leader status",
    "leadership",
    "Manager is being prepared or has trouble connecting to the cluster",
    "This node is not a swarm manager",
    "transport is closing",
    "connection refused",
    "Unavailable",
    "the leader was lost while the change was under way: it may have been made or not",
];
/// An error that is a promise all the same.
const MADE: &str = "the change was made, but this manager does not hear from the leader and does not show it yet";
/// Refusals that follow from an earlier request whose outcome is not known.
const CONSEQUENT: &[&str] = &["update out of sequence", "already exists", "not found"];
const MANAGERS: [usize; 3] = [1, 2, 3];

/// What became of a request.
enum Outcome {
    /// Promised.
    Done(Value),
    /// Refused, or nothing is known of it.
    Unknown,
}

/// What one client may rely on.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Secrets whose creation was acknowledged, and their removal was not asked for.
    pub kept: BTreeSet<String>,
    /// Secrets whose removal was acknowledged.
    pub removed: BTreeSet<String>,
    /// The service's label: the last value that was acknowledged, and the last that was asked for.
    pub acknowledged: u64,
    /// The last that was asked for.
    pub asked: u64,
    /// How many requests were acknowledged.
    pub count: usize,
    /// How many were refused, by their sentence; those that broke off by what broke.
    pub refused: BTreeMap<&'static str, usize>,
    /// Errors that no engine may answer with.
    pub lies: Vec<String>,
}

/// Writes until the time is over.
pub fn write(game: &Game<'_>, client: usize, service: &str) -> Promises {
    let mut dice = Dice::new(game.seed, 100 + client as u64);
    let mut promises = Promises::default();
    let mut number = 0;
    while game.sleep(dice.pause(5, 60)) {
        number += 1;
        let engine = game.lab.engine(dice.pick(&MANAGERS));
        match dice.below(3) {
            0 => create(engine, &format!("{}-{client}-{number}", game.prefix), &mut promises),
            1 if promises.kept.len() > 3 => {
                let position = dice.below(promises.kept.len());
                let name = promises.kept.iter().nth(position).cloned().unwrap_or_default();
                remove(engine, &name, &mut promises);
            }
            _ => label(engine, service, client, &mut promises),
        }
    }
    promises
}

fn create(engine: &Engine, name: &str, promises: &mut Promises) {
    let body = json!({"Name": name, "Data": "c2VjcmV0"});
    if let Outcome::Done(_) = ask(engine, "POST", "/secrets/create", Some(&body), promises) {
        promises.kept.insert(name.to_owned());
    }
}

fn remove(engine: &Engine, name: &str, promises: &mut Promises) {
    // from the moment it is asked for nothing is promised any more
    promises.kept.remove(name);
    if let Outcome::Done(_) = ask(engine, "DELETE", &format!("/secrets/{name}"), None, promises) {
        promises.removed.insert(name.to_owned());
    }
}

fn label(engine: &Engine, service: &str, client: usize, promises: &mut Promises) {
    let Outcome::Done(seen) = ask(engine, "GET", &format!("/services/{service}"), None, promises) else { return };
    let mut spec = seen["Spec"].clone();
    let next = promises.asked + 1;
    spec["Labels"][format!("client{client}")] = json!(next.to_string());
    promises.asked = next;
    let path = format!("/services/{service}/update?version={}", seen["Version"]["Index"]);
    if let Outcome::Done(_) = ask(engine, "POST", &path, Some(&spec), promises) {
        promises.acknowledged = next;
    }
}

fn ask(engine: &Engine, method: &str, path: &str, body: Option<&Value>, promises: &mut Promises) -> Outcome {
    let refusal = match engine.call_within(PATIENCE, method, path, body) {
        Ok(answer) if (200..300).contains(&answer.status) => {
            promises.count += 1;
            return Outcome::Done(serde_json::from_slice(&answer.body).unwrap_or(Value::Null));
        }
        Ok(answer) if answer.status >= 500 && answer.text().contains(MADE) => {
            promises.count += 1;
            return Outcome::Done(Value::Null);
        }
        Ok(answer) => match sentence(&answer) {
            Some(sentence) => sentence,
            None => {
                promises.lies.push(format!("{method} {path}: {} {}", answer.status, answer.text()));
                return Outcome::Unknown;
            }
        },
        Err(error) if error.to_string().contains("Resource temporarily") => "silence",
        Err(_) => "a broken connection",
    };
    *promises.refused.entry(refusal).or_default() += 1;
    Outcome::Unknown
}

/// The honest sentence in a refusal.
fn sentence(answer: &Answer) -> Option<&'static str> {
    let message = serde_json::from_slice::<Value>(&answer.body).map(|body| text(&body["message"])).unwrap_or_default();
    let honest = HONEST.iter().filter(|_| answer.status >= 500);
    honest.chain(CONSEQUENT).find(|sentence| message.contains(**sentence)).copied()
}
