//! A node's membership in a swarm while it lasts: its manager under supervision, its agent, its certificate.

use std::sync::Arc;
use std::time::Duration;

use shoal_types::spec::NodeRole;
use shoal_wire::dial::leader_in;
use shoal_wire::proto::RetireRequest;
use shoal_wire::proto::certificate_authority_client::CertificateAuthorityClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::launch::{Launch, LaunchError, Launcher, LocalAgent};
use crate::membership::Membership;
use crate::renew;
use crate::supervise::{self, Running, Status};
use crate::whereabouts;

/// How long the managers may take to hear that this node leaves; they find out by themselves, too.
const FAREWELL: Duration = Duration::from_secs(8);
/// The pause before another manager is told.
const PAUSE: Duration = Duration::from_millis(100);

/// A membership that lasts.
pub struct Member {
    /// What it is and knows.
    pub membership: Arc<Membership>,
    agent: Option<Box<dyn LocalAgent>>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
    renewal: JoinHandle<()>,
    whereabouts: JoinHandle<()>,
}

impl Member {
    /// Begins with a manager that runs, or starts what the node is. An agent that does not start is an error; everything
    /// else then ends.
    pub async fn start(
        membership: Arc<Membership>,
        running: Option<Running>,
        status: &watch::Sender<Status>,
        launcher: &dyn Launcher,
    ) -> Result<Self, LaunchError> {
        match &running {
            Some(running) => drop(status.send_replace(Status::Active(running.control()))),
            None if membership.role() == NodeRole::Worker => drop(status.send_replace(Status::Worker)),
            None => {}
        }
        let stop = CancellationToken::new();
        let renewal = tokio::spawn(renew::run(membership.clone()));
        let whereabouts = tokio::spawn(whereabouts::follow(membership.clone()));
        let supervised = supervise::run(membership.clone(), running, status.clone(), stop.clone());
        let supervisor = tokio::spawn(supervised);
        let mut member = Self { membership, agent: None, stop, supervisor, renewal, whereabouts };
        match member.launch(launcher).await {
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

    async fn launch(&self, launcher: &dyn Launcher) -> Result<Box<dyn LocalAgent>, LaunchError> {
        let membership = &self.membership;
        let state_dir = membership.paths.worker();
        let uplink = Arc::new(crate::uplink::Managers(membership.clone()));
        let launch = Launch { node: membership.node(), tls: membership.tls.subscribe(), state_dir: &state_dir, uplink };
        launcher.launch(launch).await
    }

    /// Ends manager and agent. The containers of tasks go on.
    pub async fn stop(mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop().await;
        }
        self.end().await;
    }

    async fn end(self) {
        self.renewal.abort();
        self.whereabouts.abort();
        self.stop.cancel();
        drop(self.supervisor.await);
        drop(self.renewal.await);
        drop(self.whereabouts.await);
        self.membership.end();
    }

    /// Tells the managers that this node leaves, ends everything, and removes the containers of tasks.
    pub async fn leave(mut self) {
        let agent = self.agent.take();
        let knows_others = self.membership.remotes.has_others(self.membership.node());
        let is_alone = self.membership.role() == NodeRole::Manager && !knows_others;
        if is_alone {
            // There is nobody to tell, and the manager must not go on giving tasks to a node that is leaving.
            self.end().await;
            leave(agent).await;
            return;
        }
        let membership = self.membership.clone();
        // The agent ends its session first of all: the node must not come back by itself.
        tokio::join!(leave(agent), farewell(&membership));
        self.end().await;
    }
}

async fn leave(agent: Option<Box<dyn LocalAgent>>) {
    if let Some(agent) = agent {
        agent.leave().await;
    }
}

/// Tells the managers that this node leaves, so that they need not find out.
pub(crate) async fn farewell(membership: &Membership) {
    let told = tokio::time::timeout(FAREWELL, async {
        let mut next = None;
        loop {
            let Some(addr) = next.take().or_else(|| membership.somewhere()) else { return };
            let status = match membership.dialer.channel(&addr) {
                Ok(channel) => match CertificateAuthorityClient::new(channel).retire(RetireRequest {}).await {
                    Ok(_) => return,
                    Err(status) => status,
                },
                Err(error) => tonic::Status::unavailable(error.to_string()),
            };
            tracing::debug!(addr, %status, "a manager was not told that this node leaves");
            next = leader_in(&status).filter(|leader| *leader != addr).map(str::to_owned);
            if next.is_none() {
                membership.remotes.observe(&addr, false);
                tokio::time::sleep(PAUSE).await;
            }
        }
    });
    if told.await.is_err() {
        tracing::warn!("no manager could be told that this node leaves; the swarm will find it down");
    }
}
