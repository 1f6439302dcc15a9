//! Which machine the running code belongs to. Tokio tells of every task that is spawned and polled, so a task belongs to
//! the machine of the one that spawned it, and nothing in the real code needs to know.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;

use tokio::runtime::Builder;
use tokio::task::{Id, JoinHandle};

/// A machine of the simulated cluster, or [`NOWHERE`].
pub type Place = usize;

/// The simulator itself.
pub const NOWHERE: Place = usize::MAX;

thread_local! {
    static HERE: Cell<Place> = const { Cell::new(NOWHERE) };
    static TASKS: RefCell<HashMap<Id, Place>> = RefCell::default();
}

/// The machine that runs now.
pub fn here() -> Place {
    HERE.get()
}

/// Runs `work` as `place`.
pub fn enter<T>(place: Place, work: impl FnOnce() -> T) -> T {
    let before = HERE.replace(place);
    let done = work();
    HERE.set(before);
    done
}

/// Spawns `future` as a task of `place`; so are all tasks that it spawns.
pub fn spawn<F>(place: Place, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    enter(place, || tokio::spawn(future))
}

/// Has the runtime tell of its tasks.
pub fn watch(builder: &mut Builder) {
    TASKS.with_borrow_mut(HashMap::clear);
    HERE.set(NOWHERE);
    builder
        .on_task_spawn(|task| {
            let here = here();
            if here != NOWHERE {
                TASKS.with_borrow_mut(|tasks| tasks.insert(task.id(), here));
            }
        })
        .on_before_task_poll(|task| {
            let id = task.id();
            HERE.set(TASKS.with_borrow(|tasks| tasks.get(&id).copied().unwrap_or(NOWHERE)));
        })
        .on_after_task_poll(|_| HERE.set(NOWHERE))
        .on_task_terminate(|task| {
            let id = task.id();
            TASKS.with_borrow_mut(|tasks| tasks.remove(&id));
        });
}
