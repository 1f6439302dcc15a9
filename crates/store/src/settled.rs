//! What came of the last requests of clients: one that is sent again is answered again, and not carried out twice.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use shoal_types::{RequestId, Settled};

/// So many are remembered. A count, since the clocks of leaders differ; whoever waits for an answer asks again within
/// seconds of the last attempt, and no leader makes as many writes in that time.
pub(crate) const KEPT: usize = 16_384;

/// The last requests and what came of them. Cloning it takes constant time and memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes {
    by_request: OrdMap<RequestId, Arc<str>>,
    /// In the order in which they were settled.
    order: Vector<RequestId>,
}

// === impl Outcomes ===

impl Outcomes {
    /// What came of `request`, where that is still known.
    pub(crate) fn get(&self, request: RequestId) -> Option<&Arc<str>> {
        self.by_request.get(&request)
    }

    /// Remembers one, unless it is known; whether it was news.
    pub(crate) fn put(&mut self, settled: &Settled) -> bool {
        if self.by_request.contains_key(&settled.request) {
            return false;
        }
        self.by_request.insert(settled.request, settled.outcome.clone());
        self.order.push_back(settled.request);
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.by_request.remove(&oldest);
            }
        }
        true
    }

    /// All of them, in the order in which they were settled.
    pub(crate) fn all(&self) -> impl Iterator<Item = Settled> + '_ {
        let settled = |request: &RequestId| {
            let outcome = self.by_request.get(request)?.clone();
            Some(Settled { request: *request, outcome })
        };
        self.order.iter().filter_map(settled)
    }

    /// Whether order and table agree.
    pub(crate) fn is_sound(&self) -> bool {
        self.order.len() == self.by_request.len() && self.order.iter().all(|id| self.by_request.contains_key(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(n: usize) -> Settled {
        Settled { request: format!("{n:0>25}").parse().unwrap(), outcome: n.to_string().into() }
    }

    #[test]
    fn the_first_outcome_of_a_request_stays_and_the_oldest_requests_are_forgotten() {
        let mut outcomes = Outcomes::default();
        assert!(outcomes.put(&settled(1)));
        let other = Settled { outcome: "other".into(), ..settled(1) };
        assert!(!outcomes.put(&other));
        assert_eq!(outcomes.get(other.request).map(|o| &**o), Some("1"));
        for n in 2..=KEPT + 1 {
            outcomes.put(&settled(n));
        }
        assert_eq!(outcomes.get(settled(1).request), None);
        assert!(outcomes.get(settled(2).request).is_some() && outcomes.is_sound());
        assert_eq!(outcomes.all().next(), Some(settled(2)));
    }
}
