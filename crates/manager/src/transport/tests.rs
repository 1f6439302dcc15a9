use shoal_types::{Change, Object};
use shoal_wire::dial::leader_in;

use super::*;
use crate::ids::RandomIds;
use crate::testing::Trio;
use crate::testing::first_node;

#[test]
fn an_unspecified_host_is_the_caller() {
    let at = |addr, caller| advertised(addr, caller).ok();
    assert_eq!(at("10.0.0.1:2377", "10.0.0.9").as_deref(), Some("10.0.0.1:2377"));
    assert_eq!(at("manager.example:2377", "10.0.0.9").as_deref(), Some("manager.example:2377"));
    assert_eq!(at("0.0.0.0:2377", "10.0.0.9").as_deref(), Some("10.0.0.9:2377"));
    assert_eq!(at("[::]:2377", "fd00::9").as_deref(), Some("[fd00::9]:2377"));
    assert_eq!(at(":2377", "10.0.0.9").as_deref(), Some("10.0.0.9:2377"));
    for bad in ["10.0.0.1", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.1:70000", ""] {
        assert_eq!(at(bad, "10.0.0.9"), None, "{bad}");
    }
    assert_eq!(at("0.0.0.0:2377", ""), None);
}

async fn join(trio: &Trio, place: usize, node: NodeId, role: NodeRole, asks: (u64, &str, bool)) -> Result<u32, Status> {
    let transport = GrpcTransport::new(trio.visitor(node, role));
    let mut client = transport.connect(&trio.managers[place].addr).await.unwrap();
    let joined = client.join(ConsensusJoin { number: asks.0, addr: asks.1.to_owned(), has_vote: asks.2 }).await?;
    Ok(joined.into_inner().managers)
}

#[tokio::test]
async fn calls_are_taken_from_managers_and_for_the_own_number_only() {
    let trio = Trio::new().await;
    let one = &trio.managers[1];
    let member = Member { node_id: None, addr: one.addr.clone(), ..Member::default() };
    let call = async |role, number| {
        let transport = GrpcTransport::new(trio.visitor(NodeId::new(&mut RandomIds), role));
        match transport.call(number, &member, Vec::new()).await {
            Err(TransportError::Refused { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let number = one.raft.number();
    assert!(call(NodeRole::Manager, number).await.starts_with("cannot understand a manager's call"));
    assert_eq!(call(NodeRole::Manager, number + 1).await, "another manager listens here now");
    assert!(call(NodeRole::Worker, number).await.contains("only managers may do this"));
}

#[tokio::test]
async fn a_manager_is_taken_in_where_the_cluster_wants_it_and_it_answers_at_its_address() {
    let trio = Trio::new().await;
    let lead = trio.leader(None).await;
    let node = NodeId::new(&mut RandomIds);
    let new = (77, "0.0.0.0:2377", false);

    let worker = join(&trio, lead, node, NodeRole::Worker, new).await.unwrap_err();
    assert_eq!(worker.code(), Code::PermissionDenied);
    let unknown = join(&trio, lead, node, NodeRole::Manager, new).await.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    assert_eq!(unknown.message(), format!("node {node} is not a member of the swarm"));

    let put = Change::Put(Object::Node(Arc::new(first_node(node, "10.0.0.9:2377"))));
    trio.managers[lead].raft.write(|tx: &mut shoal_raft::Tx| tx.change(put)).await.unwrap();
    let deaf = join(&trio, lead, node, NodeRole::Manager, new).await.unwrap_err();
    let text = "could not connect to prospective new cluster member using its advertised address: ";
    assert!(deaf.message().starts_with(text), "{deaf}");
    assert_eq!(trio.managers[lead].raft.participants().len(), 3);

    let follower = (lead + 1) % 3;
    let known = &trio.managers[follower];
    let ask = (known.raft.number(), known.addr.as_str(), true);
    assert_eq!(join(&trio, lead, known.node, NodeRole::Manager, ask).await.unwrap(), 3);
    let removed = (known.raft.number() + 1, known.addr.as_str(), true);
    let removed = join(&trio, lead, known.node, NodeRole::Manager, removed).await.unwrap_err();
    assert_eq!(removed.code(), Code::Aborted, "it had a vote once: {removed}");
    known.raft.leader().wait_for(Option::is_some).await.unwrap();
    let elsewhere = join(&trio, follower, known.node, NodeRole::Manager, ask).await.unwrap_err();
    assert_eq!(leader_in(&elsewhere), Some(trio.managers[lead].addr.as_str()));
}
