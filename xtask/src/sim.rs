//! `cargo xtask sim`: the simulator of whole clusters (`tests/sim`), built fast enough for many seeds.

use std::process::Command;

use conformance::error::Result;

use crate::shell::{cargo, say};

/// The seeds that are always run: all that ever broke something, and as many of these as there is time for on a slow machine.
pub const FIXED: &[&str] = &["--from", "0", "--seeds", "200", "--within", "120"];
/// Each bug that can be planted has to be found.
pub const PLANTS: &[&str] = &["--plants"];

/// Runs it with these arguments; whether nothing was broken.
///
/// # Errors
/// It does not build.
pub fn run(arguments: &[&str]) -> Result<bool> {
    say(&format!("sim {}", arguments.join(" ")));
    Ok(command(arguments).status()?.success())
}

/// What runs it with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = cargo(&["run", "--quiet", "--profile", "sim", "--package", "sim", "--"]);
    command.args(arguments);
    command
}
