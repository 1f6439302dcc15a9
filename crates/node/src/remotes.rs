//! The managers that this node knows, and which of them to turn to (swarm-semantics 7.6). Kept on disk: a node that was off
//! finds its cluster again as long as one of them still listens where it did.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use rand::Rng;
use shoal_types::NodeId;
use shoal_wire::session::Manager;

use crate::paths::write_durably;

/// What one observation is worth.
const WORTH: f64 = 10.0;
/// How much of the weight of before goes into the new one.
const SMOOTH: f64 = 0.5;
/// So that no manager is never tried.
const BIAS: f64 = 0.001;

/// The managers that are known.
#[derive(Debug)]
pub struct Remotes {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    managers: Vec<Manager>,
    /// Addresses that a user gave or a manager named as the leader's.
    hints: Vec<String>,
    weights: HashMap<String, f64>,
    /// The address that failed last, unless it was good since.
    failed: Option<String>,
    /// Nothing is written any more.
    over: bool,
}

impl Remotes {
    /// Those in the file at `path`. One that cannot be read is as good as none: managers are learned again.
    pub fn load(path: PathBuf) -> Self {
        let read = std::fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        let managers = read.unwrap_or_else(|error: io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "cannot read which managers there are");
            }
            Vec::new()
        });
        Self { path, known: Mutex::new(Known { managers, ..Known::default() }) }
    }

    /// Also knows a manager on `addr`, until managers say themselves who they are.
    pub fn hint(&self, addr: &str) {
        let known = &mut *self.known();
        if !known.addresses().any(|a| a == addr) {
            known.hints.push(addr.to_owned());
        }
    }

    /// Takes over what the leader says.
    pub fn learn(&self, managers: &[Manager]) {
        let known = &mut *self.known();
        let mut managers = managers.to_vec();
        managers.sort();
        if known.over || managers.is_empty() || known.managers == managers {
            return;
        }
        known.hints.clear();
        known.managers = managers;
        let Known { managers, weights, .. } = known;
        weights.retain(|addr, _| managers.iter().any(|m| m.addr == *addr));
        let bytes = serde_json::to_vec_pretty(&managers).expect("texts only");
        if let Err(error) = write_durably(&self.path, &bytes, 0o600) {
            tracing::warn!(%error, path = %self.path.display(), "cannot keep which managers there are");
        }
    }

    /// From now on nothing is written.
    pub fn end(&self) {
        self.known().over = true;
    }

    /// What came of turning to the manager on `addr`.
    pub fn observe(&self, addr: &str, good: bool) {
        let known = &mut *self.known();
        if known.addresses().any(|a| a == addr) {
            let weight = known.weights.entry(addr.to_owned()).or_insert(WORTH);
            *weight = SMOOTH * *weight + (1.0 - SMOOTH) * if good { WORTH } else { -WORTH };
            if !good {
                known.failed = Some(addr.to_owned());
            } else if known.failed.as_deref() == Some(addr) {
                known.failed = None;
            }
        }
    }

    /// Some manager, likelier one that was good lately.
    pub fn choose(&self, rng: &mut impl Rng) -> Option<String> {
        self.shuffled(rng).into_iter().next()
    }

    /// All managers, likelier ones first. The one that failed last comes last: where all were bad, as after an outage, it
    /// would be as likely as the others, and a manager that does not answer at all costs seconds.
    pub fn shuffled(&self, rng: &mut impl Rng) -> Vec<String> {
        let known = self.known();
        let weight = |addr: &str| known.weights.get(addr).copied().unwrap_or(WORTH).max(0.0) + BIAS;
        // The order of exponential waiting times, each with its weight as rate.
        let waits =
            known.addresses().map(|addr| (-rng.random::<f64>().max(f64::MIN_POSITIVE).ln() / weight(addr), addr));
        let mut waits: Vec<(f64, &str)> = waits.collect();
        waits.sort_by(|a, b| a.0.total_cmp(&b.0));
        waits.sort_by_key(|(_, addr)| known.failed.as_deref() == Some(*addr));
        waits.into_iter().map(|(_, addr)| addr.to_owned()).collect()
    }

    /// Whether there are managers besides the one on `node`, or were as it joined.
    pub fn has_others(&self, node: NodeId) -> bool {
        let known = self.known();
        !known.hints.is_empty() || known.managers.iter().any(|m| m.node_id != node)
    }

    /// The managers as the cluster said last.
    pub fn managers(&self) -> Vec<Manager> {
        self.known().managers.clone()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it is held")
    }
}

