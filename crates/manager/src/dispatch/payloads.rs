//! Which secrets and configs a node is to have: those that its tasks name, for as long as these may run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::payload::PayloadKind;
use shoal_types::{ConfigId, SecretId, Task, TaskId, TaskState, View};
use shoal_wire::assignments::Assigned;

/// Names a secret or config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PayloadId {
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

/// Which tasks of one node use what.
#[derive(Debug, Default)]
pub struct Uses(BTreeMap<PayloadId, BTreeSet<TaskId>>);

/// What a change of a task makes of its node's needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Needed from now on.
    pub needed: Vec<PayloadId>,
    /// Needed no more.
    pub released: Vec<PayloadId>,
}

// === impl Uses ===

impl Uses {
    /// Notes a change of a task on this node; absent sides are not there.
    pub fn note(&mut self, before: Option<&Task>, after: Option<&Task>) -> Turn {
        let (had, has) = (wanted(before), wanted(after));
        let mut turn = Turn::default();
        if had == has {
            return turn;
        }
        let Some(task) = after.or(before).map(|t| t.id) else { return turn };
        for id in had.difference(&has) {
            if let Some(users) = self.0.get_mut(id) {
                users.remove(&task);
                if users.is_empty() {
                    self.0.remove(id);
                    turn.released.push(*id);
                }
            }
        }
        for id in has.difference(&had) {
            let users = self.0.entry(*id).or_default();
            if users.is_empty() {
                turn.needed.push(*id);
            }
            users.insert(task);
        }
        turn
    }

    /// All that is used.
    pub fn all(&self) -> impl Iterator<Item = PayloadId> + '_ {
        self.0.keys().copied()
    }
}

/// What `task` names, until it has ended.
fn wanted(task: Option<&Task>) -> BTreeSet<PayloadId> {
    let Some(task) = task.filter(|t| t.status.state <= TaskState::Running) else { return BTreeSet::new() };
    let Some(container) = &task.spec.container_spec else { return BTreeSet::new() };
    let secrets = container.secrets.iter().filter_map(|r| r.secret_id.parse().ok()).map(PayloadId::Secret);
    let configs = container.configs.iter().filter_map(|r| r.config_id.parse().ok()).map(PayloadId::Config);
    secrets.chain(configs).collect()
}

// === impl PayloadId ===

impl PayloadId {
    /// The content, for the node; nothing where it is gone from the store.
    pub fn update(self, view: &dyn View) -> Option<Assigned> {
        Some(match self {
            Self::Secret(id) => Assigned::Secret(Arc::clone(SecretKind::get(view, id)?)),
            Self::Config(id) => Assigned::Config(Arc::clone(ConfigKind::get(view, id)?)),
        })
    }

    /// That the node is to forget it.
    pub fn removal(self) -> Assigned {
        match self {
            Self::Secret(id) => Assigned::RemoveSecret(id),
            Self::Config(id) => Assigned::RemoveConfig(id),
        }
    }
}

#[cfg(test)]
mod tests;
