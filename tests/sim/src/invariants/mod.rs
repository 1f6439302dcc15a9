//! What must hold, one file each. Some hold at all times and see every write; the others hold once the cluster is calm.

mod acknowledged;
mod assigned;
mod converged;
mod explained;
mod linear;
mod monotone;
mod settled;
mod slots;
mod spread;

use shoal_raft::Commit;

use crate::cluster::Cluster;

/// Holds after every write.
pub trait Continuous: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// What is wrong after `commit`.
    fn check(&mut self, commit: &Commit) -> Vec<String>;
}

/// Holds when the chaos is over and nothing moves any more.
pub struct Final {
    /// Its name in reports.
    pub name: &'static str,
    /// What is wrong.
    pub check: fn(&Cluster) -> Vec<String>,
}

/// Those that hold at all times.
pub fn all_continuous() -> Vec<Box<dyn Continuous>> {
    vec![Box::new(slots::OnePerSlot), Box::new(monotone::Monotone)]
}

/// Those that hold in the end.
pub const FINAL: &[Final] = &[
    Final { name: "acknowledged writes stay", check: acknowledged::check },
    Final { name: "registers are linearizable", check: linear::check },
    Final { name: "replicas converge", check: converged::check },
    Final { name: "services have their tasks", check: settled::check },
    Final { name: "nodes run what they are assigned", check: assigned::check },
    Final { name: "waiting tasks are explained", check: explained::check },
    Final { name: "new tasks are spread", check: spread::check },
];

pub use settled::unsettled;
