//! `docker swarm unlock` (swarm-semantics 8.4).

use shoal_manager::ca::UnlockKey;
use shoal_types::{Refusal, RefusalKind};

use crate::init::failed;
use crate::node::Node;
use crate::supervise::Status;
use crate::vault::{Found, Vault};

impl Node {
    /// Opens this manager's keys and goes on as one. Returns once it works, or when a user would not wait longer.
    ///
    /// # Errors
    /// `invalid key string`; `swarm is not locked`; `swarm could not be unlocked: invalid key provided`.
    pub async fn unlock(&self, key: &str) -> Result<(), Refusal> {
        let key: UnlockKey =
            key.parse().map_err(|_| Refusal::engine(RefusalKind::InvalidArgument, "invalid key string"))?;
        let mut member = self.member.lock().await;
        let locked = match self.status() {
            Status::Locked => Vault::find(&self.paths.certificates()).map_err(|e| failed(&e))?,
            _ => Found::Nothing,
        };
        let Found::Locked(locked) = locked else {
            return Err(Refusal::engine(RefusalKind::AlreadyExists, "swarm is not locked"));
        };
        let Some((identity, vault)) = locked.open(&key).map_err(|e| failed(&e))? else {
            let text = "swarm could not be unlocked: invalid key provided";
            return Err(Refusal::engine(RefusalKind::Unauthenticated, text));
        };
        self.status.send_replace(Status::Pending);
        match self.come_back(identity, vault, None).await {
            Ok(back) => *member = Some(back),
            Err(error) => {
                self.status.send_replace(Status::Failed(error.to_string().into()));
                return Err(failed(&error));
            }
        }
        self.await_start().await;
        Ok(())
    }
}
