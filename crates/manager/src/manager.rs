//! A running manager: its calls for agents, its control handle, its leader's parts.

use shoal_raft::Raft;
use shoal_types::ClusterId;
use shoal_wire::MAX_MESSAGE;
use shoal_wire::proto::dispatcher_server::DispatcherServer;
use shoal_wire::proto::log_broker_server::LogBrokerServer;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::broker::BrokerService;
use crate::control::Control;
use crate::dispatch::DispatcherService;
use crate::leader::{Active, supervise};

/// A running manager. Dropping it ends its parts.
#[derive(Debug)]
pub struct Manager {
    raft: Raft,
    cluster: ClusterId,
    active: Active,
    supervisor: JoinHandle<()>,
}

impl Manager {
    /// Starts the manager of `cluster` on this machine's part in consensus.
    pub fn start(raft: Raft, cluster: ClusterId) -> Self {
        let (active, run) = supervise(raft.clone());
        Self { raft, cluster, active, supervisor: tokio::spawn(run) }
    }

    /// What clients ask for. Stays valid; calls fail once the manager has ended.
    pub fn control(&self) -> Control {
        Control::new(self.raft.clone(), self.active.clone())
    }

    /// What agents call, for the server that listens to other nodes.
    pub fn routes(&self) -> Routes {
        let (active, cluster) = (self.active.clone(), self.cluster);
        let dispatcher = DispatcherServer::new(DispatcherService { active: active.clone(), cluster });
        let broker = LogBrokerServer::new(BrokerService { active, cluster });
        Routes::new(dispatcher.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
            .add_service(broker.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    #[cfg(test)]
    pub(crate) fn active(&self) -> &Active {
        &self.active
    }

    /// This manager's part in consensus.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}
