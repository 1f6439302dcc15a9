//! Versions of objects, as they are written.

use std::sync::Arc;

use shoal_types::{Cluster, Meta, Node, Payload, PayloadKind, Service, Timestamp};

/// An object whose version clients name when they change it.
pub trait Stamped: Clone {
    /// Its version and times.
    fn meta(&self) -> Meta;
    /// The same, to be written.
    fn meta_mut(&mut self) -> &mut Meta;
    /// Whether users want the same with `before`: what else has changed is the cluster's own doing.
    fn wants_as(&self, before: &Self) -> bool;
}

/// `new` as it is applied at `index`, in place of `before`.
pub fn applied<T: Stamped>(new: &Arc<T>, before: Option<&Arc<T>>, index: u64, time: Timestamp) -> Arc<T> {
    let meta = Meta {
        version: index,
        wanted: wanted(new, before, index),
        created_at: before.map_or(time, |b| b.meta().created_at),
        updated_at: time,
    };
    with(new, meta)
}

/// The version of a task that is written at `index`. No client names it.
pub fn of_task(before: Option<Meta>, index: u64, time: Timestamp) -> Meta {
    Meta { version: index, wanted: index, created_at: before.map_or(time, |b| b.created_at), updated_at: time }
}

/// `new` as it is in a transaction: `version` stands for an index that is not known yet.
pub fn unborn<T: Stamped>(new: &Arc<T>, before: Option<&Arc<T>>, version: u64) -> Arc<T> {
    with(new, Meta { version, wanted: wanted(new, before, version), ..new.meta() })
}

fn wanted<T: Stamped>(new: &Arc<T>, before: Option<&Arc<T>>, version: u64) -> u64 {
    before.filter(|before| new.wants_as(before)).map_or(version, |before| before.meta().wanted)
}

fn with<T: Stamped>(object: &Arc<T>, meta: Meta) -> Arc<T> {
    let mut object = object.clone();
    *Arc::make_mut(&mut object).meta_mut() = meta;
    object
}

macro_rules! stamped {
    ($kind:ident $(<$param:ident>)?, |$new:ident, $before:ident| $same:expr) => {
        impl$(<$param: PayloadKind + Clone>)? Stamped for $kind$(<$param>)? {
            fn meta(&self) -> Meta {
                self.meta
            }
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
            fn wants_as(&self, before: &Self) -> bool {
                let ($new, $before) = (self, before);
                $same
            }
        }
    };
}

stamped!(Node, |new, old| new.spec == old.spec);
// The version that a client named changes with each update, even one that wants what there is.
stamped!(Service, |new, old| new.spec_version == old.spec_version && new.spec == old.spec);
stamped!(Cluster, |new, old| {
    let tokens = |c: &Cluster| (c.root_ca.worker_token.clone(), c.root_ca.manager_token.clone());
    new.spec == old.spec && new.unlock_keys == old.unlock_keys && tokens(new) == tokens(old)
});
stamped!(Payload<K>, |_new, _old| false);
