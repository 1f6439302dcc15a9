//! A course's walk through services on one node, typed with the docker client: every step is a command of the course, and what
//! follows it is what the course says that one sees. With `restart` the daemon is killed and started again between any two steps,
//! and nobody must be able to tell.

use std::time::{Duration, Instant};

use crate::client::{Done, Engine};
use crate::error::{Failure, Result};
use crate::harness::Tally;
use crate::http::Address;
use crate::images;
use crate::launch::{Daemon, Kind};

/// One step: the course's text and what is done.
type Step = (&'static str, fn(&mut Walk) -> Result<()>);

const STEPS: &[Step] = &[
    ("the swarm is off", the_swarm_is_off),
    ("swarm init", swarm_init),
    ("join tokens", join_tokens),
    ("the swarm is on", the_swarm_is_on),
    ("node ls", node_ls),
    ("leave", leave),
    ("init again", init_again),
    ("service create", service_create),
    ("service ls", service_ls),
    ("service ps", service_ps),
    ("ps", ps),
    ("rm -f its container", remove_its_container),
    ("the swarm heals", the_swarm_heals),
    ("service logs --since", service_logs_since),
    ("service inspect", service_inspect),
    ("update the image", update_the_image),
    ("service ps after the update", service_ps_after_the_update),
    ("logs of both versions", logs_of_both_versions),
    ("roll back", roll_back),
    ("version 1 again", version_1_again),
    ("service rm", service_rm),
];

/// The service that the course makes.
const NAME: &str = "timecheck";
/// How long what a step leads to may take, on a slow machine. Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Where the walk is, and what it has seen.
#[derive(Debug)]
struct Walk {
    engine: Engine,
    tally: Tally,
    /// The container that the course removes.
    removed: String,
}

/// Walks against an engine of its own, or the one at `DOCKER_HOST`.
///
/// # Errors
/// The engine does not start, or `restart` is asked for without one to restart.
pub fn run(kind: Option<Kind>, restart: bool) -> Result<Option<Tally>> {
    let mut daemon = kind.map(|kind| Daemon::new(kind, "walk")).transpose()?;
    if restart && daemon.is_none() {
        return Err(Failure::wrong("--restart needs an engine that this program starts: --shoal BINARY"));
    }
    let engine = match &mut daemon {
        Some(daemon) => daemon.start()?,
        None => Engine::connect(Address::from_environment().map_err(Failure::Wrong)?)?,
    };
    if engine.cli.is_none() {
        println!("skipped: there is no docker client here that the engine accepts (API 1.44 and newer)");
        return Ok(Some(Tally { skipped: STEPS.len(), ..Tally::default() }));
    }
    images::load_all(&engine)?;
    let mut walk = Walk { engine, tally: Tally::default(), removed: String::new() };
    for (number, (text, step)) in STEPS.iter().enumerate() {
        println!("step {}: {text}", number + 1);
        if let Some(daemon) = daemon.as_mut().filter(|_| restart && number > 0) {
            daemon.kill()?;
            walk.engine = daemon.start()?;
        }
        if let Err(error) = step(&mut walk) {
            walk.check("the step's commands", false, &error.to_string());
        }
    }
    if walk.engine.in_swarm()? {
        walk.engine.swarm_leave()?;
    }
    if let Some(daemon) = daemon.filter(|_| walk.tally.failed > 0) {
        println!("the daemon's log ends with:\n{}", daemon.log_tail(40));
    }
    Ok(Some(walk.tally))
}

// === impl Walk ===

impl Walk {
    fn check(&mut self, what: &str, fine: bool, seen: &str) {
        if fine {
            self.tally.passed += 1;
            println!("  ok   {what}");
        } else {
            self.tally.failed += 1;
            println!("  FAIL {what}");
            seen.lines().take(15).for_each(|line| println!("       | {line}"));
        }
    }

    /// Types a command.
    fn type_in(&self, line: &str) -> Result<Done> {
        self.engine.docker(&line.split(' ').collect::<Vec<_>>(), None)
    }

    /// Types a command; all that it prints, on both streams.
    fn seen(&self, line: &str) -> Result<String> {
        let done = self.type_in(line)?;
        Ok(format!("{}{}", done.out, done.err))
    }

    /// Types a command and checks that it prints each of these texts, and does so at once.
    fn sees(&mut self, line: &str, texts: &[&str]) -> Result<String> {
        let seen = self.seen(line)?;
        for text in texts {
            self.check(&format!("{line}: {text}"), seen.contains(text), &seen);
        }
        Ok(seen)
    }

    /// Types a command until what it prints is as wanted: what is so in the end, and not yet while the daemon comes back.
    fn until(&mut self, what: &str, line: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen(line)?;
            if wanted(&seen) || Instant::now() > end {
                self.check(what, wanted(&seen), &seen);
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Looks at the service's tasks until they are as wanted, each of them a line of name, image, desired state, state and error.
    fn tasks_until(&mut self, what: &str, wanted: impl Fn(&[&str]) -> bool) -> Result<()> {
        let line = format!(
            "service ps {NAME} --no-trunc --format {{{{.Name}}}}\t{{{{.Image}}}}\t{{{{.DesiredState}}}}\t{{{{.CurrentState}}}}\t{{{{.Error}}}}"
        );
        self.until(what, &line, |seen| wanted(&seen.lines().collect::<Vec<_>>()))
    }
}

fn is_swarm_id(text: &str) -> bool {
    crate::suite::services::is_swarm_id(text)
}

fn the_swarm_is_off(walk: &mut Walk) -> Result<()> {
    walk.sees("info", &[" Swarm: inactive"]).map(drop)
}

fn swarm_init(walk: &mut Walk) -> Result<()> {
    let seen = walk.sees(
        "swarm init --advertise-addr 127.0.0.1",
        &["is now a manager", "swarm join --token SWMTKN-1-", " 127.0.0.1:2377"],
    )?;
    let id = seen.split_once("current node (").and_then(|(_, rest)| rest.split_once(')')).unwrap_or_default().0;
    walk.check("the node's id", is_swarm_id(id), &seen);
    walk.sees("swarm init", &["This node is already part of a swarm"]).map(drop)
}

fn join_tokens(walk: &mut Walk) -> Result<()> {
    walk.sees("swarm join-token worker", &["join --token SWMTKN-1-"])?;
    walk.sees("swarm join-token manager", &["join --token SWMTKN-1-"])?;
    let worker = walk.type_in("swarm join-token -q worker")?.ok()?;
    let manager = walk.type_in("swarm join-token -q manager")?.ok()?;
    walk.check("the two differ", worker != manager, &worker);
    walk.type_in("swarm join-token --rotate -q worker")?.ok()?;
    let rotated = walk.type_in("swarm join-token -q worker")?.ok()?;
    walk.check("rotation makes another", rotated != worker && rotated.starts_with("SWMTKN-1-"), &rotated);
    Ok(())
}

fn the_swarm_is_on(walk: &mut Walk) -> Result<()> {
    walk.until("info says active", "info", |seen| seen.contains(" Swarm: active"))
}

fn node_ls(walk: &mut Walk) -> Result<()> {
    let all = [" *  ", "Ready", "Active", "Leader"];
    walk.until("the node is ready, and leads", "node ls", |seen| all.iter().all(|text| seen.contains(text)))?;
    let (nodes, seen) = (walk.type_in("node ls -q")?.ok()?, walk.seen("node ls")?);
    walk.check("one node", nodes.lines().count() == 1 && seen.contains(&nodes), &seen);
    Ok(())
}

fn leave(walk: &mut Walk) -> Result<()> {
    walk.sees("swarm leave", &["--force"])?;
    walk.sees("swarm leave --force", &["Node left the swarm"])?;
    walk.sees("info", &[" Swarm: inactive"])?;
    walk.sees("node ls", &["This node is not a swarm manager"]).map(drop)
}

fn init_again(walk: &mut Walk) -> Result<()> {
    walk.sees("swarm init --advertise-addr 127.0.0.1", &["Swarm initialized"]).map(drop)
}

fn service_create(walk: &mut Walk) -> Result<()> {
    walk.sees(&format!("service create --name {NAME} --replicas 1 shoal/clock:1.0"), &["converged"])?;
    walk.sees(
        &format!("service create --detach --name {NAME} shoal/clock:1.0"),
        &["name conflicts with an existing object"],
    )
    .map(drop)
}

fn service_ls(walk: &mut Walk) -> Result<()> {
    let all = [NAME, "replicated", "1/1", "shoal/clock:1.0"];
    walk.until("it has all its replicas", "service ls", |seen| all.iter().all(|text| seen.contains(text)))
}

fn service_ps(walk: &mut Walk) -> Result<()> {
    let runs = format!("{NAME}.1\tshoal/clock:1.0\tRunning\tRunning ");
    walk.tasks_until("its container, image and state", |tasks| tasks.len() == 1 && tasks[0].starts_with(&runs))
}

fn ps(walk: &mut Walk) -> Result<()> {
    let seen = walk.type_in("ps --format {{.Names}}")?.ok()?;
    let task = seen.strip_prefix(&format!("{NAME}.1."));
    walk.check("the container is on this machine", task.is_some_and(is_swarm_id), &seen);
    Ok(())
}

fn remove_its_container(walk: &mut Walk) -> Result<()> {
    let id = walk.type_in("ps --last 1 -q")?.ok()?;
    let seen = walk.type_in(&format!("rm -f {id}"))?.ok()?;
    walk.check("removed", seen == id, &seen);
    walk.removed = id;
    Ok(())
}

fn the_swarm_heals(walk: &mut Walk) -> Result<()> {
    let removed = walk.removed.clone();
    walk.until("a new container", &format!("ps --filter name={NAME}.1 -q"), |seen| {
        seen.lines().count() == 1 && seen.trim() != removed
    })?;
    walk.tasks_until("running again", |tasks| tasks.iter().any(|task| task.contains("\tRunning\tRunning ")))?;
    let errors = ["task: non-zero exit", "No such container", "container destroyed"];
    walk.tasks_until("the old one is kept, failed, with its error", |tasks| {
        let failed = tasks.iter().find(|task| task.contains("\tShutdown\tFailed "));
        let error = failed.and_then(|task| task.rsplit('\t').next()).unwrap_or_default();
        errors.iter().any(|text| error.contains(text))
    })
}

fn service_logs_since(walk: &mut Walk) -> Result<()> {
    walk.until("lines with the task's name", &format!("service logs --since 10s {NAME}"), |seen| {
        seen.lines().any(|line| {
            line.starts_with(&format!("{NAME}.1.")) && line.contains('@') && line.contains("| clock 1.0 on ")
        })
    })
}

fn service_inspect(walk: &mut Walk) -> Result<()> {
    walk.sees(&format!("service inspect {NAME}"), &["\"Image\": \"shoal/clock:1.0"])?;
    walk.sees(&format!("service inspect --pretty {NAME}"), &["Service Mode:\tReplicated"]).map(drop)
}

fn update_the_image(walk: &mut Walk) -> Result<()> {
    walk.sees(&format!("service update --image shoal/clock:2.0 {NAME}"), &["converged"]).map(drop)
}

fn service_ps_after_the_update(walk: &mut Walk) -> Result<()> {
    let runs = format!("{NAME}.1\tshoal/clock:2.0\tRunning\tRunning ");
    walk.tasks_until("version 2 runs", |tasks| tasks.iter().any(|task| task.starts_with(&runs)))?;
    walk.tasks_until("version 1 was shut down", |tasks| {
        tasks.iter().any(|task| task.contains("shoal/clock:1.0\tShutdown\tShutdown "))
    })
}

fn logs_of_both_versions(walk: &mut Walk) -> Result<()> {
    walk.until("both versions", &format!("service logs --since 200s {NAME}"), |seen| {
        seen.contains("clock 1.0 on ") && seen.contains("clock 2.0 on ")
    })
}

fn roll_back(walk: &mut Walk) -> Result<()> {
    let seen = walk.seen(&format!("service update --rollback {NAME}"))?;
    walk.check(
        "rolls back",
        seen.contains("rollback: manually requested rollback") || seen.contains("converged"),
        &seen,
    );
    Ok(())
}

fn version_1_again(walk: &mut Walk) -> Result<()> {
    let runs = format!("{NAME}.1\tshoal/clock:1.0\tRunning\tRunning ");
    walk.tasks_until("version 1 runs", |tasks| tasks.iter().any(|task| task.starts_with(&runs)))?;
    walk.until("and speaks last", &format!("service logs --since 5s {NAME}"), |seen| {
        seen.lines().last().is_some_and(|line| line.contains("clock 1.0 on "))
    })
}

fn service_rm(walk: &mut Walk) -> Result<()> {
    let seen = walk.type_in(&format!("service rm {NAME}"))?.ok()?;
    walk.check("removed", seen == NAME, &seen);
    walk.until("all its containers go", &format!("ps -q --filter name={NAME}"), str::is_empty)?;
    walk.sees(&format!("service ps {NAME}"), &["no such service: timecheck"]).map(drop)
}
