//! `docker swarm leave` and `join` (swarm-semantics 13.3).

use shoal_types::spec::NodeRole;
use shoal_types::{Refusal, RefusalKind, View};

use crate::node::{Node, unavailable};
use crate::supervise::Status;

impl Node {
    /// Leaves the swarm: stops the tasks, removes their containers and forgets everything. A manager leaves only by
    /// `force`.
    ///
    /// # Errors
    /// `This node is not part of a swarm`; without `force`, what would be lost.
    pub async fn leave(&self, force: bool) -> Result<(), Refusal> {
        let mut member = self.member.lock().await;
        let status = self.status();
        if matches!(status, Status::Inactive) {
            return Err(unavailable("This node is not part of a swarm"));
        }
        if !force {
            return Err(warning(&status));
        }
        if let Some(member) = member.take() {
            member.leave().await;
        }
        self.paths.wipe().map_err(|e| Refusal::engine(RefusalKind::Internal, e.to_string()))?;
        self.set_local(None);
        self.status.send_replace(Status::Inactive);
        Ok(())
    }

    /// Joining a cluster of others.
    ///
    /// # Errors
    /// Always: a cluster has one node yet.
    pub fn join(&self) -> Refusal {
        if matches!(self.status(), Status::Inactive) {
            Refusal::unsupported("joining a swarm of other nodes")
        } else {
            crate::node::already()
        }
    }
}

/// What is lost when a manager leaves.
fn warning(status: &Status) -> Refusal {
    let intro = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let tail = "The only way to restore a swarm that has lost consensus is to reinitialize it with \
                `--force-new-cluster`. Use `--force` to suppress this message.";
    let managers = match status {
        Status::Active(control) => control.snapshot().nodes().filter(|n| n.role == NodeRole::Manager).count(),
        _ => 0,
    };
    let what = match managers {
        0 => format!("Doing so may lose the consensus of your cluster. {tail}"),
        1 => "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
            .to_owned(),
        _ => tail.to_owned(),
    };
    unavailable(&format!("{intro}{what}"))
}
