//! `cargo xtask bench cluster`: what a cluster of five does when it loses its leader or a node, and how fast it takes changes;
//! Shoal and dockerd in the same lab, by turns. The simulated figures of thousands of nodes are beside them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conformance::cluster::{Cluster, Start};
use conformance::error::{Failure, Result};
use conformance::lab::Lab;
use conformance::launch::Kind;
use serde_json::json;

use super::report::{self, Better, Row};
use super::{median, simulated};
use crate::packages::{self, For};
use crate::shell::{build, demand_root, say};

const ROUNDS: usize = 3;
const REPLICAS: usize = 10;
const CLIENTS: usize = 64;
/// How long the clients write, after as long a run-up as is told.
const WRITING: Duration = Duration::from_secs(8);
const RUN_UP: Duration = Duration::from_secs(2);
const STALL: Duration = Duration::from_secs(2);
/// Seconds that an engine may take to recover.
const PATIENCE: u64 = 120;

/// What one engine did, in the medians of its rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// Seconds from the leader's loss to the next change that another manager accepts.
    leader: f64,
    /// Seconds from a node's loss until all its tasks run elsewhere.
    node: f64,
    /// Tasks that moved because nodes stalled for two seconds.
    moved: f64,
    /// Changes a second.
    writes: f64,
}

/// Measures both and writes the cluster's part of `docs/benchmarks.md`.
///
/// # Errors
/// A lab cannot be made, or an engine does not recover.
pub fn run() -> Result<()> {
    demand_root()?;
    packages::ensure(For::Bench)?;
    let shoal = build("shoal", true)?;
    say("dockerd, in a lab of three managers and two workers");
    let docker = measure(&shoal, &Kind::Reference)?;
    say("Shoal, in the same lab");
    let own = measure(&shoal, &Kind::Shoal(shoal.clone()))?;
    let mut rows = rows(&own, &docker);
    rows.extend(simulated::rows()?);
    rows.iter().for_each(|row| println!("{row}"));
    report::write_cluster(&rows)
}

fn rows(own: &Measured, docker: &Measured) -> Vec<Row> {
    let row = |what, number, unit, wanted, better| Row { what, number, unit, wanted, better };
    vec![
        row("leader killed and cut off, to the next write elsewhere", own.leader, "s", 2.0, Better::Lower),
        row("the same", docker.leader / own.leader, "times faster than dockerd", 10.0, Better::Higher),
        row("node killed and cut off, to its tasks running elsewhere", own.node, "s", 5.0, Better::Lower),
        row("the same", docker.node / own.node, "times faster than dockerd", 4.0, Better::Higher),
        row("tasks that move when a node's daemon stalls for 2 s", own.moved, "", 0.0, Better::Lower),
        row("changes through three managers, 64 clients, fsync", own.writes, "a second", 2000.0, Better::Higher),
        row("the same", own.writes / docker.writes, "times as many as dockerd", 0.0, Better::Told),
    ]
}

fn measure(program: &Path, kind: &Kind) -> Result<Measured> {
    let lab = Lab::up(program, kind, &Start::Five.shape())?;
    let cluster = Cluster::new(&lab, format!("bench{}", std::process::id()));
    let service = cluster.replicas(1, REPLICAS)?;
    let measured = Measured {
        writes: writes(&cluster)?,
        moved: stall(&cluster, &service)? as f64,
        leader: rounds("leader lost", || lose_leader(&cluster))?,
        node: rounds("node lost", || lose_node(&cluster))?,
    };
    lab.down()?;
    println!("  {measured:?}");
    Ok(measured)
}

fn rounds(what: &str, mut once: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(once()?);
        println!("  {what}: {:.2} s", times.last().copied().unwrap_or_default());
    }
    Ok(median(times))
}

