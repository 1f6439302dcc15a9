//! Calls between managers. A cluster of one has none; the transport over gRPC implements the same two traits.

use std::future::Future;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot};

use crate::types::{Member, Types, Vote};

/// The transport of a manager that has no peers: every call says that nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

/// There is no way to another manager.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this manager has no connection to others")]
struct NobodyThere;

type RpcError = RPCError<u64, Member, RaftError<u64>>;

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &Member) -> Self {
        *self
    }
}

impl RaftNetwork<Types> for NoPeers {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        Err(Unreachable::new(&NobodyThere).into())
    }

    async fn vote(&mut self, _rpc: VoteRequest<u64>, _option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        Err(Unreachable::new(&NobodyThere).into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        Err(Unreachable::new(&NobodyThere).into())
    }
}
