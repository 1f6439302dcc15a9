//! The Shoal binary: a daemon, a container's supervisor or init, or a lab of several engines, by its first argument. Wiring only.

mod daemon;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Container engine and cluster orchestrator.
#[derive(Parser)]
#[command(name = "shoal", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the engine of this machine.
    Daemon(Box<daemon::Flags>),
    /// Run a cluster on this one machine, to learn and to test.
    Lab(Box<shoal_lab::Lab>),
}

fn main() -> ExitCode {
    // Both run beside containers and must stay small and single-threaded: decided before anything else is set up.
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    match args.get(1).map(String::as_str) {
        Some(shoal_runtime::SUPERVISE) => shoal_runtime::supervise_main(&args[2..]),
        Some(shoal_runtime::INIT) => shoal_runtime::init_main(&args[2..]),
        _ => {}
    }
    match Cli::try_parse() {
        Ok(Cli { command: Command::Daemon(flags) }) => ended("daemon", daemon::run(*flags)),
        Ok(Cli { command: Command::Lab(lab) }) => ended("lab", shoal_lab::run(*lab)),
        Err(error) => usage(&error),
    }
}

fn ended<E: std::fmt::Display>(command: &str, outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shoal {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Help goes to standard output with 0; a mistake is one clear sentence and 1.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let sentence = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    if sentence.is_empty() || text.starts_with("Usage") {
        eprintln!("{text}");
    } else {
        eprintln!("shoal: {sentence}; see 'shoal --help'");
    }
    ExitCode::FAILURE
}
