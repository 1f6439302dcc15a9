//! The vocabulary of Shoal: identifiers, specs, objects, task states, changes and events.
//!
//! Owns the meaning and the JSON form of what the parts talk about, and the checks that need nothing but a value.
//! Leaves to others: where objects are kept (`store`), what should exist (`plan`), where it runs (`schedule`).
//! No I/O, no clock, no randomness: time and random bytes are arguments.
//!
//! Specs carry Docker's own field names, so one definition serves the HTTP bodies, the cluster's log and the
//! messages to nodes. Objects do not: what a client may see of them is decided in `api`.

pub mod change;
pub mod constraint;
pub mod generic;
pub mod id;
pub mod json;
pub mod name;
pub mod object;
pub mod payload;
pub mod spec;
pub mod state;
pub mod template;
pub mod validate;
pub mod view;

pub use change::{Change, Event, Object, ObjectKind, Settled, Step, TaskPatch};
pub use generic::GenericResource;
pub use id::{ClusterId, ConfigId, Id, IdMap, IdSet, IdSource, NodeId, RequestId, SecretId, ServiceId, TaskId};
pub use object::{Cluster, Meta, Node, Service, Task};
pub use payload::{Config, Payload, PayloadClass, PayloadKind, Secret};
pub use state::TaskState;
pub use validate::{Origin, Refusal, RefusalKind};
pub use view::View;

/// A point in time, with nanoseconds. JSON: RFC 3339.
pub type Timestamp = jiff::Timestamp;

/// A span of time in nanoseconds, as Docker's JSON has all its durations.
pub type Nanos = i64;

/// `time` plus `span`; at the ends of the calendar, the end.
pub fn after(time: Timestamp, span: Nanos) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_nanos(span)).unwrap_or(if span < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}
