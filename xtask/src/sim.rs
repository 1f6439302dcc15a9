//! `cargo xtask sim`: the simulator of whole clusters (`tests/sim`), built fast enough for many seeds.

use conformance::error::Result;

use crate::shell::{cargo, say};

/// Runs it with these arguments; whether nothing was broken.
///
/// # Errors
/// It does not build.
pub fn run(arguments: &[&str]) -> Result<bool> {
    say(&format!("sim {}", arguments.join(" ")));
    let mut command = cargo(&["run", "--quiet", "--profile", "sim", "--package", "sim", "--"]);
    Ok(command.args(arguments).status()?.success())
}
