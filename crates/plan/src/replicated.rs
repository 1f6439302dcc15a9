//! Replicated services: as many slots as replicas (swarm-semantics 3.1).

use std::cmp::Reverse;
use std::collections::HashMap;

use shoal_types::{NodeId, TaskState};

use crate::draft::Draft;
use crate::goal::Goal;
use crate::service::ServicePlan;
use crate::slots::SlotKey;

impl ServicePlan {
    /// Creates missing slots and removes surplus ones. Returns false where the transaction is full.
    pub(crate) fn scale(&mut self, goal: &Goal, draft: &mut Draft<'_>) -> bool {
        let wanted = usize::try_from(goal.service.spec.mode.replicas()).unwrap_or(usize::MAX);
        if self.live.len() > wanted {
            for key in self.surplus(wanted, draft) {
                if draft.is_full() {
                    return false;
                }
                self.drop_slot(key, draft);
            }
        }
        let mut number = 0;
        while self.live.len() < wanted {
            if draft.is_full() {
                return false;
            }
            number = self.free_number(number);
            let slot = self.slot(SlotKey::Number(number), draft);
            self.create_after(&slot, 0, goal, draft);
        }
        true
    }

    /// The lowest free number above `number`.
    fn free_number(&self, number: u64) -> u64 {
        // without a gap below the highest number there is no need to look for one
        let highest = match self.live.last() {
            Some(SlotKey::Number(highest)) => *highest,
            _ => 0,
        };
        if self.live.len() as u64 == highest {
            return highest + 1;
        }
        (number + 1..).find(|n| !self.live.contains(&SlotKey::Number(*n))).expect("there are more numbers than slots")
    }

    /// The slots to remove so that `wanted` remain: those without a node or amid an update first, then from nodes that
    /// have most, then those that do not run, then the highest numbers.
    fn surplus(&self, wanted: usize, draft: &Draft<'_>) -> Vec<SlotKey> {
        if wanted == 0 {
            return self.live.iter().copied().collect();
        }
        let mut slots: Vec<_> = self.live.iter().map(|key| (*key, self.standing(*key, draft))).collect();
        slots.sort_by_key(|(key, (runs, _))| (Reverse(*runs), *key));
        let mut copies: HashMap<NodeId, u64> = HashMap::new();
        let mut ranked: Vec<_> = slots
            .into_iter()
            .map(|(key, (_, node))| {
                let rank = node.map_or(u64::MAX, |node| {
                    let count = copies.entry(node).or_default();
                    *count += 1;
                    *count
                });
                (rank, key)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().skip(wanted).map(|(_, key)| key).collect()
    }

    /// Whether a task of the slot runs, and the node, if it is one task on one node.
    fn standing(&self, key: SlotKey, draft: &Draft<'_>) -> (bool, Option<NodeId>) {
        let slot = self.slot(key, draft);
        let mut tasks: Vec<_> = slot.live().collect();
        if tasks.is_empty() {
            tasks.extend(slot.newest());
        }
        let runs = tasks.iter().any(|t| t.status.state == TaskState::Running);
        let node = if tasks.len() == 1 { tasks[0].node_id } else { None };
        (runs, node)
    }
}
