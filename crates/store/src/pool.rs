//! Sharing of what all tasks of one service and spec version have in common. Tasks arrive from the log each with its
//! own copy of the template; kept so, a hundred thousand of them would not fit.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use shoal_types::spec::{Annotations, EndpointSpec, TaskSpec};
use shoal_types::{ServiceId, Task};

/// One entry for each service and spec version that has tasks. Holds nothing alive.
#[derive(Debug, Default)]
pub(crate) struct Pool(BTreeMap<(ServiceId, u64), Shared>);

#[derive(Debug)]
struct Shared {
    annotations: Weak<Annotations>,
    spec: Weak<TaskSpec>,
    endpoint: Option<Weak<EndpointSpec>>,
    registry_auth: Option<Weak<str>>,
}

// === impl Pool ===

impl Pool {
    /// Makes `task` share its parts with an earlier task where they are equal, and remembers its parts otherwise.
    pub(crate) fn share(&mut self, task: &mut Task) {
        if let Some(known) = self.0.get(&(task.service_id, task.spec_version)) {
            reuse(&mut task.annotations, Some(&known.annotations));
            reuse(&mut task.spec, Some(&known.spec));
            if let Some(endpoint) = &mut task.endpoint {
                reuse(endpoint, known.endpoint.as_ref());
            }
            if let Some(auth) = &mut task.registry_auth {
                reuse(auth, known.registry_auth.as_ref());
            }
        }
        self.learn(task);
    }

    /// Remembers the parts of `task`.
    pub(crate) fn learn(&mut self, task: &Task) {
        let key = (task.service_id, task.spec_version);
        if !self.0.contains_key(&key) {
            let all = (task.service_id, 0)..=(task.service_id, u64::MAX);
            let dead: Vec<_> = self.0.range(all).filter(|(_, s)| s.spec.strong_count() == 0).map(|(k, _)| *k).collect();
            dead.iter().for_each(|key| drop(self.0.remove(key)));
        }
        let shared = Shared {
            annotations: Arc::downgrade(&task.annotations),
            spec: Arc::downgrade(&task.spec),
            endpoint: task.endpoint.as_ref().map(Arc::downgrade),
            registry_auth: task.registry_auth.as_ref().map(Arc::downgrade),
        };
        self.0.insert(key, shared);
    }

    /// Forgets a service that has no more tasks.
    pub(crate) fn forget(&mut self, service: ServiceId) {
        self.0.retain(|(id, _), _| *id != service);
    }
}

fn reuse<T: PartialEq + ?Sized>(mine: &mut Arc<T>, known: Option<&Weak<T>>) {
    if let Some(known) = known.and_then(Weak::upgrade)
        && (Arc::ptr_eq(&known, mine) || *known == **mine)
    {
        *mine = known;
    }
}