/// Kills and cuts off the leader; seconds until one of the others accepts a change. Two clients ask, one each.
fn lose_leader(cluster: &Cluster<'_>) -> Result<f64> {
    let leader = cluster.leader(1)?;
    let others = cluster.besides(leader);
    let names: Vec<(usize, String)> = others.iter().map(|via| (*via, cluster.fresh("lost"))).collect();
    let begin = Instant::now();
    cluster.lab.act("cut", &[leader])?;
    cluster.lab.act("kill", &[leader])?;
    let done = AtomicBool::new(false);
    let ask = |via: usize, name: &str| -> Option<f64> {
        let body = json!({"Name": name, "Data": "eA=="});
        while !done.load(Ordering::Relaxed) && begin.elapsed().as_secs() < PATIENCE {
            let answer = cluster.lab.engine(via).post("/configs/create", &body);
            // a first try that broke off may have been accepted all the same
            if answer.is_ok_and(|answer| [201, 409].contains(&answer.status)) {
                done.store(true, Ordering::Relaxed);
                return Some(begin.elapsed().as_secs_f64());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    };
    let took = std::thread::scope(|scope| {
        let ask = &ask;
        let clients: Vec<_> = names.iter().map(|(via, name)| scope.spawn(move || ask(*via, name))).collect();
        clients.into_iter().filter_map(|client| client.join().ok().flatten()).reduce(f64::min)
    });
    cluster.lab.act("mend", &[leader])?;
    cluster.lab.act("start", &[leader])?;
    whole(cluster)?;
    took.ok_or_else(|| Failure::wrong("no manager accepted a change"))
}

/// Kills and cuts off a worker; seconds until all replicas run on the other nodes.
fn lose_node(cluster: &Cluster<'_>) -> Result<f64> {
    // a service of its own each time, so that the node has its share
    let service = cluster.replicas(1, REPLICAS)?;
    let begin = Instant::now();
    cluster.lab.act("cut", &[5])?;
    cluster.lab.act("kill", &[5])?;
    cluster.until("all replicas run elsewhere", PATIENCE, || {
        let spread = cluster.spread(1, &service)?;
        let elsewhere = spread.iter().take(4).sum::<usize>();
        if elsewhere == REPLICAS && spread[4] == 0 { Ok(()) } else { Err(Failure::wrong(format!("{spread:?}"))) }
    })?;
    let took = begin.elapsed().as_secs_f64();
    cluster.lab.act("mend", &[5])?;
    cluster.lab.act("start", &[5])?;
    whole(cluster)?;
    cluster.cx(1).delete(&format!("/services/{service}"))?.ok()?;
    Ok(took)
}

/// Stalls a worker, another, and the leader, for two seconds each; how many tasks are others afterwards.
fn stall(cluster: &Cluster<'_>, service: &str) -> Result<usize> {
    let before = cluster.processes(1, service)?;
    for node in [4, 5, cluster.leader(1)?] {
        cluster.lab.act("pause", &[node])?;
        std::thread::sleep(STALL);
        cluster.lab.act("resume", &[node])?;
        whole(cluster)?;
    }
    let after = cluster.processes(1, service)?;
    Ok(before.iter().filter(|task| !after.contains(task)).count())
}

fn whole(cluster: &Cluster<'_>) -> Result<()> {
    cluster.wait_write(&[1, 2, 3])?;
    cluster.wait_managers(1, 3)?;
    cluster.wait_ready(1, 5)
}

/// Changes a second that are acknowledged to clients who each wait for one before they ask for the next.
fn writes(cluster: &Cluster<'_>) -> Result<f64> {
    let (count, counting, over) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let client = |client: usize| -> Result<()> {
        let engine = cluster.lab.engine(client % 3 + 1);
        let mut session = engine.address.session()?;
        for number in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let body = json!({"Name": format!("c{client}-{number}"), "Data": "c21hbGw="}).to_string();
            session.ask("POST", &format!("/v{}/configs/create", engine.api), body.as_bytes())?.status(201)?;
            if counting.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let (client, mut took) = (&client, 0.0);
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        std::thread::sleep(RUN_UP);
        counting.store(true, Ordering::Relaxed);
        let begin = Instant::now();
        std::thread::sleep(WRITING);
        counting.store(false, Ordering::Relaxed);
        took = begin.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| Failure::wrong("a client panicked"))?)
    })?;
    Ok(count.load(Ordering::Relaxed) as f64 / took)
}
