//! Picks tests, runs them and counts: several at a time where they only need the engine, one at a time where they change the node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::client::{Api, Engine};
use crate::cx::Cx;
use crate::error::{Failure, Result};
use crate::images;

/// What a test needs from the engine besides an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An engine, in a swarm or not; other tests may run beside it.
    Engine,
    /// A one-node swarm; other tests may run beside it.
    Swarm,
    /// A one-node swarm to itself.
    Alone,
    /// An engine to itself that is in no swarm when the test begins.
    Outside,
}

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What is guaranteed; where the checklist has an item for it, the name begins with its number.
    pub name: &'static str,
    /// Where it can run.
    pub place: Place,
    /// The API version from which on engines behave so.
    pub since: Api,
    /// The test.
    pub run: fn(&Cx<'_>) -> Result<()>,
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Not run, with a reason.
    pub skipped: usize,
}

/// One entry of a suite's table: the place, the function, and the API version that it needs.
#[macro_export]
macro_rules! case {
    ($place:ident, $function:ident) => {
        $crate::case!($place, $function, since 1, 24)
    };
    ($place:ident, $function:ident, since $major:literal, $minor:literal) => {
        $crate::harness::Test {
            name: stringify!($function),
            place: $crate::harness::Place::$place,
            since: $crate::client::Api($major, $minor),
            run: $function,
        }
    };
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// Runs the tests and prints a line for each; the engine ends in no swarm.
///
/// # Errors
/// The engine cannot be brought into the state that the tests need: it is in use, or refuses an image or a swarm.
pub fn run(engine: &Engine, tests: &[Test], jobs: usize) -> Result<Tally> {
    if engine.in_swarm()? {
        return Err(Failure::wrong(
            "the engine is in a swarm; these tests drain nodes and leave: run them against an engine of their own",
        ));
    }
    images::load_all(engine)?;
    let (ready, early): (Vec<_>, Vec<_>) = tests.iter().copied().partition(|test| test.since <= engine.api);
    let mut tally = Tally::default();
    for test in early {
        report(&mut tally, test.name, Instant::now(), &Err(Failure::Skipped(format!("since API {}", test.since))));
    }
    let of =
        |places: &[Place]| -> Vec<Test> { ready.iter().copied().filter(|test| places.contains(&test.place)).collect() };
    let tally = Mutex::new(tally);
    for test in of(&[Place::Outside]) {
        run_one(engine, &test, &tally);
        if engine.in_swarm()? {
            engine.swarm_leave()?;
        }
    }
    let (together, alone) = (of(&[Place::Engine, Place::Swarm]), of(&[Place::Alone]));
    if !alone.is_empty() || together.iter().any(|test| test.place == Place::Swarm) {
        engine.swarm_init()?;
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(test) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run_one(engine, test, &tally);
                }
            });
        }
    });
    for test in alone {
        run_one(engine, &test, &tally);
    }
    if engine.in_swarm()? {
        engine.swarm_leave()?;
    }
    tally.into_inner().map_err(|_| Failure::wrong("a test's thread ended badly"))
}

fn run_one(engine: &Engine, test: &Test, tally: &Mutex<Tally>) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let cx = Cx::new(engine, format!("cf{}x{number}", std::process::id()));
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (test.run)(&cx)));
    let mut outcome = outcome.unwrap_or_else(|_| Err(Failure::wrong("panicked")));
    let cleaned = cx.clean();
    if outcome.is_ok() {
        outcome = cleaned.map_err(|error| Failure::wrong(format!("cleaning up: {error}")));
    }
    if let Ok(mut tally) = tally.lock() {
        report(&mut tally, test.name, start, &outcome);
    }
}

/// Counts a test that began at `start` and has ended now, and prints its line.
pub fn report(tally: &mut Tally, name: &str, start: Instant, outcome: &Result<()>) {
    let took = start.elapsed();
    match outcome {
        Ok(()) => {
            tally.passed += 1;
            println!("  ok   {name} ({:.1} s)", took.as_secs_f32());
        }
        Err(Failure::Skipped(why)) => {
            tally.skipped += 1;
            println!("  skip {name}: {why}");
        }
        Err(Failure::Wrong(why)) => {
            tally.failed += 1;
            println!("  FAIL {name} ({:.1} s): {why}", took.as_secs_f32());
        }
    }
}
