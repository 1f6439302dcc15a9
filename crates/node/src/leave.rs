//! `docker swarm leave` (swarm-semantics 13.3).

use shoal_manager::Control;
use shoal_manager::control::Reachability;
use shoal_types::spec::NodeRole;
use shoal_types::{Refusal, RefusalKind, View};

use crate::node::{Node, unavailable};
use crate::supervise::Status;

impl Node {
    /// Leaves the swarm: tells the managers, stops the tasks, removes their containers and forgets everything. A manager
    /// leaves only by `force`.
    ///
    /// # Errors
    /// `This node is not part of a swarm`; without `force`, what would be lost.
    pub async fn leave(&self, force: bool) -> Result<(), Refusal> {
        let status = self.status();
        if matches!(status, Status::Inactive) {
            return Err(unavailable("This node is not part of a swarm"));
        }
        if !force {
            if let Status::Active(control) = &status {
                // who is reachable is the leader's knowledge
                control.catch_up().await;
            }
            self.may_leave(&status)?;
        }
        self.give_up_joining();
        let mut member = self.member.lock().await;
        if let Some(member) = member.take() {
            member.leave().await;
        }
        self.paths.wipe().map_err(|e| Refusal::engine(RefusalKind::Internal, e.to_string()))?;
        self.set_local(None);
        self.status.send_replace(Status::Inactive);
        Ok(())
    }

    fn may_leave(&self, status: &Status) -> Result<(), Refusal> {
        let is_manager = self.local().is_some_and(|local| local.role() == NodeRole::Manager);
        match status {
            Status::Inactive | Status::Worker => Ok(()),
            Status::Locked => Err(unavailable(
                "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
            )),
            Status::Active(control) => Err(warning(Some(control))),
            Status::Failed(_) => Err(warning(None)),
            Status::Pending if is_manager => Err(warning(None)),
            Status::Pending => Ok(()),
        }
    }
}

/// What is lost when a manager leaves.
fn warning(control: Option<&Control>) -> Refusal {
    let intro = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let tail = "The only way to restore a swarm that has lost consensus is to reinitialize it with \
                `--force-new-cluster`. Use `--force` to suppress this message.";
    let Some(control) = control else {
        return unavailable(&format!("{intro}Doing so may lose the consensus of your cluster. {tail}"));
    };
    let view = control.snapshot();
    let managers = view.nodes().filter_map(|n| control.manager_status(n.id));
    let (reachable, unreachable): (Vec<_>, Vec<_>) =
        managers.partition(|m| m.is_leader || m.reachability == Reachability::Reachable);
    let (reachable, unreachable) = (reachable.len(), unreachable.len());
    let what = if reachable + unreachable <= 1 {
        "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
            .to_owned()
    } else if reachable <= unreachable + 2 {
        let (left, all) = (reachable.saturating_sub(1), reachable + unreachable);
        format!(
            "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be inaccessible. \
             {tail}"
        )
    } else {
        tail.to_owned()
    };
    unavailable(&format!("{intro}{what}"))
}
