//! What goes wrong, and when: each seed draws its own kinds of trouble and how much of it there is.

use std::time::Duration;

use jiff::SignedDuration;
use shoal_types::spec::NodeRole;
use tokio::time::Instant;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::net::Quality;
use crate::place::{self, NOWHERE, Place};
use crate::plant::Plant;
use crate::world::World;

/// The machine that stays a manager where it is: one that was away while all others changed finds them by it.
const ANCHOR: Place = 0;
/// Machines, at most.
const MOST: usize = 9;

/// How much trouble there is.
#[derive(Debug, Clone)]
pub struct Weather {
    /// How long it lasts.
    pub lasts: Duration,
    /// Milliseconds between two events, at most.
    pub pace: u64,
    /// The events of this run; those that come more often are there more than once.
    kinds: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    PowerOff,
    KillLeader,
    Start,
    CutOff,
    CutOneWay,
    CutLeader,
    Split,
    Mend,
    BadNetwork,
    SlowDisk,
    FullDisk,
    ClockJump,
    Join,
    Leave,
    Move,
    ShiftRole,
}

const ALL: &[(Kind, u64)] = &[
    (Kind::Kill, 2),
    (Kind::PowerOff, 3),
    (Kind::KillLeader, 2),
    (Kind::CutOff, 2),
    (Kind::CutOneWay, 2),
    (Kind::CutLeader, 2),
    (Kind::Split, 2),
    (Kind::BadNetwork, 2),
    (Kind::SlowDisk, 2),
    (Kind::FullDisk, 1),
    (Kind::ClockJump, 1),
    (Kind::Join, 1),
    (Kind::Leave, 1),
    (Kind::Move, 1),
    (Kind::ShiftRole, 3),
];

impl Weather {
    /// The weather of this seed.
    pub fn draw(world: &World) -> Self {
        let mut kinds = vec![Kind::Start; 3];
        kinds.extend([Kind::Mend; 2]);
        for (kind, weight) in ALL {
            if world.chance(0.6) {
                kinds.extend(std::iter::repeat_n(*kind, *weight as usize));
            }
        }
        Self { lasts: world.millis(10_000..40_000), pace: world.draw(200..5_000), kinds }
    }
}

/// Lets it happen.
pub async fn rage(cluster: &mut Cluster, client: &Client, weather: &Weather) {
    let world = cluster.site.world.clone();
    let until = Instant::now() + weather.lasts;
    while Instant::now() < until && world.violation().is_none() {
        tokio::time::sleep(world.millis(1..weather.pace)).await;
        if let Some(kind) = world.pick(&weather.kinds) {
            strike(cluster, client, kind);
        }
        cluster.let_in().await;
    }
}

fn strike(cluster: &mut Cluster, client: &Client, kind: Kind) {
    let (world, net) = (cluster.site.world.clone(), cluster.site.net.clone());
    let count = cluster.machines.len();
    let place = world.draw(0..count as u64) as usize;
    let leader = cluster.leading_place().unwrap_or(place);
    let reset = world.chance(0.5);
    match kind {
        Kind::Kill => cluster.machines[place].kill(false),
        Kind::PowerOff => cluster.machines[place].kill(true),
        Kind::KillLeader => cluster.machines[leader].kill(reset),
        Kind::Start => start(cluster, place),
        Kind::CutOff | Kind::CutLeader => {
            let place = if kind == Kind::CutLeader { leader } else { place };
            world.note(format_args!("cut m{place} off"));
            for other in (0..count).filter(|o| *o != place) {
                net.cut(place, other, reset);
                net.cut(other, place, reset);
            }
        }
        Kind::CutOneWay => {
            let other = world.draw(0..count as u64) as usize;
            world.note(format_args!("cut m{place} > m{other}"));
            net.cut(place, other, reset);
        }
        Kind::Split => {
            let side: Vec<bool> = (0..count).map(|_| world.chance(0.5)).collect();
            world.note(format_args!("split {side:?}"));
            for from in 0..count {
                for to in (0..count).filter(|to| side[*to] != side[from]) {
                    net.cut(from, to, reset);
                }
            }
        }
        Kind::Mend => {
            world.note("mend");
            net.mend();
        }
        Kind::BadNetwork => net.set_quality(draw_quality(&world)),
        Kind::SlowDisk => {
            let to = world.pick(&[3, 50, 300, 2_000]).unwrap_or(3);
            world.note(format_args!("m{place} syncs in {to} ms"));
            cluster.machines[place].disk.set_lag(0, to);
        }
        Kind::FullDisk => {
            let is_full = world.chance(0.6);
            world.note(format_args!("m{place} has a full disk: {is_full}"));
            cluster.machines[place].disk.set_full(is_full);
        }
        Kind::ClockJump => {
            let seconds = world.draw(0..120) as i64 - 60;
            world.note(format_args!("m{place} is {seconds} s off"));
            world.skew(place, SignedDuration::from_secs(seconds));
        }
        Kind::Join | Kind::Leave | Kind::Move => resettle(cluster, place, kind),
        Kind::ShiftRole => {
            let anchor = cluster.machines[ANCHOR].node;
            drop(place::spawn(NOWHERE, client.clone().shift(anchor)));
        }
    }
}

/// Machines come, go, and get other addresses.
fn resettle(cluster: &mut Cluster, place: Place, kind: Kind) {
    let world = cluster.site.world.clone();
    match kind {
        Kind::Join if cluster.machines.len() < MOST => {
            cluster.add(if world.chance(0.4) { NodeRole::Manager } else { NodeRole::Worker });
        }
        Kind::Leave if place != ANCHOR && cluster.machines[place].role() == NodeRole::Worker => {
            cluster.machines[place].leave(world.chance(0.5));
        }
        Kind::Move if place != ANCHOR && cluster.may_move(place) => {
            let addr = format!("10.0.{}.{place}:2377", world.draw(1..250));
            cluster.machines[place].move_to(addr);
        }
        _ => {}
    }
}

fn draw_quality(world: &World) -> Quality {
    let to = world.pick(&[3, 20, 100]).unwrap_or(3);
    let share = |world: &World, most: u64| world.draw(0..most) as f64 / 100.0;
    let quality = Quality { delay: (0, to), late: share(world, 10), loss: share(world, 30), doubled: share(world, 20) };
    world.note(format_args!("{quality:?}"));
    quality
}

fn start(cluster: &mut Cluster, place: usize) {
    let world = cluster.site.world.clone();
    // One that is off, if there is one.
    let off = (0..cluster.machines.len()).find(|p| cluster.machines[*p].is_missing());
    let Some(machine) = off.or(Some(place)).and_then(|p| cluster.machines.get_mut(p)) else { return };
    if !machine.is_missing() {
        return;
    }
    if world.has(Plant::OldDisk)
        && let Some(image) = machine.backup.take()
    {
        machine.disk.restore(image);
    }
    machine.start();
    machine.backup = Some(machine.disk.image());
}
