//! Simulates a whole cluster from one seed: managers, agents, network, disks and clocks, with the real code of all but
//! the last three, in one thread and in virtual time. The same seed does the same again.
//!
//! Owns what goes wrong and what must hold all the same (`invariants`). Everything that the real code asks the system
//! for comes from [`world`]; which machine asks is known from [`place`].

mod chaos;
mod client;
mod cluster;
mod containers;
mod disk;
mod invariants;
mod ledger;
mod machine;
mod net;
mod observer;
mod place;
pub mod plant;
mod process;
pub mod run;
mod saboteur;
mod supervisor;
mod world;

pub use world::stamp;
