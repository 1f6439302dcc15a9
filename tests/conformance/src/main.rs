//! `conformance`: runs the tests against the engine that `DOCKER_HOST` names, or against one that it starts itself.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use conformance::client::Engine;
use conformance::error::{Failure, Result};
use conformance::harness::{self, Tally, Test};
use conformance::http::Address;
use conformance::launch::{Daemon, Kind};
use conformance::{chaos, cluster, e2e, suite};

const USAGE: &str = "\
usage: conformance [--list] [--jobs N] [--reference | --shoal BINARY] [FILTER...]
       conformance walkthrough [--reference | --shoal BINARY [--restart]]
       conformance survival --shoal BINARY
       conformance daemon --shoal BINARY
       conformance cluster --shoal BINARY [--reference] [--list] [FILTER...]
       conformance chaos --shoal BINARY [--reference] [--seconds N] [--seed N]

Runs every test whose name contains one of the FILTERs (all without) against the engine at DOCKER_HOST,
or against one that is started for this run in a network namespace of its own:
  --reference      Debian's dockerd (package docker.io)
  --shoal BINARY   this binary's daemon
  --jobs N         how many tests run at a time (4)
  --list           names the tests and ends
walkthrough: a service's life from `swarm init` to `service rm`, typed with the docker client;
  --restart        the daemon is killed with SIGKILL and started again between any two steps
survival: what must outlive the daemon's death and upgrade
daemon: what it refuses to start with, where it listens, and a full disk
cluster: stories of several nodes in labs of BINARY; with --reference the labs run dockerd
chaos: kills, stalls and cuts off anything in a lab at random for --seconds N (60) while clients write";

/// What the command line asks for.
#[derive(Debug, Default)]
struct Asked {
    list: bool,
    restart: bool,
    engine: Option<Kind>,
    program: Option<PathBuf>,
    jobs: usize,
    seconds: u64,
    seed: Option<u64>,
    words: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(|asked| match asked.words.first().map(String::as_str) {
        Some("walkthrough") => e2e::walkthrough::run(asked.engine, asked.restart),
        Some("daemon") => e2e::daemon::run(asked.engine),
        Some("survival") => e2e::survival::run(asked.engine),
        Some("cluster" | "chaos") => tell(asked),
        _ => conform(&asked),
    });
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(tally)) => {
            println!("{tally}");
            if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked> {
    let mut asked = Asked { jobs: 4, seconds: 60, ..Asked::default() };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => asked.list = true,
            "--restart" => asked.restart = true,
            "--reference" => asked.engine = Some(Kind::Reference),
            "--shoal" => {
                let program = PathBuf::from(words.next().ok_or_else(|| Failure::wrong(USAGE))?);
                asked.engine =
                    asked.engine.filter(|kind| *kind == Kind::Reference).or(Some(Kind::Shoal(program.clone())));
                asked.program = Some(program);
            }
            "--jobs" => asked.jobs = number(words.next())?,
            "--seconds" => asked.seconds = number(words.next())?,
            "--seed" => asked.seed = Some(number(words.next())?),
            option if option.starts_with('-') => return Err(Failure::wrong(USAGE)),
            _ => asked.words.push(word),
        }
    }
    Ok(asked)
}

fn number<T: std::str::FromStr>(word: Option<String>) -> Result<T> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| Failure::wrong(USAGE))
}

/// Stories of clusters: whatever the engine, the labs are Shoal's.
fn tell(asked: Asked) -> Result<Option<Tally>> {
    if asked.list {
        cluster::all().iter().for_each(|story| println!("{} ({:?})", story.name, story.start));
        return Ok(None);
    }
    let (Some(program), Some(kind)) = (asked.program, asked.engine) else { return Err(Failure::wrong(USAGE)) };
    let (story, words) = asked.words.split_first().ok_or_else(|| Failure::wrong(USAGE))?;
    let wanted = cluster::Asked { program, kind, words: words.to_vec() };
    if story == "chaos" { chaos::run(&wanted, asked.seconds, asked.seed) } else { cluster::run(&wanted) }
}

fn conform(asked: &Asked) -> Result<Option<Tally>> {
    let wanted =
        |test: &Test| asked.words.is_empty() || asked.words.iter().any(|word| test.name.contains(word.as_str()));
    let tests: Vec<Test> = suite::all().into_iter().filter(wanted).collect();
    if asked.list {
        for test in &tests {
            println!("{} ({:?}, since API {})", test.name, test.place, test.since);
        }
        return Ok(None);
    }
    if let Some(kind) = &asked.engine {
        return conform_inside(kind, asked);
    }
    let engine = Engine::connect(Address::from_environment().map_err(Failure::Wrong)?)?;
    println!("{} tests against {}, API {}", tests.len(), engine.address.url(), engine.api);
    harness::run(&engine, &tests, asked.jobs).map(Some)
}

/// Starts the engine and runs this program again in its network namespace, where its published ports and its loopback are.
fn conform_inside(kind: &Kind, asked: &Asked) -> Result<Option<Tally>> {
    let mut daemon = Daemon::new(kind.clone(), "conform")?;
    for resource in suite::generic::HAS {
        daemon = daemon.option("--node-generic-resource").option(resource);
    }
    let engine = daemon.start()?;
    let own = std::env::current_exe()?;
    let mut again: Command = daemon.inside(&own.display().to_string());
    again.args(["--jobs", &asked.jobs.to_string()]).args(&asked.words).env("DOCKER_HOST", engine.address.url());
    let status = again.status()?;
    if status.success() {
        return Ok(None);
    }
    println!("the daemon's log ends with:\n{}", daemon.log_tail(20));
    drop(daemon);
    std::process::exit(status.code().unwrap_or(2));
}
