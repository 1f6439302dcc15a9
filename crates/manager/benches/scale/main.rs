//! The simulated scale figure: one real manager (log on disk, planner, scheduler, dispatcher with its gRPC) and thousands of
//! simulated agents in one process. Measures how long it takes from the first `service create` until all tasks run, what memory
//! that needs, and whether the processors are quiet afterwards. The agents run on threads of their own, whose time is told apart.
//!
//! `cargo xtask bench scale-sim`, or `cargo bench -p shoal-manager --bench scale`, both with `-- [--nodes N] [--tasks N]
//! [--services N] [--clients N]`.

mod agent;
mod cluster;
mod pipe;
mod usage;

use std::time::{Duration, Instant};

use shoal_raft::Update;
use shoal_types::object::NodeState;
use shoal_types::{Event, TaskState, View};
use tokio::runtime::{Builder, Handle, Runtime};

use cluster::Cluster;
use usage::Usage;

/// How long the processors are watched once all is done.
const QUIET: Duration = Duration::from_secs(20);
/// How long what is under way may take to settle before that.
const SETTLE: Duration = Duration::from_secs(5);
/// Longer than this, and something is stuck.
const LIMIT: Duration = Duration::from_secs(300);

/// What is to be simulated.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: u64,
    tasks: u64,
    services: u64,
    /// That create services, each one after the other.
    clients: u64,
}

/// How far tasks are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    made: u64,
    placed: u64,
    running: u64,
}

fn main() {
    let size = size(std::env::args().skip(1));
    let (manager, agents) = (runtime("manager"), runtime(usage::AGENTS));
    let good = manager.block_on(run(size, agents.handle()));
    std::process::exit(i32::from(!good));
}

/// Agents have threads of their own: they are on other machines, and the kernel is fair between them and the manager.
fn runtime(name: &str) -> Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build();
    runtime.expect("a runtime of two threads")
}

/// `--bench`, which cargo adds, is passed over.
fn size(mut words: impl Iterator<Item = String>) -> Size {
    let mut size = Size { nodes: 5_000, tasks: 100_000, services: 100, clients: 8 };
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--nodes" => &mut size.nodes,
            "--tasks" => &mut size.tasks,
            "--services" => &mut size.services,
            "--clients" => &mut size.clients,
            _ => continue,
        };
        *place = words.next().and_then(|n| n.parse().ok()).expect("a number follows");
    }
    size
}

async fn run(size: Size, agents: &Handle) -> bool {
    let began = Instant::now();
    let cluster = Cluster::start(size.nodes).await;
    let agents = cluster.connect_agents(agents);
    ready(&cluster, size.nodes).await;
    println!("{} nodes in session after {:.1} s", size.nodes, began.elapsed().as_secs_f64());

    println!("{} clients create {} services", size.clients, size.services);
    let (began, before) = (Instant::now(), Usage::now());
    let creating = cluster.create_services(size.services, size.tasks, size.clients);
    let (times, ()) = tokio::join!(follow(&cluster, size.tasks, began), creating);
    let (took, after) = (began.elapsed(), Usage::now());
    for (what, time) in [("made", times[0]), ("placed", times[1]), ("running", times[2])] {
        println!("{} tasks {what} after {time:.1} s", size.tasks);
    }
    let (peak, cpu) = (after.peak_mib, after.cpu - before.cpu);
    let simulated = (after.agents - before.agents).as_secs_f64();
    println!("processors: {:.1} s, {simulated:.1} s of it for agents; memory at most {peak} MiB", cpu.as_secs_f64());

    tokio::time::sleep(SETTLE).await;
    let before = Usage::now();
    tokio::time::sleep(QUIET).await;
    let [busy, simulated] = Usage::now().share(&before, QUIET);
    println!("afterwards: {busy:.1} % of one processor, {simulated:.1} % of it for agents and their heartbeats");
    let down = cluster.view().nodes().filter(|n| n.status.state != NodeState::Ready).count();
    println!("nodes not ready: {down}; sessions begun: {}", agents.sessions());

    let full = size.nodes >= 5_000 && size.tasks >= 100_000;
    let good = took <= Duration::from_secs(60) && peak <= 2048 && busy < 50.0 && down == 0;
    println!("{}", if good { "the figures are met" } else { "the figures are NOT met" });
    good || !full
}

/// Waits until all nodes are in session.
async fn ready(cluster: &Cluster, nodes: u64) {
    let count = || cluster.view().nodes().filter(|n| n.status.state == NodeState::Ready).count() as u64;
    let began = Instant::now();
    while count() < nodes {
        assert!(began.elapsed() < LIMIT, "only {} nodes came into session", count());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// When all tasks were made, had a node, and ran, in seconds.
async fn follow(cluster: &Cluster, tasks: u64, began: Instant) -> [f64; 3] {
    let (view, mut feed) = cluster.raft.subscribe();
    let mut progress = count(&view);
    let mut times = [None; 3];
    let mut said = Instant::now();
    while times[2].is_none() {
        let update = tokio::time::timeout(LIMIT, feed.next()).await;
        match update.unwrap_or_else(|_| panic!("nothing happens any more: {progress:?}")) {
            Update::Commit(commit) => commit.events.iter().for_each(|event| progress.note(event)),
            Update::Resync(view) => progress = count(&view),
        }
        for (time, so_far) in times.iter_mut().zip([progress.made, progress.placed, progress.running]) {
            if so_far >= tasks && time.is_none() {
                *time = Some(began.elapsed().as_secs_f64());
            }
        }
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            println!("  {:.0} s: {progress:?}", began.elapsed().as_secs_f64());
        }
    }
    times.map(Option::unwrap_or_default)
}

fn count(view: &shoal_raft::Snapshot) -> Progress {
    let mut progress = Progress::default();
    for task in view.tasks() {
        progress.made += 1;
        progress.placed += u64::from(task.status.state >= TaskState::Assigned);
        progress.running += u64::from(task.status.state == TaskState::Running);
    }
    progress
}

impl Progress {
    fn note(&mut self, event: &Event) {
        let Event::Task(both) = event else { return };
        let state = |task: &Option<_>| task.as_ref().map(|t: &std::sync::Arc<shoal_types::Task>| t.status.state);
        let (before, after) = (state(&both.before), state(&both.after));
        let reaches = |wanted: TaskState| u64::from(before < Some(wanted) && after >= Some(wanted));
        self.made += u64::from(before.is_none());
        self.placed += reaches(TaskState::Assigned);
        self.running += reaches(TaskState::Running);
    }
}