impl Known {
    fn addresses(&self) -> impl Iterator<Item = &str> {
        self.managers.iter().map(|m| &*m.addr).chain(self.hints.iter().map(|addr| &**addr))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn manager(digit: char, addr: &str) -> Manager {
        Manager { node_id: digit.to_string().repeat(25).parse().unwrap(), addr: addr.to_owned() }
    }

    fn chosen(remotes: &Remotes, addr: &str) -> usize {
        let mut rng = StdRng::seed_from_u64(1);
        (0..1000).filter(|_| remotes.choose(&mut rng).as_deref() == Some(addr)).count()
    }

    #[test]
    fn managers_are_remembered_and_those_that_are_gone_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("managers.json");
        let remotes = Remotes::load(path.clone());
        assert_eq!(remotes.choose(&mut StdRng::seed_from_u64(1)), None);
        remotes.hint("10.0.0.9:2377");
        assert_eq!(chosen(&remotes, "10.0.0.9:2377"), 1000);
        let both = [manager('a', "10.0.0.1:2377"), manager('b', "10.0.0.2:2377")];
        remotes.learn(&both);
        remotes.learn(&[]);
        assert_eq!(chosen(&remotes, "10.0.0.9:2377"), 0, "what was given counts until the managers are known");
        assert_eq!(Remotes::load(path.clone()).managers(), both);
        std::fs::write(&path, "[{").unwrap();
        assert!(Remotes::load(path).managers().is_empty());
    }

    #[test]
    fn good_managers_are_likelier_and_bad_ones_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let remotes = Remotes::load(dir.path().join("managers.json"));
        remotes.learn(&[manager('a', "a:1"), manager('b', "b:1")]);
        assert!((400..600).contains(&chosen(&remotes, "a:1")));
        remotes.observe("a:1", false);
        remotes.observe("stranger:1", true);
        assert!(chosen(&remotes, "a:1") < 10);
        assert_eq!(remotes.shuffled(&mut StdRng::seed_from_u64(1)), ["b:1", "a:1"]);
        for _ in 0..4 {
            remotes.observe("a:1", true);
        }
        assert!(chosen(&remotes, "a:1") > 300, "it recovers");
    }

    #[test]
    fn where_all_were_bad_the_one_that_failed_last_is_not_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let remotes = Remotes::load(dir.path().join("managers.json"));
        remotes.learn(&[manager('a', "a:1"), manager('b', "b:1"), manager('c', "c:1")]);
        for addr in ["a:1", "b:1", "c:1", "a:1", "b:1", "c:1"] {
            remotes.observe(addr, false);
        }
        assert_eq!(chosen(&remotes, "c:1"), 0);
        assert!(chosen(&remotes, "a:1") > 300 && chosen(&remotes, "b:1") > 300);
        remotes.learn(&[manager('c', "c:1")]);
        assert_eq!(chosen(&remotes, "c:1"), 1000, "there is no other one");
    }

    #[test]
    fn a_manager_that_was_told_only_of_another_one_is_not_alone() {
        let dir = tempfile::tempdir().unwrap();
        let remotes = Remotes::load(dir.path().join("managers.json"));
        let me = manager('b', "b:1");
        assert!(!remotes.has_others(me.node_id));
        remotes.hint("a:1");
        assert!(remotes.has_others(me.node_id));
        remotes.learn(&[manager('a', "a:1")]);
        assert!(remotes.has_others(me.node_id));
        remotes.learn(std::slice::from_ref(&me));
        assert!(!remotes.has_others(me.node_id));
    }
}
