//! `cargo xtask`: everything that is done to the project and is not a crate of it.

use std::process::ExitCode;

mod bench;
mod cgroup2;
mod deps;
mod packages;
mod shell;
mod sim;
mod test;
mod tidy;
mod up;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  up      builds Shoal, makes a cluster of three nodes with a sample service, loses a node, and leaves it running
  down    removes what `up` left running
  test    every check and every test; installs the Debian packages that they need
  cgroup2 runs the runtime's tests with control groups of version 2 alone, in an emulated machine with Debian's kernel
  deps    checks which crate may depend on which
  tidy    checks the sizes of files and functions, and that the map of the project is true
  sim     simulates whole clusters: `sim --seeds N`, `sim --seed S` runs one and shows it, `sim --plant NAME` plants a bug,
          `sim --plants` sees that each of them is found
  bench   measures Shoal beside Debian's dockerd and writes docs/benchmarks.md; `bench cluster` measures
          clusters, `bench scale-sim` simulates 5,000 nodes, `bench cores` measures planner and scheduler";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["up"] => up::up().map(|()| true),
        ["down"] => up::down().map(|()| true),
        ["test"] => test::run(),
        ["cgroup2"] => cgroup2::check(),
        ["deps"] => deps::check().map(|()| true),
        ["tidy"] => tidy::check().map(|()| true),
        ["sim", words @ ..] => sim::run(words),
        ["bench", "scale-sim", words @ ..] => bench::simulated::scale(words).map(|()| true),
        ["bench", "cluster"] => bench::cluster::run().map(|()| true),
        ["bench", "cores"] => bench::simulated::cores().map(|()| true),
        ["bench", only @ ..] => bench::run(only).map(|()| true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
