//! `cargo xtask bench scale-sim`: thousands of simulated nodes around one real manager, in one process, and the scheduler's own
//! bench. They need no engine and no privileges.

use conformance::error::{Failure, Result};

use super::report::{Better, Row};
use crate::shell::{cargo, say, watch};

/// Seconds that SwarmKit's own benchmark of its scheduler takes for 100,000 tasks on 1,000 nodes, on a machine like ours.
const SWARMKIT: f64 = 36.8;

/// Runs the simulation of 5,000 nodes and 100,000 tasks, with `words` passed on to it (`--nodes N`, `--tasks N`,
/// `--services N`, `--clients N`).
///
/// # Errors
/// It does not build, or its figures are not met.
pub fn scale(words: &[&str]) -> Result<()> {
    say("5,000 nodes and 100,000 tasks on one manager, simulated");
    run("shoal-manager", "scale", words)
}

/// Runs the benches of the planner and of the scheduler, with their store.
///
/// # Errors
/// They do not build.
pub fn cores() -> Result<()> {
    run("shoal-schedule", "cores", &[])
}

/// The figures as rows: from what the simulation and the scheduler's bench print.
///
/// # Errors
/// They do not build, or print something else than they did.
pub fn rows() -> Result<Vec<Row>> {
    let mut printed = Vec::new();
    for (package, bench, only) in [("shoal-manager", "scale", ""), ("shoal-schedule", "cores", "schedule/")] {
        let mut command = cargo(&["bench", "--quiet", "--package", package, "--bench", bench, "--", only]);
        watch(&mut command, |line| printed.push(line.to_owned()))?;
    }
    let after = |words: &[&str]| -> Result<f64> {
        let line = printed.iter().find(|line| words.iter().all(|word| line.contains(word)));
        let rest = line.and_then(|line| line.split_once(words.last().copied().unwrap_or_default()));
        let number = rest.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| Failure::wrong(format!("the simulation does not say {words:?}")))
    };
    let row = |what, number, unit, wanted, better| Row { what, number, unit, wanted, better };
    let mut rows = vec![
        row(
            "simulated: 5,000 nodes, 100,000 tasks of 100 services by 8 clients, all running",
            after(&["tasks running after"])?,
            "s",
            60.0,
            Better::Lower,
        ),
        row("the same, memory", after(&["memory at most"])?, "MiB", 2048.0, Better::Lower),
        row("the same, processors busy afterwards", after(&["afterwards:"])?, "% of one", 50.0, Better::Lower),
    ];
    if let Some(seconds) = criterion(&printed, "schedule/100k tasks of their own/1000 nodes") {
        let what = "100,000 tasks given 1,000 nodes, scheduler and store";
        rows.push(row(what, SWARMKIT / seconds, "times faster than SwarmKit's own benchmark", 50.0, Better::Higher));
    }
    Ok(rows)
}

/// The middle time in seconds that criterion prints for a benchmark: `NAME time: [1.0 ms 1.1 ms 1.2 ms]`, in one line or two.
fn criterion(printed: &[String], name: &str) -> Option<f64> {
    let at = printed.iter().position(|line| line.starts_with(name))?;
    let text = printed.get(at..(at + 2).min(printed.len()))?.join(" ");
    let mut words = text.split_once("time:")?.1.split(['[', ']', ' ']).filter(|word| !word.is_empty()).skip(2);
    let number: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()? {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        _ => return None,
    };
    Some(number * unit)
}

fn run(package: &str, bench: &str, words: &[&str]) -> Result<()> {
    let base = ["bench", "--quiet", "--package", package, "--bench", bench, "--"];
    let status = cargo(&[&base[..], words].concat()).status()?;
    if status.success() { Ok(()) } else { Err(Failure::wrong(format!("the bench {bench} of {package} failed"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterion_is_read_in_one_line_or_two() {
        let one = ["a  time:   [1.0 ms 2.5 ms 3.0 ms]".to_owned()];
        let two = ["a".to_owned(), "    time:   [1.0 s 2.5 s 3.0 s]".to_owned()];
        assert_eq!((criterion(&one, "a"), criterion(&two, "a"), criterion(&two, "b")), (Some(0.0025), Some(2.5), None));
    }
}
