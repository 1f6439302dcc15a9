//! The life of a task on its node: one step function, and the one place that says retry, rejected or failed.
//!
//! Owns what comes next for a task and what each outcome makes of its status (swarm-semantics 2.3, 6).
//! Leaves to others: doing it (`agent`, over `engine`), replacing a task that ended (`plan`).
//!
//! An agent asks [`plan_next`], does what it says, hands the outcome to [`finish`], reports the status that comes
//! back, and asks again. While it starts or waits for a container it asks a [`Watch`] what each observation means.
//! When the task's desired state changes it cancels what it does and asks again.

mod step;
mod watch;

pub use step::{Action, Facts, Failure, Finished, Next, RETRY, Wanted, finish, plan_next};
pub use watch::{Exit, Observation, Verdict, Watch};
