//! `cargo xtask test`: every check and every test, one after the other, with one count at the end.

use std::time::Instant;

use conformance::error::{Failure, Result};

use crate::packages::{self, For};
use crate::shell::{build, cargo, demand_root, say, watch};
use crate::{deps, sim, tidy};

/// How many tests ended how, over all steps.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Runs all of it; a failing step does not keep the others from running. Whether all of it passed.
///
/// # Errors
/// The machine lacks something that cannot be installed.
pub fn run() -> Result<bool> {
    let start = Instant::now();
    demand_root()?;
    packages::ensure(For::Test)?;
    let mut tally = Tally::default();
    tally.command("the code is formatted", &["fmt", "--all", "--check"])?;
    tally.check("dependencies point one way", deps::check());
    tally.check("files and functions are small", tidy::check());
    tally
        .command("no lint complains", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    let nextest = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let units: &[&str] = if nextest {
        &["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"]
    } else {
        &["test", "--workspace", "--no-fail-fast"]
    };
    tally.command("unit and integration tests", units)?;
    tally.watched("the simulator", &mut sim::command(sim::FIXED))?;
    tally.watched("the simulator finds bugs", &mut sim::command(sim::PLANTS))?;
    match (build("shoal", false), build("conformance", false)) {
        (Ok(shoal), Ok(conformance)) => {
            let shoal = shoal.display().to_string();
            for (name, arguments) in [
                ("conformance", &[][..]),
                ("the walkthrough", &["walkthrough"]),
                ("the walkthrough with a daemon that is killed between any two steps", &["walkthrough", "--restart"]),
                ("what outlives the daemon", &["survival"]),
                ("the daemon as a program", &["daemon"]),
                ("clusters", &["cluster"]),
                ("a cluster in chaos", &["chaos", "--seconds", "40"]),
            ] {
                let mut command = std::process::Command::new(&conformance);
                command.args(arguments).args(["--shoal", &shoal]);
                tally.watched(name, &mut command)?;
            }
        }
        (Err(error), _) | (_, Err(error)) => tally.check("the daemon and its tests build", Err(error)),
    }
    say(&format!("done in {} s", start.elapsed().as_secs()));
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

impl Tally {
    /// Counts one check.
    fn check(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("FAIL {name}: {error}");
                self.failed += 1;
            }
        }
    }

    fn command(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        self.watched(name, &mut cargo(arguments))
    }

    /// Runs a command and counts the tests that it reports; itself where it reports none, or fails without a failed test.
    fn watched(&mut self, name: &str, command: &mut std::process::Command) -> Result<()> {
        let mut counted = Tally::default();
        let ok = watch(command, |line| counted.add(line))?;
        if !ok && counted.failed == 0 || counted.passed + counted.failed == 0 {
            self.check(name, if ok { Ok(()) } else { Err(Failure::wrong("failed")) });
        }
        self.passed += counted.passed;
        self.failed += counted.failed;
        Ok(())
    }

    /// Reads a summary: nextest's, cargo's or our own.
    fn add(&mut self, line: &str) {
        // indented, a result is part of what nextest shows of a failed test
        let counts = line.starts_with("test result: ") || line.starts_with(|first: char| first.is_ascii_digit());
        if !counts && !line.trim_start().starts_with("Summary [") {
            return;
        }
        let words: Vec<&str> = line.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
        let before = |name: &str| {
            let place = words.iter().position(|word| *word == name)?;
            words.get(place.checked_sub(1)?)?.parse::<u64>().ok()
        };
        if let Some(passed) = before("passed") {
            self.passed += passed;
            self.failed += before("failed").unwrap_or_default() + before("timed").unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted_and_other_lines_are_not() {
        let mut tally = Tally::default();
        tally.add("     Summary [   4.035s] 75 tests run: 73 passed (1 slow), 2 failed, 4 skipped");
        tally.add("test result: ok. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.add("10 passed, 3 failed, 2 skipped");
        tally.add("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 19 filtered out");
        tally.add("  ok   something 9 passed");
        assert_eq!((tally.passed, tally.failed), (88, 6));
    }
}
