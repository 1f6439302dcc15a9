//! Bugs that are planted on purpose, in the simulated parts only, to see that the simulator finds such ones.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// The disk says that data is safe when it is not: acknowledgement before `fsync`.
    EarlyAck,
    /// A manager comes back with its disk as it was some time ago, the vote and its term included.
    OldDisk,
    /// An answer to one call between managers is taken for the answer to another one, whatever its term.
    MixedAnswers,
    /// A late report of a task overwrites the state in which it has ended.
    LateReport,
    /// A slot is forgotten and filled a second time.
    DoubleSlot,
    /// A node says that a container has stopped, and it goes on: its place is free too early.
    Leftover,
}
