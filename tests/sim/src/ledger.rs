//! What clients asked for and what they were told: the history that the cluster has to answer for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a register holds: unique, 0 at the beginning.
pub type Value = u64;

/// The history. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Orders all beginnings and ends.
    clock: u64,
    registers: BTreeMap<String, Register>,
    services: BTreeMap<String, Fate>,
    /// Services that somebody has asked to remove.
    removing: BTreeSet<String>,
}

/// All operations on a register.
#[derive(Default, Clone)]
pub struct Register {
    /// In the order in which they began.
    pub operations: Vec<Operation>,
}

/// A read, or a read with a write after it.
#[derive(Debug, Clone)]
pub struct Operation {
    /// When it began.
    pub begin: u64,
    /// When it was answered.
    pub end: u64,
    /// The value that was read, or that the write was to replace.
    pub base: Value,
    /// The value that was written.
    pub wrote: Option<Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// A read without a leader: it may be old.
    pub is_stale: bool,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Done,
    /// The answer says that nothing happened.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What must be true of a service in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Present,
    /// It is not.
    Absent,
    /// It may be or not.
    Open,
}

impl Ledger {
    /// A moment, after all before.
    pub fn tick(&self) -> u64 {
        let mut inner = self.lock();
        inner.clock += 1;
        inner.clock
    }

    /// Notes an operation on a register; its number.
    pub fn begin(&self, register: &str, base: Value, wrote: Option<Value>) -> usize {
        let begin = self.tick();
        let mut inner = self.lock();
        let operations = &mut inner.registers.entry(register.to_owned()).or_default().operations;
        let outcome = Outcome::Unknown;
        operations.push(Operation { begin, end: u64::MAX, base, wrote, outcome, is_stale: false });
        operations.len() - 1
    }

    /// Notes its end.
    pub fn end(&self, register: &str, number: usize, change: impl FnOnce(&mut Operation)) {
        let end = self.tick();
        let mut inner = self.lock();
        let operations = inner.registers.get_mut(register).map(|r| &mut r.operations);
        if let Some(operation) = operations.and_then(|o| o.get_mut(number)) {
            operation.end = end;
            change(operation);
        }
    }

    /// All registers.
    pub fn registers(&self) -> BTreeMap<String, Register> {
        self.lock().registers.clone()
    }

    /// A service is asked for. Its name is used once.
    pub fn creating(&self, service: &str) {
        self.lock().services.insert(service.to_owned(), Fate::Open);
    }

    /// Its creation was answered.
    pub fn created(&self, service: &str) {
        let mut inner = self.lock();
        if !inner.removing.contains(service) {
            inner.services.insert(service.to_owned(), Fate::Present);
        }
    }

    /// Its removal is asked for.
    pub fn removing(&self, service: &str) {
        let mut inner = self.lock();
        inner.removing.insert(service.to_owned());
        if inner.services.get(service) == Some(&Fate::Present) {
            inner.services.insert(service.to_owned(), Fate::Open);
        }
    }

    /// Its removal was answered.
    pub fn removed(&self, service: &str) {
        self.lock().services.insert(service.to_owned(), Fate::Absent);
    }

    /// What is known of all services.
    pub fn fates(&self) -> BTreeMap<String, Fate> {
        self.lock().services.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the ledger")
    }
}
