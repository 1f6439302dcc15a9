//! The lab by itself.
use clap::Parser;
#[derive(Parser)]
struct Cli { #[command(flatten)] lab: shoal_lab::Lab }
fn main() { if let Err(error) = shoal_lab::run(Cli::parse().lab) { eprintln!("lab: {error}"); std::process::exit(1) } }
