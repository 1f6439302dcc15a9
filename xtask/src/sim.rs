//! `cargo xtask sim`: the simulator of whole clusters (`tests/sim`), built fast enough for many seeds.

use std::process::Command;

use conformance::error::Result;

use crate::shell::{cargo, say};

/// What every test run does: as many of these seeds as fit into the time.
pub const FIXED: &[&str] = &["--seeds", "200", "--within", "110"];

/// The simulator with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = cargo(&["run", "--quiet", "--profile", "sim", "--package", "sim", "--"]);
    command.args(arguments);
    command
}

/// Runs it; whether nothing was broken.
///
/// # Errors
/// It does not build.
pub fn run(arguments: &[&str]) -> Result<bool> {
    say(&format!("sim {}", arguments.join(" ")));
    Ok(command(arguments).status()?.success())
}
