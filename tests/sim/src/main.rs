//! `cargo xtask sim`: runs seeds, and says how to run again the one that broke something.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use sim::plant::Plant;
use sim::run::{Report, run};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Seeds that once broke something; they always run.
const REGRESSIONS: &str = include_str!("../seeds.txt");

/// Runs the simulator.
#[derive(Parser, Clone)]
struct Options {
    /// How many seeds to run, from `--from` up.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs this one only, and shows what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Begins no further seed after so many seconds.
    #[arg(long)]
    within: Option<u64>,
    /// Plants a bug.
    #[arg(long)]
    plant: Option<Plant>,
    /// Sees that each bug that can be planted is found.
    #[arg(long, conflicts_with_all = ["seed", "plant"])]
    plants: bool,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs each seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Does not show what happens.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Virtual).with_ansi(false);
        log.with_writer(std::io::stderr).init();
    }
    let is_good = match options.seed {
        Some(seed) => {
            let report = run(seed, options.plant, !options.quiet);
            println!("{} virtual seconds, {:?}", report.virtual_time.as_secs(), report.fingerprint);
            tell(&report, &options);
            report.violation.is_none()
        }
        None if options.plants => find_plants(&options),
        None => run_all(&options),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The simulation's own time in the log.
struct Virtual;

impl FormatTime for Virtual {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        w.write_str(&sim::stamp())
    }
}

fn run_all(options: &Options) -> bool {
    let began = Instant::now();
    let mut seeds: Vec<u64> = if options.plant.is_none() { regressions() } else { Vec::new() };
    seeds.extend(options.from..options.from + options.seeds);
    let (next, bad) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let (done, lived) = (AtomicU64::new(0), AtomicU64::new(0));
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let is_late = options.within.is_some_and(|s| began.elapsed() > Duration::from_secs(s));
                    // A planted bug needs to be found once.
                    let is_found = options.plant.is_some() && !bad.lock().expect("nothing panics here").is_empty();
                    if is_late || is_found {
                        return;
                    }
                    let report = run_one(*seed, options);
                    done.fetch_add(1, Ordering::Relaxed);
                    lived.fetch_add(report.virtual_time.as_secs(), Ordering::Relaxed);
                    if report.violation.is_some() {
                        tell(&report, options);
                        bad.lock().expect("nothing panics here").push(*seed);
                    }
                }
            });
        }
    });
    let (done, lived, bad) = (done.into_inner(), lived.into_inner(), bad.into_inner().unwrap_or_default());
    let secs = began.elapsed().as_secs();
    println!("{lived} virtual seconds in {secs} s; seeds with a violation: {bad:?}");
    println!("{} passed, {} failed", done - bad.len() as u64, bad.len());
    bad.is_empty()
}

/// Plants one bug after the other; whether each is found by some seed.
fn find_plants(options: &Options) -> bool {
    let is_found = |plant: &Plant| {
        let mut reports = (options.from..options.from + options.seeds).map(|seed| run(seed, Some(*plant), false));
        let found = reports.find(|report| report.violation.is_some());
        match &found {
            Some(report) => tell(report, &Options { plant: Some(*plant), seed: Some(report.seed), ..options.clone() }),
            None => println!("{} is not found", name(*plant)),
        }
        found.is_some()
    };
    let found = Plant::value_variants().iter().filter(|plant| is_found(plant)).count();
    println!("{found} passed, {} failed", Plant::value_variants().len() - found);
    found == Plant::value_variants().len()
}

fn run_one(seed: u64, options: &Options) -> Report {
    let report = run(seed, options.plant, false);
    if !options.twice {
        return report;
    }
    let again = run(seed, options.plant, false);
    if again.fingerprint == report.fingerprint {
        return report;
    }
    let parted = report.trace.iter().zip(&again.trace).find(|(a, b)| a != b);
    let text = format!("two runs of the seed differ: {:?} {:?} {parted:?}", report.fingerprint, again.fingerprint);
    Report { violation: Some(text), ..report }
}

fn regressions() -> Vec<u64> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter_map(|line| line.parse().ok()).collect()
}

fn tell(report: &Report, options: &Options) {
    let Some(violation) = &report.violation else { return };
    let plant = options.plant.map(|p| format!(" --plant {}", name(p))).unwrap_or_default();
    if options.seed.is_none() {
        report.trace.iter().rev().take(25).rev().for_each(|line| println!("  {line}"));
    }
    println!("seed {}: {violation}", report.seed);
    println!("run it again: cargo xtask sim --seed {}{plant}", report.seed);
}

fn name(plant: Plant) -> String {
    plant.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}
