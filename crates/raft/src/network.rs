//! Calls between managers: what carries them, and this manager's end of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use openraft::{Membership, RaftMetrics};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::contact::Contacts;
use crate::log::LogStore;
use crate::message::{Answer, Call, MAX_CALL, What, decode, encode};
use crate::types::{Lineage, LogId, Member, Vote};

/// Carries calls to other members. Each call is one message of less than 4 MiB, and its answer; calls to one member may
/// overtake each other, may be lost, and may arrive twice.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Brings `body` to member number `to`, which is `member`, and returns what its `Raft::serve` answers. Dropping the
    /// future gives the call up. It must end by itself when nothing comes back, within some seconds.
    ///
    /// # Errors
    /// [`TransportError`]; the call may have arrived all the same.
    async fn call(&self, to: u64, member: &Member, body: Vec<u8>) -> Result<Vec<u8>, TransportError>;
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// This manager has no connection to others.
    #[error("this manager has no connection to others")]
    NoPeers,
    /// Nobody answers there.
    #[error("cannot reach {addr}: {reason}")]
    Unreachable {
        /// The address.
        addr: String,
        /// What the connection says.
        reason: String,
    },
    /// Somebody answers who does not take the call: another member, or one that has stopped.
    #[error("{addr} does not take the call: {reason}")]
    Refused {
        /// The address.
        addr: String,
        /// What it says.
        reason: String,
    },
}

/// Why a call that was made here brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The call has no form in bytes.
    #[error("cannot write a call: {0}")]
    Encode(String),
    /// The call is larger than a message can be.
    #[error("a call of {0} bytes is too large")]
    TooLarge(usize),
    /// Who answers there is a member of another cluster, one that was made by force from this one or the other way round.
    #[error("{addr} is a member of another cluster by now")]
    Foreign {
        /// The address.
        addr: String,
    },
    /// The answer is not one to the call: another version, perhaps.
    #[error("cannot understand the answer of {addr}: {reason}")]
    Answer {
        /// The address.
        addr: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The transport of a manager that has no peers: every call says that nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

#[async_trait::async_trait]
impl Transport for NoPeers {
    async fn call(&self, _to: u64, _member: &Member, _body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        Err(TransportError::NoPeers)
    }
}

/// This manager among the others.
pub struct Mesh {
    /// Its number.
    pub number: u64,
    /// What is known of contacts.
    pub contacts: Contacts,
    transport: Arc<dyn Transport>,
    log: LogStore,
    metrics: OnceLock<watch::Receiver<RaftMetrics<u64, Member>>>,
    superseded: watch::Sender<bool>,
    /// Members that have said where they are by now, by number: where the list of members has them, and where they are.
    moved: Mutex<BTreeMap<u64, (String, String)>>,
}

impl Mesh {
    /// Nobody was met yet.
    pub fn new(number: u64, transport: Arc<dyn Transport>, log: LogStore) -> Self {
        Self {
            number,
            contacts: Contacts::default(),
            transport,
            log,
            metrics: OnceLock::new(),
            superseded: watch::Sender::new(false),
            moved: Mutex::default(),
        }
    }

    /// Calls member number `to`.
    ///
    /// # Errors
    /// [`CallError`]; the call may have arrived all the same.
    pub async fn call(&self, to: u64, member: &Member, what: What, tail: &[u8]) -> Result<Answer, CallError> {
        let body = self.encode(what, tail)?;
        self.send(to, member, body).await
    }

    /// A call as bytes.
    ///
    /// # Errors
    /// [`CallError`] where it is too large or has no such form.
    pub fn encode(&self, what: What, tail: &[u8]) -> Result<Vec<u8>, CallError> {
        let lineage = self.lineage();
        let body =
            encode(&Call { from: self.number, lineage, what }, tail).map_err(|e| CallError::Encode(e.to_string()))?;
        if body.len() > MAX_CALL { Err(CallError::TooLarge(body.len())) } else { Ok(body) }
    }

    /// Makes a call that [`Self::encode`] has written.
    ///
    /// # Errors
    /// [`CallError`]; the call may have arrived all the same.
    pub async fn send(&self, to: u64, member: &Member, body: Vec<u8>) -> Result<Answer, CallError> {
        let bytes = self.transport.call(to, &self.whereabouts(to, member), body).await?;
        let bad = |e: &dyn std::fmt::Display| CallError::Answer { addr: member.addr.clone(), reason: e.to_string() };
        let (answer, _) = decode(&bytes).map_err(|e| bad(&e))?;
        if let Answer::Foreign { lineage } = answer {
            if self.lineage().is_some_and(|mine| lineage.epoch > mine.epoch) {
                self.superseded.send_replace(true);
            }
            return Err(CallError::Foreign { addr: member.addr.clone() });
        }
        self.contacts.meet(to);
        Ok(answer)
    }

    /// Member number `number`, which the list of members has at `listed`, is at `addr` now.
    pub fn relocate(&self, number: u64, listed: &str, addr: &str) {
        let mut moved = self.moved.lock().expect("nothing panics while it is held");
        moved.insert(number, (listed.to_owned(), addr.to_owned()));
    }

    /// `member` where it is now: the list of members counts again once it says something new.
    fn whereabouts(&self, number: u64, member: &Member) -> Member {
        let moved = self.moved.lock().expect("nothing panics while it is held");
        let addr = moved.get(&number).filter(|(listed, _)| *listed == member.addr).map(|(_, addr)| addr.clone());
        Member { addr: addr.unwrap_or_else(|| member.addr.clone()), ..member.clone() }
    }

    /// From now on the lists of members that `metrics` tell of are known.
    pub fn follow(&self, metrics: watch::Receiver<RaftMetrics<u64, Member>>) {
        // It is called once.
        self.metrics.set(metrics).ok();
    }

    /// The cluster that this one is a member of. One that is still being told what happened before it came is none yet: the
    /// lists of members that it reads are those of others.
    pub fn lineage(&self) -> Option<Lineage> {
        let metrics = self.metrics.get()?.borrow();
        metrics.membership_config.membership().get_node(&self.number).map(|member| member.lineage)
    }

    /// Whether one of the members was made a cluster of its own by force, in place of this one.
    pub fn superseded(&self) -> watch::Receiver<bool> {
        self.superseded.subscribe()
    }

    /// The last entry in the log here.
    pub fn last(&self) -> Option<LogId> {
        self.log.last()
    }

    /// Since when a majority of `membership` follows this manager, who leads by `vote`: see [`Contacts::followed`].
    pub fn followed(&self, membership: &Membership<u64, Member>, vote: Vote) -> Option<Instant> {
        self.contacts.followed(membership, self.number, vote, Instant::now())
    }

    /// Tells member number `to` that the one who leads by `vote` lives.
    pub async fn beat(&self, to: u64, member: &Member, vote: Vote) {
        let (sent, down) = (Instant::now(), self.contacts.down());
        match self.call(to, member, What::Beat { vote, down }, &[]).await {
            Ok(Answer::Beat { is_awake: true }) => self.contacts.answer(to, vote, sent),
            other => tracing::debug!(to, ?other, "a member does not heed this leader"),
        }
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("number", &self.number).field("contacts", &self.contacts).finish_non_exhaustive()
    }
}
