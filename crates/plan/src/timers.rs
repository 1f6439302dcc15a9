//! What is to be looked at again, and when. A timer that is no longer needed is harmless: its target is looked at and
//! found settled.

use std::collections::BTreeSet;

use shoal_types::{NodeId, ServiceId, Timestamp};

use crate::slots::SlotKey;

/// Timers in the order of time.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Timestamp, Target)>);

/// What a timer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A task of this slot may be started.
    Slot(ServiceId, SlotKey),
    /// The update of this service goes on.
    Service(ServiceId),
    /// This node has been down for very long.
    Node(NodeId),
}

impl Timers {
    /// Looks at `target` at `at`.
    pub(crate) fn wake(&mut self, at: Timestamp, target: Target) {
        self.0.insert((at, target));
    }

    /// Takes the next target whose time has come.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<Target> {
        let due = self.0.first().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.0.pop_first()).flatten().map(|(_, target)| target)
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }
}
