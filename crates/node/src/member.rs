//! A node's membership in a swarm while it lasts: its manager under supervision, and its agent.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::launch::{Launch, LaunchError, Launcher, LocalAgent};
use crate::supervise::{self, Plan, Running, Status};
use crate::uplink::LocalManager;

/// A membership that lasts.
pub struct Member {
    /// Who the node is.
    pub identity: watch::Receiver<Identity>,
    agent: Option<Box<dyn LocalAgent>>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Member {
    /// Begins with a manager that runs, or starts one. An agent that does not start is an error; the manager then ends.
    pub async fn start(
        plan: Plan,
        running: Option<Running>,
        status: &watch::Sender<Status>,
        launcher: &dyn Launcher,
    ) -> Result<Self, LaunchError> {
        let identity = plan.identity.subscribe();
        let (listen, worker) = (plan.listen, plan.paths.worker());
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise::run(Arc::new(plan), running, status.clone(), stop.clone()));
        let mut member = Self { identity, agent: None, stop, supervisor };
        // An agent that calls before the manager leads only tries again, but later than need be.
        let mut watched = status.subscribe();
        drop(watched.wait_for(|s| matches!(s, Status::Active(_) | Status::Failed(_))).await);
        let (node, root) = {
            let identity = member.identity.borrow();
            (identity.node, identity.root_pem().to_owned())
        };
        let uplink = Arc::new(LocalManager::new(listen, member.identity.clone()));
        let launched = match shoal_manager::ca::tls_info(&root) {
            Ok(tls) => launcher.launch(Launch { node, tls, state_dir: &worker, uplink }).await,
            Err(error) => Err(error.into()),
        };
        match launched {
            Ok(agent) => {
                member.agent = Some(agent);
                Ok(member)
            }
            Err(error) => {
                member.stop().await;
                Err(error)
            }
        }
    }

    /// Ends manager and agent. The containers of tasks go on.
    pub async fn stop(self) {
        if let Some(agent) = self.agent {
            agent.stop().await;
        }
        self.stop.cancel();
        drop(self.supervisor.await);
    }

    /// Ends manager and agent, and removes the containers of tasks.
    pub async fn leave(self) {
        // The manager first, or it would go on giving tasks to a node that is leaving.
        self.stop.cancel();
        drop(self.supervisor.await);
        if let Some(agent) = self.agent {
            agent.leave().await;
        }
    }
}
