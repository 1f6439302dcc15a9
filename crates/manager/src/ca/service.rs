//! The authority as nodes call it: the root certificate for everyone, certificates for those who may have one.
//!
//! Whoever leads decides. Other managers pass requests on, since a node that joins may know no other manager.

use std::sync::Arc;
use std::time::Duration;

use shoal_raft::{Raft, Tx, WriteError, WriteFailure};
use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, NodeRole, NodeSpec};
use shoal_types::{Change, Cluster, ClusterId, Meta, Node, NodeId, Object, ObjectKind, Timestamp, View};
use shoal_wire::Dial;
use shoal_wire::proto::certificate_authority_client::CertificateAuthorityClient;
use shoal_wire::proto::certificate_authority_server::CertificateAuthority;
use shoal_wire::proto::{IssueRequest, IssueResponse, RetireRequest, RetireResponse, RootRequest, RootResponse};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tonic::{Code, Request as Call, Response, Status};

use super::gate::removed;
use super::{Authority, Request, Subject, issue};
use crate::lead;
use crate::peer::Peer;

/// How long a request waits for a leader that can answer it.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a leader may take for a request that is passed on.
const PASSED_ON: Duration = Duration::from_secs(5);
/// How often the members are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The pause before a leader is looked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// The calls of the authority.
#[derive(Debug, Clone)]
pub struct CaService {
    /// Where nodes and keys are.
    pub raft: Raft,
    /// Whose certificates it gives.
    pub cluster: ClusterId,
    /// The way to the leader.
    pub dial: Arc<dyn Dial>,
}

/// Who asks for a certificate.
#[derive(Debug, Clone)]
enum Claim {
    /// A new node.
    Join { token: String, availability: Availability },
    /// A node that shows its last certificate and has the key of it.
    Expired(String),
    /// A node whose connection proved who it is.
    Node(NodeId),
}

#[tonic::async_trait]
impl CertificateAuthority for CaService {
    async fn root(&self, _: Call<RootRequest>) -> Result<Response<RootResponse>, Status> {
        let view = self.raft.snapshot();
        let cluster = view.cluster().ok_or_else(|| Status::unavailable("this manager is not ready yet"))?;
        Ok(Response::new(RootResponse { root_ca: cluster.root_ca.cert_pem.clone() }))
    }

