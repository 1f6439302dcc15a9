//! Global services: one slot on each node that is up, not drained and fits the constraints (swarm-semantics 3.2).

use shoal_types::object::NodeState;
use shoal_types::spec::Availability;
use shoal_types::{NodeId, TaskState};

use crate::draft::Draft;
use crate::goal::Goal;
use crate::service::{ServicePlan, rests};
use crate::slots::{Slot, SlotKey};

impl ServicePlan {
    /// Makes the service's slot on `node` what it should be.
    pub(crate) fn settle_on(&mut self, node: NodeId, slot: &Slot, goal: &Goal, draft: &mut Draft<'_>) {
        let Some(node) = draft.view.node(node) else {
            return slot.tasks.iter().for_each(|t| draft.remove(t.id));
        };
        let away = node.status.state == NodeState::Down || node.spec.availability == Availability::Drain;
        if away || !goal.admits(node) {
            return slot.live().for_each(|t| draft.desire(t, TaskState::Shutdown));
        }
        if node.spec.availability == Availability::Pause {
            let ended = slot.live().filter(|t| t.status.state.is_terminal());
            return ended.for_each(|t| draft.desire(t, TaskState::Shutdown));
        }
        self.heal(slot, goal, draft);
        let slot = self.slot(slot.key, draft);
        if slot.live().next().is_none() && !rests(&slot, goal) {
            self.create_after(&slot, 0, goal, draft);
        }
    }

    /// Whether an update may touch the slot: on nodes, only where the node takes tasks.
    pub(crate) fn is_open(&self, key: SlotKey, goal: &Goal, draft: &Draft<'_>) -> bool {
        let SlotKey::Node(node) = key else { return true };
        draft.view.node(node).is_some_and(|n| n.spec.availability == Availability::Active && goal.admits(n))
    }
}
