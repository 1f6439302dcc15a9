//! Waiting for a container.

use std::sync::Arc;

use bollard_stubs::models::{ContainerWaitExitError, ContainerWaitResponse};
use tokio::sync::watch;

use super::Seen;
use crate::engine::Engine;
use crate::error::Result;
use crate::options::WaitCondition;

/// A wait that has begun: what happens after it was made is not missed.
#[derive(Debug)]
pub struct Wait {
    seen: watch::Receiver<Seen>,
    condition: WaitCondition,
    /// Ends seen when the wait began.
    exits: u64,
}

impl Engine {
    /// Begins to wait. A caller that answers over HTTP sends its headers before [`Wait::done`].
    pub fn wait(self: &Arc<Self>, name: &str, condition: WaitCondition) -> Result<Wait> {
        let container = self.containers.find(name)?;
        let mut seen = container.watch();
        let exits = seen.borrow_and_update().exits;
        Ok(Wait { seen, condition, exits })
    }
}

impl Wait {
    /// Returns when the condition has come true, with the exit code of the last run.
    pub async fn done(mut self) -> ContainerWaitResponse {
        let (condition, exits) = (self.condition, self.exits);
        let reached = self.seen.wait_for(|seen| match condition {
            WaitCondition::NotRunning => !seen.running || seen.removed,
            WaitCondition::NextExit => seen.exits > exits || seen.removed,
            WaitCondition::Removed => seen.removed,
        });
        // where the container has gone, and with it who would tell, the last word is what it was
        drop(reached.await);
        let seen = self.seen.borrow().clone();
        let error = (!seen.error.is_empty()).then(|| ContainerWaitExitError { message: Some(seen.error.clone()) });
        ContainerWaitResponse { status_code: seen.exit_code.into(), error }
    }
}
