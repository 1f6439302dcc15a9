//! A running manager: its calls for agents and other managers, its control handle, its leader's parts.

use std::sync::Arc;

use shoal_raft::Raft;
use shoal_types::ClusterId;
use shoal_wire::proto::certificate_authority_server::CertificateAuthorityServer;
use shoal_wire::proto::consensus_server::ConsensusServer;
use shoal_wire::proto::control_server::ControlServer;
use shoal_wire::proto::dispatcher_server::DispatcherServer;
use shoal_wire::proto::log_broker_server::LogBrokerServer;
use shoal_wire::{Dial, MAX_MESSAGE};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::broker::BrokerService;
use crate::ca::{CaService, gate};
use crate::control::Control;
use crate::dispatch::DispatcherService;
use crate::leader::{Active, supervise};
use crate::transport::ConsensusService;

/// A running manager. Dropping it ends its parts.
#[derive(Debug)]
pub struct Manager {
    raft: Raft,
    cluster: ClusterId,
    active: Active,
    control: Control,
    dial: Arc<dyn Dial>,
    supervisor: JoinHandle<()>,
}

impl Manager {
    /// Starts the manager of `cluster` on this machine's part in consensus. It reaches other managers by `dial`.
    pub fn start(raft: Raft, cluster: ClusterId, dial: Arc<dyn Dial>) -> Self {
        let (active, run) = supervise(raft.clone());
        let control = Control::new(raft.clone(), active.clone(), dial.clone());
        Self { raft, cluster, active, control, dial, supervisor: tokio::spawn(run) }
    }

    /// What clients ask for. Stays valid; calls fail once the manager has ended.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The certificate authority, for calls from this machine.
    pub fn authority(&self) -> CaService {
        CaService { raft: self.raft.clone(), cluster: self.cluster, dial: self.dial.clone() }
    }

    /// What agents and other managers call, for the server that listens to other nodes.
    pub fn routes(&self) -> Routes {
        let gate = gate(self.raft.clone());
        /// Bodies may be larger than what is usual, and nodes that were removed are turned away.
        macro_rules! sized {
            ($server:expr) => {
                InterceptedService::new(
                    $server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE),
                    gate.clone(),
                )
            };
        }
        let (active, cluster) = (self.active.clone(), self.cluster);
        let dispatcher = DispatcherService { raft: self.raft.clone(), active: active.clone(), cluster };
        let broker = BrokerService { raft: self.raft.clone(), active, cluster };
        let ca = self.authority();
        let consensus = ConsensusService { raft: self.raft.clone(), cluster, dial: self.dial.clone() };
        Routes::new(sized!(DispatcherServer::new(dispatcher)))
            .add_service(sized!(LogBrokerServer::new(broker)))
            .add_service(sized!(ControlServer::new(self.control.service(cluster))))
            .add_service(sized!(ConsensusServer::new(consensus)))
            .add_service(sized!(CertificateAuthorityServer::new(ca)))
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
