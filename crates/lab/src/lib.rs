//! `shoal lab`: a cluster on one machine, for people who learn and for tests.
//!
//! A lab is a switch (a bridge in a network namespace of its own) and nodes: each a network namespace with a cable to the
//! switch, a directory, and an engine that runs in it. This crate makes and removes them, pulls cables and signals engines.
//! It knows engines only from outside, as processes and by their HTTP API, so that any engine can be put in a lab. What a lab
//! consists of is in its [record](record::Lab); every command reads it and acts on what the kernel has now.
//!
//! Leaves to others: how interfaces are made (`shoal-network`), and everything that an engine does.

mod act;
mod args;
mod client;
mod down;
mod error;
mod list;
mod mounts;
mod process;
mod record;
mod swarm;
mod up;
mod wiring;

pub use args::Lab;
pub use error::LabError;

use args::{Command, Named};

/// Runs one command of the lab.
///
/// # Errors
/// One sentence that says what keeps it from being done. A failed `up` has undone what it did.
pub fn run(asked: Lab) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let Lab { name, command } = asked;
    let lab = || record::Lab::load(&name);
    match command {
        Command::Up(plan) => up::up(&name, &plan),
        Command::Ls(Named {}) => list::list(&lab()?),
        Command::Exec { node, command } => act::exec(&lab()?, node, &command),
        Command::Load { files } => up::load(&lab()?, &files),
        Command::Cut { nodes } => act::cut(&lab()?, &nodes),
        Command::Mend { nodes } => act::mend(&lab()?, &nodes),
        Command::Kill { nodes } => act::end(&lab()?, &nodes, process::How::Kill),
        Command::Stop { nodes } => act::end(&lab()?, &nodes, process::How::Terminate),
        Command::Start { nodes } => act::start(&lab()?, &nodes),
        Command::Pause { nodes } => act::pause(&lab()?, &nodes),
        Command::Resume { nodes } => act::resume(&lab()?, &nodes),
        Command::Down(Named {}) => down::down(&lab()?),
    }
}