    async fn issue(&self, call: Call<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let caller = Peer::of(&call, self.cluster).ok();
        let mut asked = call.into_inner();
        let claim = claim(caller.as_ref(), &asked)?;
        let request = Request::read(&asked.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        // A manager has a certificate: it asks for itself in no other way than by that.
        let is_passed_on = caller.as_ref().is_some_and(|c| c.subject.role == NodeRole::Manager)
            && !matches!(&claim, Claim::Node(_) if asked.forwarded.is_empty());
        if let Claim::Node(node) = &claim {
            asked.forwarded = node.to_string();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.decide(&claim, &request).await? {
                return Ok(Response::new(answer));
            }
            if is_passed_on {
                return Err(lead::elsewhere(&self.raft));
            }
            if let Some(answer) = self.pass_on(self.leader(), &asked).await? {
                return Ok(Response::new(answer));
            }
            if Instant::now() > deadline {
                return Err(Status::unavailable("the swarm has no leader that could issue a certificate"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn retire(&self, call: Call<RetireRequest>) -> Result<Response<RetireResponse>, Status> {
        let node = Peer::of(&call, self.cluster)?.subject.node;
        if self.raft.leadership().borrow().is_none() {
            return Err(lead::elsewhere(&self.raft));
        }
        let down = move |tx: &mut Tx| {
            let Some(before) = tx.node(node) else { return Ok(()) };
            if before.description.is_none() {
                // It has never been there: its join has failed.
                return tx.change(Change::Remove(ObjectKind::Node(node))).map_err(|e| Status::internal(e.to_string()));
            }
            let mut after = before.as_ref().clone();
            after.spec.role = NodeRole::Worker;
            after.status.state = NodeState::Down;
            "the node has left the swarm".clone_into(&mut after.status.message);
            tx.change(Change::Put(Object::Node(Arc::new(after)))).map_err(|e| Status::internal(e.to_string()))
        };
        match self.raft.write(down).await {
            // A manager must not end while its vote still counts.
            Ok(()) if self.has_no_vote(node).await => Ok(Response::new(RetireResponse {})),
            Ok(()) | Err(WriteError::Failed(WriteFailure::NotLeader)) => Err(lead::elsewhere(&self.raft)),
            Err(error) => Err(failed(error)),
        }
    }
}

impl CaService {
    /// The certificate, if this manager leads.
    async fn decide(&self, claim: &Claim, request: &Request) -> Result<Option<IssueResponse>, Status> {
        if self.raft.leadership().borrow().is_none() {
            return Ok(None);
        }
        let (claim, request, id) = (claim.clone(), request.clone(), self.cluster);
        let written = self.raft.write(move |tx: &mut Tx| {
            let cluster = tx.cluster().cloned().ok_or_else(|| Status::unavailable("the cluster is not ready yet"))?;
            let (node, role) = match claim {
                Claim::Join { token, availability } => join(tx, &cluster, &request, &token, availability)?,
                Claim::Expired(old) => {
                    let mut roots = vec![cluster.root_ca.cert_pem.as_str()];
                    roots.extend(cluster.root_rotation.as_ref().map(|r| r.cert_pem.as_str()));
                    let node = request.vouched(&old, id, &roots);
                    known(tx, &cluster, node.map_err(|e| Status::permission_denied(e.to_string()))?)?
                }
                Claim::Node(node) => known(tx, &cluster, node)?,
            };
            sign(&cluster, &Subject { node, role, cluster: id }, &request)
        });
        match written.await {
            Ok(answer) => Ok(Some(answer)),
            Err(WriteError::Failed(WriteFailure::NotLeader)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Waits until `node` has no part in consensus. `false`: this manager does not lead any more, or it takes too long.
    async fn has_no_vote(&self, node: NodeId) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let takes_part = || self.raft.participants().iter().any(|p| p.member.node_id == Some(node));
        while takes_part() {
            if self.raft.leadership().borrow().is_none() || Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// A certificate for the node of this very manager, from the state as it is applied here: for a cluster whose managers
    /// have all been off beyond the end of their certificates. `None`: a leader is heard, or the node is no manager.
    pub fn for_itself(&self, node: NodeId, request: &Request) -> Option<IssueResponse> {
        if self.leader().is_some() {
            return None;
        }
        let view = self.raft.snapshot();
        let cluster = view.cluster().filter(|c| !c.blacklist.contains_key(&node))?;
        let role = view.node(node)?.role;
        let subject = Subject { node, role, cluster: self.cluster };
        sign(cluster, &subject, request).ok().filter(|_| role == NodeRole::Manager)
    }

    /// Asks the leader. `None`: there is none that answers now.
    async fn pass_on(&self, leader: Option<String>, asked: &IssueRequest) -> Result<Option<IssueResponse>, Status> {
        let Some(leader) = leader else { return Ok(None) };
        let channel = match self.dial.dial(&leader).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::debug!(leader, %error, "cannot pass a request for a certificate on");
                return Ok(None);
            }
        };
        let mut client = CertificateAuthorityClient::new(channel);
        match tokio::time::timeout(PASSED_ON, client.issue(asked.clone())).await {
            Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
            Ok(Err(status)) if status.code() != Code::Unavailable => Err(status),
            other => {
                tracing::debug!(leader, ?other, "the leader does not answer a request that was passed on");
                Ok(None)
            }
        }
    }

    fn leader(&self) -> Option<String> {
        lead::now(&self.raft).filter(|lead| lead.number != self.raft.number()).map(|lead| lead.addr)
    }
}

fn sign(cluster: &Cluster, subject: &Subject, request: &Request) -> Result<IssueResponse, Status> {
    let validity = cluster.spec.ca_config.node_cert_expiry;
    let certificate = issue(Authority::of(cluster), subject, request.key(), validity, Timestamp::now());
    Ok(IssueResponse {
        certificate: certificate.map_err(|e| Status::internal(e.to_string()))?,
        root_ca: cluster.root_ca.cert_pem.clone(),
    })
}

fn claim(caller: Option<&Peer>, asked: &IssueRequest) -> Result<Claim, Status> {
    let refused = |text: &str| Status::invalid_argument(text.to_owned());
    if !asked.token.is_empty() {
        let availability = match asked.availability.as_str() {
            "" | "active" => Availability::Active,
            "pause" => Availability::Pause,
            "drain" => Availability::Drain,
            other => return Err(Status::invalid_argument(format!("invalid Availability: {other:?}"))),
        };
        return Ok(Claim::Join { token: asked.token.clone(), availability });
    }
    if !asked.expired.is_empty() {
        return Ok(Claim::Expired(asked.expired.clone()));
    }
    let caller = caller.ok_or_else(wrong_token)?;
    if asked.forwarded.is_empty() {
        return Ok(Claim::Node(caller.subject.node));
    }
    match asked.forwarded.parse() {
        Ok(node) if caller.subject.role == NodeRole::Manager => Ok(Claim::Node(node)),
        Ok(_) => Err(Status::permission_denied("Permission denied: only a manager speaks for other nodes")),
        Err(_) => Err(refused("the node that a request is passed on for has no valid identifier")),
    }
}

/// Takes in the node whose key this is. The same request again finds the node of before.
fn join(
    tx: &mut Tx,
    cluster: &Cluster,
    request: &Request,
    token: &str,
    availability: Availability,
) -> Result<(NodeId, NodeRole), Status> {
    let id = request.node();
    // Both are looked at in any case, so that the time taken says nothing.
    let is_worker = is_same(&cluster.root_ca.worker_token, token);
    let role = match is_same(&cluster.root_ca.manager_token, token) {
        true => NodeRole::Manager,
        false if is_worker => NodeRole::Worker,
        false => return Err(wrong_token()),
    };
    if tx.node(id).is_some() || cluster.blacklist.contains_key(&id) {
        return known(tx, cluster, id);
    }
    let node = Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec { role, availability, ..NodeSpec::default() },
        role,
        description: None,
        status: Default::default(),
        manager_addr: None,
        wanted_issuer: None,
    };
    tx.change(Change::Put(Object::Node(Arc::new(node)))).map_err(|e| Status::internal(e.to_string()))?;
    Ok((id, role))
}

/// A node that is in the cluster, and the role that it has now.
fn known(tx: &Tx, cluster: &Cluster, id: NodeId) -> Result<(NodeId, NodeRole), Status> {
    if cluster.blacklist.contains_key(&id) {
        return Err(removed(id));
    }
    let node = tx.node(id).ok_or_else(|| Status::not_found(format!("node {id} not found")))?;
    Ok((id, node.role))
}

/// Compares in a time that does not depend on where the two differ.
fn is_same(ours: &str, theirs: &str) -> bool {
    ours.len() == theirs.len() && ours.as_bytes().ct_eq(theirs.as_bytes()).into()
}

fn wrong_token() -> Status {
    Status::invalid_argument("A valid join token is necessary to join this cluster")
}

fn failed(error: WriteError<Status>) -> Status {
    match error {
        WriteError::Refused(status) => status,
        WriteError::Failed(failure) => Status::unavailable(failure.to_string()),
    }
}
