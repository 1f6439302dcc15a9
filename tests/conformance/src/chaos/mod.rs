//! Chaos: for a given time, anything in a lab is killed, stalled and cut off at random while clients write. Nothing that was
//! acknowledged may be lost, no error may be a lie, and in the end everything heals by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Asked, Cluster, Start};
use crate::cx::{array, text};
use crate::error::{Failure, Result};
use crate::harness::{self, Tally};
use crate::lab::Lab;
use crate::{ensure, same};

pub mod dice;
mod trouble;
mod writer;

use trouble::Diary;
use writer::Promises;

const CLIENTS: usize = 3;
const REPLICAS: usize = 10;
/// Seconds that everything may take to heal.
const HEAL: u64 = 90;
const LOOK: Duration = Duration::from_millis(20);

/// One game.
#[derive(Debug)]
pub struct Game<'a> {
    lab: &'a Lab,
    prefix: String,
    seed: u64,
    began: Instant,
    seconds: u64,
    failed: AtomicBool,
    diary: Diary,
}

impl Game<'_> {
    /// Sleeps; false when the game is over.
    fn sleep(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            if trouble::is_over(self.began, self.seconds) || self.failed.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK.min(pause));
        }
        true
    }

    /// Ends the game early if this has failed.
    fn judge<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// Plays one game of so many seconds; without a seed with one of its own, which it prints.
///
/// # Errors
/// A lab cannot be made.
pub fn run(asked: &Asked, seconds: u64, seed: Option<u64>) -> Result<Option<Tally>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = seed.unwrap_or(now.as_secs() % 1_000_000);
    println!("{seconds} seconds of chaos, seed {seed}");
    let lab = Lab::up(&asked.program, &asked.kind, &Start::Five.shape())?;
    let cluster = Cluster::new(&lab, format!("chaos{}", std::process::id()));
    let mut tally = Tally::default();
    let begin = Instant::now();
    let service = cluster.replicas(1, REPLICAS)?;
    let global = cluster.cx(1).service("global", json!({"Mode": {"Global": {}}}))?;
    cluster.cx(1).wait_running(&global, lab.nodes().count())?;
    let game = Game {
        lab: &lab,
        prefix: cluster.prefix().to_owned(),
        seed,
        began: Instant::now(),
        seconds,
        failed: AtomicBool::new(false),
        diary: Diary::default(),
    };
    let played = play(&game, &service);
    let told = played.as_ref().map_err(again).and_then(|promises| tell(promises));
    harness::report(&mut tally, "every error was an honest one", begin, &told);
    let healing = Instant::now();
    harness::report(&mut tally, "everything heals", healing, &heal(&cluster, &service, &global));
    let kept = played.and_then(|promises| kept(&cluster, &service, &promises));
    harness::report(&mut tally, "nothing that was acknowledged is lost", healing, &kept);
    if tally.failed > 0 {
        leave_traces(&game)?;
    }
    harness::report(&mut tally, "a lab that goes down leaves nothing behind", Instant::now(), &lab.down());
    Ok(Some(tally))
}

fn again(error: &Failure) -> Failure {
    Failure::wrong(error.to_string())
}

fn play(game: &Game<'_>, service: &str) -> Result<Vec<Promises>> {
    std::thread::scope(|scope| {
        let troubles: Vec<_> =
            game.lab.nodes().map(|node| scope.spawn(move || game.judge(trouble::trouble(game, node)))).collect();
        let deaths = scope.spawn(|| game.judge(trouble::kill_containers(game)));
        let writers: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || writer::write(game, client, service))).collect();
        let panicked = |_| Failure::wrong("a player panicked");
        let promises = writers.into_iter().map(|writer| writer.join().map_err(panicked)).collect::<Result<Vec<_>>>();
        let ended = troubles.into_iter().chain([deaths]).map(|player| player.join().map_err(panicked)?);
        ended.collect::<Result<Vec<()>>>().and(promises)
    })
}

