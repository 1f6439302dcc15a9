//! How the manager on this node becomes one of the managers: it asks one that is known, follows it to the leader, and goes
//! on asking until it is taken in. The same call tells the others where it listens now.

use std::sync::Arc;
use std::time::Duration;

use shoal_raft::Raft;
use shoal_wire::UplinkError;
use shoal_wire::dial::leader_in;
use shoal_wire::proto::ConsensusJoin;
use shoal_wire::proto::consensus_client::ConsensusClient;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::membership::Membership;

/// How long the leader may take to bring a new manager up to date. A connection that breaks is noticed sooner.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause before the managers are asked again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A manager that hears no leader for this long asks whether it still is one.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the leader may fail to call this manager back, until it is told that its address is wrong.
const CALLED_BACK: u32 = 2;
/// How often this manager asks in vain until an operator should know what to do.
const LONELY: u32 = 10;
/// How the leader says so.
const UNREACHED: &str = "could not connect to prospective new cluster member";
/// How often one manager may name another as the leader.
const HOPS: usize = 4;

/// Why a manager is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The leader says no, and asking again would not change that.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// Nobody waits for it any more.
    #[error("it was given up")]
    GivenUp,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Attempt {
    #[error("no manager is known")]
    NoManager,
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("the leader takes too long")]
    Slow,
}

/// Becomes one of the managers; gives how many there are then.
///
/// # Errors
/// [`AdmissionError`].
pub async fn join(membership: &Membership, raft: &Raft, quit: &CancellationToken) -> Result<u32, AdmissionError> {
    let (mut backoff, mut unreached, mut attempts) = (BACKOFF.0, 0, 0);
    loop {
        attempts += 1;
        if attempts == LONELY {
            tracing::error!(
                "still no leader takes this manager in; managers that have all moved at the same time do not find each other: \
                 bring one back to the address where it was, or make a new cluster of one (docker swarm init \
                 --force-new-cluster) and have the others leave and join it"
            );
        }
        let attempt = tokio::select! {
            attempt = everywhere(membership, raft) => attempt,
            () = quit.cancelled() => return Err(AdmissionError::GivenUp),
        };
        match attempt {
            Ok(managers) => return Ok(managers),
            Err(Attempt::Status(status)) if is_final(&status) => return Err(AdmissionError::Refused(status)),
            Err(Attempt::Status(status)) if status.message().starts_with(UNREACHED) => {
                unreached += 1;
                if unreached >= CALLED_BACK {
                    return Err(AdmissionError::Refused(status));
                }
            }
            Err(error) => tracing::warn!(%error, "this manager is not one of the managers yet; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = quit.cancelled() => return Err(AdmissionError::GivenUp),
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// Tells the others where this manager listens, if they know it otherwise: where it was, no leader reaches it. Also when no
/// leader was heard for long.
pub async fn announce(membership: Arc<Membership>, raft: Raft) {
    let addr = membership.addresses.borrow().advertise.to_string();
    let is_known = || raft.members().1.iter().any(|(number, m)| *number == raft.number() && m.addr == addr);
    // What is on disk may be behind; the log tells more once there is a leader.
    let is_news = !is_known() || (hears_a_leader(&raft).await && !is_known());
    if !is_news && !is_lost(&raft).await {
        return;
    }
    loop {
        match join(&membership, &raft, &CancellationToken::new()).await {
            Ok(_) => {
                tracing::info!(addr, "the managers know where this one listens now");
                if !is_lost(&raft).await {
                    return;
                }
                continue;
            }
            Err(error) => tracing::warn!(%error, "the managers do not take over where this one listens"),
        }
        // It may not be a manager any more.
        membership.doubt.notify_one();
        tokio::time::sleep(BACKOFF.1).await;
    }
}

/// Whether a leader is heard before long.
async fn hears_a_leader(raft: &Raft) -> bool {
    tokio::time::timeout(SILENCE, raft.leader().wait_for(Option::is_some)).await.is_ok_and(|heard| heard.is_ok())
}

/// Waits until no leader was heard for long: the managers may be others by now, who do not call this one, and whom it does
/// not know. False where consensus ends here.
async fn is_lost(raft: &Raft) -> bool {
    let mut leader = raft.leader();
    while leader.wait_for(Option::is_none).await.is_ok() {
        if !hears_a_leader(raft).await {
            return true;
        }
    }
    false
}

async fn everywhere(membership: &Membership, raft: &Raft) -> Result<u32, Attempt> {
    let mut last = Attempt::NoManager;
    // Those that this node has heard of, and those in its own log: it may have been told of few.
    let mut known = membership.everywhere();
    let members = raft.members().1.into_iter().filter(|(number, _)| *number != raft.number());
    for (_, member) in members {
        if !known.contains(&member.addr) {
            known.push(member.addr);
        }
    }
    for addr in known {
        match follow(membership, raft, addr.clone()).await {
            Err(Attempt::Status(status)) if is_final(&status) => return Err(Attempt::Status(status)),
            Err(error) => {
                membership.remotes.observe(&addr, false);
                last = error;
            }
            joined => return joined,
        }
    }
    Err(last)
}

/// Asks the manager on `addr`, then whomever it names.
async fn follow(membership: &Membership, raft: &Raft, mut addr: String) -> Result<u32, Attempt> {
    let mut last = Attempt::NoManager;
    for _ in 0..HOPS {
        let addr_here = membership.addresses.borrow().advertise.to_string();
        let ask = ConsensusJoin { number: raft.number(), addr: addr_here, has_vote: raft.has_vote() };
        let mut client = ConsensusClient::new(membership.dialer.channel(&addr)?);
        let answer = tokio::time::timeout(PATIENCE, client.join(ask)).await.map_err(|_| Attempt::Slow)?;
        let status = match answer {
            Ok(joined) => return Ok(joined.into_inner().managers),
            Err(status) => status,
        };
        if status.code() == Code::Aborted {
            raft.set_removed();
        }
        let leader = leader_in(&status).map(str::to_owned);
        last = Attempt::Status(Box::new(status));
        match leader {
            Some(leader) if leader != addr => addr = leader,
            _ => break,
        }
    }
    Err(last)
}

fn is_final(status: &Status) -> bool {
    let codes =
        [Code::PermissionDenied, Code::InvalidArgument, Code::FailedPrecondition, Code::NotFound, Code::Aborted];
    codes.contains(&status.code())
}
