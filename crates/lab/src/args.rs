//! The command line of `shoal lab`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;

/// A cluster on one machine: engines in network namespaces of their own, on a private switch
#[derive(Debug, Args)]
pub struct Lab {
    /// Which lab; several may run side by side
    #[arg(long, global = true, default_value = crate::record::DEFAULT_NAME, value_name = "NAME")]
    pub(crate) name: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a lab: namespaces, a switch, an engine in each node, one swarm of all
    Up(Plan),
    /// List nodes: address, role, leader, engine, cable, socket
    Ls(Named),
    /// Run a command in a node's network namespace, with DOCKER_HOST set; a shell without a command
    Exec {
        /// Which node
        #[arg(value_name = "NODE")]
        node: u32,
        /// What to run
        #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Load image archives (of `docker save`) into every node: they have no way to a registry
    Load {
        /// The archives
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Pull out the cable of nodes
    Cut {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// Plug in the cable of nodes
    Mend {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// End the engine of nodes at once (SIGKILL)
    Kill {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// Start the engine of nodes again
    Start {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// End the engine of nodes in order (SIGTERM); containers go on
    Stop {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// Stall the engine of nodes (SIGSTOP)
    Pause {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// Let stalled engines go on (SIGCONT)
    Resume {
        /// Which nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<u32>,
    },
    /// Remove the lab and everything in it: engines, containers, namespaces, data
    Down(Named),
}

/// A command that needs nothing but the lab's name.
#[derive(Debug, Args)]
pub(crate) struct Named {}

/// What the lab is to be.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// How many managers; they are the first nodes
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub managers: u32,
    /// How many workers
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub workers: u32,
    /// Addresses of the nodes: node 1 has the first
    #[arg(long, default_value = "10.77.0.0/24", value_name = "CIDR")]
    pub subnet: Ipv4Net,
    /// Where the nodes keep everything; new or empty [default: /var/lib/shoal-lab/NAME]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the engines alone, in no swarm
    #[arg(long)]
    pub no_swarm: bool,
    /// Run this shell command as each node's engine, with NODE, ADDR, DIR (its directory; all state is to be under it) and
    /// SOCK (the socket to serve) set; it should end in `exec` [default: this program's daemon]
    #[arg(long, value_name = "CMD")]
    pub engine: Option<String>,
}
