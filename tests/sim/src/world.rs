//! What all parts of one simulation share: the seed's random numbers, the clocks, what happened, and what went wrong.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::SignedDuration;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use shoal_types::Timestamp;
use tokio::time::Instant;

use crate::place::{self, NOWHERE, Place};
use crate::plant::Plant;

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The virtual time on this thread, and the machine that runs.
pub fn stamp() -> String {
    let at = START.get().map_or(Duration::ZERO, |start| start.elapsed());
    let here = match place::here() {
        NOWHERE => "  ".to_owned(),
        place => format!("m{place}"),
    };
    format!("{:>7}.{:03} {here}", at.as_secs(), at.subsec_millis())
}

/// What happened last is kept for the report of a violation.
const KEPT: usize = 400;

/// One simulation. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    plant: Option<Plant>,
    verbose: bool,
    start: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    random: SmallRng,
    skews: BTreeMap<Place, SignedDuration>,
    trace: VecDeque<String>,
    hash: DefaultHasher,
    events: u64,
    violation: Option<String>,
}

/// The world as [`shoal_ambient`] sees it.
struct Ambient(World);

impl World {
    /// The world of `seed`; made inside of its runtime.
    pub fn new(seed: u64, plant: Option<Plant>, verbose: bool) -> Self {
        let inner = Inner {
            random: SmallRng::seed_from_u64(seed),
            skews: BTreeMap::new(),
            trace: VecDeque::new(),
            hash: DefaultHasher::new(),
            events: 0,
            violation: None,
        };
        let start = Instant::now();
        START.set(Some(start));
        Self(Arc::new(Shared { plant, verbose, start, inner: Mutex::new(inner) }))
    }

    /// Gives this thread the world's time and chance.
    pub fn inhabit(&self) -> shoal_ambient::Stay {
        shoal_ambient::inhabit(Rc::new(Ambient(self.clone())))
    }

    /// Whether this bug is planted.
    pub fn has(&self, plant: Plant) -> bool {
        self.0.plant == Some(plant)
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }

    /// A number of `range`.
    pub fn draw(&self, range: Range<u64>) -> u64 {
        self.lock().random.random_range(range)
    }

    /// Whether something happens that does so with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        self.lock().random.random_bool(probability)
    }

    /// Milliseconds of `range`, as a duration.
    pub fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    /// One of `items`.
    pub fn pick<T: Clone>(&self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { items.get(self.draw(0..items.len() as u64) as usize).cloned() }
    }

    /// Sets a machine's clock off by `skew`.
    pub fn skew(&self, place: Place, skew: SignedDuration) {
        self.lock().skews.insert(place, skew);
    }

    /// Notes that something happened.
    pub fn note(&self, what: impl Display) {
        let line = format!("{} {what}", stamp());
        if self.0.verbose {
            eprintln!("{line}");
        }
        let mut inner = self.lock();
        line.hash(&mut inner.hash);
        inner.events += 1;
        if inner.trace.len() == KEPT {
            inner.trace.pop_front();
        }
        inner.trace.push_back(line);
    }

    /// Adds to what two runs of one seed must have in common, without keeping a line of it.
    pub fn mark(&self, what: impl Hash) {
        let at = self.elapsed();
        let mut inner = self.lock();
        (at, what).hash(&mut inner.hash);
        inner.events += 1;
    }

    /// Notes that an invariant is broken; the first one counts.
    pub fn violated(&self, what: impl Display) {
        self.note(format_args!("VIOLATION {what}"));
        let text = what.to_string();
        self.lock().violation.get_or_insert(text);
    }

    /// The first invariant that was broken.
    pub fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    /// What happened last.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.iter().cloned().collect()
    }

    /// A number that is the same for two runs where the same happened, and how many things did.
    pub fn fingerprint(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash.finish(), inner.events)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().expect("nothing panics while it holds the world")
    }
}

impl shoal_ambient::World for Ambient {
    fn now(&self) -> Timestamp {
        // Some day; each machine has its own idea of the time.
        let start = Timestamp::constant(1_900_000_000, 0);
        let skew = self.0.lock().skews.get(&place::here()).copied().unwrap_or_default();
        let elapsed = SignedDuration::try_from(self.0.elapsed()).unwrap_or_default();
        start.checked_add(elapsed.saturating_add(skew)).unwrap_or(start)
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().random.fill_bytes(bytes);
    }
}
