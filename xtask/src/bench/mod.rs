//! `cargo xtask bench`: Shoal beside Debian's dockerd, in one run, by turns, on the same machine. Only ratios mean anything.

use std::fs;
use std::process::Command;

use conformance::client::{Engine, finish};
use conformance::error::{Failure, Result};
use conformance::images;
use conformance::launch::{Daemon, Kind};

use crate::packages::{self, For};
use crate::shell::{build, demand_root, say};

pub mod cluster;
mod containers;
mod logs;
mod memory;
mod pull;
mod report;
mod scale;
pub mod simulated;

use report::Row;

/// One of the two engines.
#[derive(Debug)]
struct Side {
    daemon: Daemon,
    engine: Engine,
}

/// Both, alive, with the images.
#[derive(Debug)]
struct Lab {
    shoal: Side,
    docker: Side,
}

/// A measurement: its word on the command line, and what it does.
type Measurement = (&'static str, fn(&Lab) -> Result<Vec<Row>>);

/// In this order: an idle daemon can be looked at only before it has worked.
const MEASUREMENTS: &[Measurement] = &[
    ("memory", memory::measure),
    ("run", containers::measure),
    ("scale", scale::measure),
    ("pull", pull::measure),
    ("logs", logs::measure),
];

/// Measures everything and writes `docs/benchmarks.md`; with words only what they name, and writes nothing.
///
/// # Errors
/// An engine does not start, refuses something, or loses a line.
pub fn run(only: &[&str]) -> Result<()> {
    demand_root()?;
    if let Some(unknown) = only.iter().find(|word| MEASUREMENTS.iter().all(|(name, _)| name != *word)) {
        let names: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        return Err(Failure::wrong(format!("no measurement is called {unknown:?}: there are {}", names.join(", "))));
    }
    packages::ensure(For::Bench)?;
    let shoal = build("shoal", true)?;
    say("starting both engines, each in a network namespace of its own");
    let lab = Lab { shoal: side(Kind::Shoal(shoal), "bench-shoal")?, docker: side(Kind::Reference, "bench-docker")? };
    let mut rows = Vec::new();
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        say(&format!("measuring: {name}"));
        let measured = measure(&lab)?;
        measured.iter().for_each(|row| println!("{row}"));
        rows.extend(measured);
    }
    if only.is_empty() { report::write_engines(&rows, &lab) } else { Ok(()) }
}

fn side(kind: Kind, name: &str) -> Result<Side> {
    let mut daemon = Daemon::new(kind, name)?;
    // the run directory of a machine is in memory, on any distribution
    let run = daemon.directory().join("run");
    fs::create_dir(&run)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "mode=711", "run"]).arg(&run);
    finish(mount, None)?.ok()?;
    let engine = daemon.start()?;
    Ok(Side { daemon, engine })
}

// === impl Lab ===

impl Lab {
    /// Loads the images into both; an image that is there already costs little.
    fn load_images(&self) -> Result<()> {
        [&self.shoal, &self.docker].into_iter().try_for_each(|side| images::load_all(&side.engine))
    }

    /// Measures both sides by turns, so that whatever else the machine does meets both; their medians, Shoal's first.
    fn by_turns(&self, rounds: usize, measure: impl Fn(&Side) -> Result<f64>) -> Result<(f64, f64)> {
        let (mut shoal, mut docker) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            shoal.push(measure(&self.shoal)?);
            docker.push(measure(&self.docker)?);
        }
        let (shoal, docker) = (median(shoal), median(docker));
        println!("  Shoal {shoal:.3} s, dockerd {docker:.3} s");
        Ok((shoal, docker))
    }
}

/// The middle one.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_whatever_the_order() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