/// Says how it went; fails if nothing went at all.
fn tell(promises: &[Promises]) -> Result<()> {
    let count: usize = promises.iter().map(|one| one.count).sum();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for (sentence, times) in promises.iter().flat_map(|one| &one.refused) {
        *refused.entry(sentence).or_default() += times;
    }
    println!("{count} requests were acknowledged, others not: {refused:?}");
    ensure!(count > 0, "no request was acknowledged");
    let lies: Vec<&String> = promises.iter().flat_map(|one| &one.lies).collect();
    ensure!(lies.is_empty(), "{} are not, such as {:?}", lies.len(), &lies[..lies.len().min(5)]);
    Ok(())
}

/// All nodes ready, all replicas running, and on no node anything else.
fn heal(cluster: &Cluster<'_>, service: &str, global: &str) -> Result<()> {
    cluster.revive()?;
    let nodes = cluster.lab.nodes().count();
    cluster.until("five nodes are ready, three managers reachable", HEAL, || {
        let seen = cluster.nodes(1)?;
        let ready = seen.iter().filter(|node| node["Status"]["State"] == "ready").count();
        let reachable = seen.iter().filter(|node| node["ManagerStatus"]["Reachability"] == "reachable").count();
        same!((ready, reachable), (nodes, 3), "of {}", crate::cluster::list(&seen));
        Ok(())
    })?;
    cluster.until("all tasks run, and their containers and no others", HEAL, || {
        let mut wanted = BTreeSet::new();
        for (service, count) in [(service, REPLICAS), (global, nodes)] {
            let tasks = cluster.cx(1).running(service)?;
            same!(tasks.len(), count, "tasks: {}", cluster.cx(1).states(service)?);
            wanted.extend(tasks.iter().map(|task| text(&task["Status"]["ContainerStatus"]["ContainerID"])));
        }
        let mut found = BTreeSet::new();
        for node in cluster.lab.nodes() {
            let running = cluster.containers(node)?.into_iter().filter(|container| container["State"] == "running");
            found.extend(running.map(|container| text(&container["Id"])));
        }
        let (more, less) = (found.difference(&wanted).count(), wanted.difference(&found).count());
        ensure!(more + less == 0, "{more} containers run without a task, {less} tasks have none");
        Ok(())
    })?;
    cluster.wait_agreement(&[1, 2, 3])
}

/// Compares what was promised with what is there.
fn kept(cluster: &Cluster<'_>, service: &str, promises: &[Promises]) -> Result<()> {
    for via in [1, 2, 3] {
        let secrets = cluster.call(via, "GET", "/secrets", None)?.json()?;
        let there: BTreeSet<String> = array(&secrets).iter().map(|secret| text(&secret["Spec"]["Name"])).collect();
        let labels: Value = cluster.cx(via).see_service(service)?["Spec"]["Labels"].take();
        for (client, one) in promises.iter().enumerate() {
            let lost: Vec<_> = one.kept.difference(&there).collect();
            ensure!(lost.is_empty(), "manager {via} has lost {lost:?}");
            let back: Vec<_> = one.removed.intersection(&there).collect();
            ensure!(back.is_empty(), "manager {via} still has {back:?}");
            let value: u64 = text(&labels[format!("client{client}")]).parse().unwrap_or(0);
            ensure!(
                (one.acknowledged..=one.asked).contains(&value),
                "manager {via} says {value} where {} was acknowledged and {} asked for",
                one.acknowledged,
                one.asked
            );
        }
    }
    Ok(())
}

/// Keeps what happened and what the engines said, for whoever has to find out why.
fn leave_traces(game: &Game<'_>) -> Result<()> {
    let place = std::env::temp_dir().join(format!("chaos-{}", game.seed));
    std::fs::create_dir_all(&place)?;
    std::fs::write(place.join("diary"), game.diary.text())?;
    for node in game.lab.nodes() {
        std::fs::copy(game.lab.home(node).join("log"), place.join(format!("log{node}")))?;
    }
    println!("{} troubles; what happened and the engines' logs are in {}", game.diary.count(), place.display());
    Ok(())
}
