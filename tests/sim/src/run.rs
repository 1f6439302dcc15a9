//! One run: a cluster comes up, works through bad weather, and must be well afterwards.

use std::time::Duration;

use shoal_manager::RandomIds;
use shoal_types::ClusterId;
use shoal_types::spec::{ClusterSpec, RaftConfig};
use tokio::runtime::{Builder, RngSeed};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chaos::{Weather, rage};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::invariants::FINAL;
use crate::machine::Site;
use crate::net::Net;
use crate::observer::Observer;
use crate::place;
use crate::plant::Plant;
use crate::process::Directory;
use crate::saboteur;
use crate::world::World;

/// Virtual time that a run may take.
const LIMIT: Duration = Duration::from_secs(1_800);

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violation: Option<String>,
    /// What happened last.
    pub trace: Vec<String>,
    /// The same for two runs in which the same happened.
    pub fingerprint: (u64, u64),
    /// How long it took in its own time.
    pub virtual_time: Duration,
}

/// Runs `seed`.
pub fn run(seed: u64, plant: Option<Plant>, verbose: bool) -> Report {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
    place::watch(&mut builder);
    let runtime = builder.build().expect("a runtime without I/O needs nothing from the system");
    let report = runtime.block_on(async {
        let world = World::new(seed, plant, verbose);
        let stay = world.inhabit();
        let lived = tokio::time::timeout(LIMIT, live(&world)).await;
        match lived {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.violated(error),
            Err(_) => world.violated("the run does not end"),
        }
        drop(stay);
        Report {
            seed,
            violation: world.violation(),
            trace: world.trace(),
            fingerprint: world.fingerprint(),
            virtual_time: world.elapsed(),
        }
    });
    runtime.shutdown_background();
    report
}

async fn live(world: &World) -> Result<(), String> {
    let managers = world.pick(&[1, 3, 3, 3, 5]).unwrap_or(3);
    let workers = world.draw(0..4) as usize;
    let weather = Weather::draw(world);
    world.note(format_args!("{managers} managers, {workers} workers, {weather:?}"));
    let site = Site {
        world: world.clone(),
        net: Net::new(world),
        directory: Directory::default(),
        observer: Observer::new(world),
        cluster: ClusterId::new(&mut RandomIds),
        limits: draw_limits(world),
    };
    let mut cluster = Cluster::boot(site, managers, workers).await?;
    let (stop, stopped) = watch::channel(false);
    let client = Client {
        world: world.clone(),
        directory: cluster.site.directory.clone(),
        ledger: cluster.ledger.clone(),
        pace: world.draw(50..1_500),
    };
    let mut clients = JoinSet::new();
    for _ in 0..world.draw(2..6) {
        clients.spawn(client.clone().run(stopped.clone()));
    }
    clients.spawn(saboteur::run(world.clone(), cluster.site.directory.clone(), stopped));
    rage(&mut cluster, &client, &weather).await;
    heal(&mut cluster, &client, stop, clients).await?;
    world.note("calm");
    for invariant in FINAL {
        for violation in (invariant.check)(&cluster) {
            world.violated(format_args!("{}: {violation}", invariant.name));
        }
    }
    Ok(())
}

async fn heal(
    cluster: &mut Cluster,
    client: &Client,
    stop: watch::Sender<bool>,
    mut clients: JoinSet<()>,
) -> Result<(), String> {
    let world = cluster.site.world.clone();
    world.note("the chaos ends");
    cluster.mend();
    stop.send_replace(true);
    while clients.join_next().await.is_some() {}
    cluster.clean(client).await?;
    cluster.calm().await.map_err(|e| format!("does not heal: {e}"))?;
    if world.chance(0.2) {
        world.note("all managers but one are lost");
        cluster.lose_quorum();
        cluster.clean(client).await?;
        cluster.calm().await.map_err(|e| format!("does not go on by force: {e}"))?;
    }
    cluster.make_last().await?;
    cluster.calm().await.map_err(|e| format!("does not settle: {e}"))
}

fn draw_limits(world: &World) -> RaftConfig {
    RaftConfig {
        snapshot_interval: world.pick(&[10, 50, 200, 10_000]).unwrap_or(200),
        log_entries_for_slow_followers: world.pick(&[0, 5, 50, 500]).unwrap_or(500),
        ..ClusterSpec::initial().raft
    }
}
