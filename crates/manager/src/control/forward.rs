//! From any manager to the leader: writes are carried out there, and reads are answered here once everything is applied
//! that the leader had agreed on when they came.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use shoal_raft::Raft;
use shoal_types::{Refusal, RefusalKind};
use shoal_wire::body::{decode, encode};
use shoal_wire::dial::{is_not_leader, never_sent};
use shoal_wire::proto::control_client::ControlClient;
use shoal_wire::proto::control_written::Outcome;
use shoal_wire::{Dial, MAX_MESSAGE, WireError, proto};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::transport::Channel;

use super::request::{Halt, Here, Request, Ticket};
use super::{AFTERMATH, DEADLINE, LEADERLESS, no_leader};
use crate::lead::{self, Lead};

/// How long a read waits for the leader; then it is answered from what is here.
const READ: Duration = Duration::from_secs(1);
/// The pause before another attempt, where the same manager still seems to lead.
const RETRY: Duration = Duration::from_millis(50);

/// The way to the leader, shared by all handles of one manager.
#[derive(Debug)]
pub(crate) struct Way {
    pub raft: Raft,
    pub dial: Arc<dyn Dial>,
    round: Mutex<Round>,
    standing: StdMutex<Standing>,
}

/// The last time that the leader was asked how far it is. Whoever waits meanwhile shares the next one.
#[derive(Debug, Default)]
struct Round {
    began: Option<Instant>,
    /// Nothing where no leader answered.
    index: Option<u64>,
}

/// What the leader last said of the managers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Who said it; nobody where there was no leader.
    pub leader: Option<u64>,
    /// The managers that it does not reach.
    pub unreachable: BTreeSet<u64>,
}

/// How far the leader is, and how it sees the managers.
pub(super) struct Progress {
    /// Everything that was answered before is applied up to there.
    pub index: u64,
    /// The managers that it does not reach.
    pub unreachable: BTreeSet<u64>,
}

/// A write that the leader has carried out.
struct Written {
    answer: Vec<u8>,
    index: u64,
}

impl Way {
    pub fn new(raft: Raft, dial: Arc<dyn Dial>) -> Self {
        Self { raft, dial, round: Mutex::default(), standing: StdMutex::default() }
    }

    /// The leader's own functions, for when this manager leads.
    pub fn here(&self) -> Here {
        Here::new(self.raft.clone())
    }

    /// Has the leader carry out `request`; gives the serde form of its answer, once what it wrote is applied here. Where a
    /// leader is lost meanwhile, the next one is asked again.
    pub async fn carry(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        let mut until = Instant::now() + LEADERLESS;
        // A manager that is the only one has nobody to ask again.
        let mut ticket = (self.raft.members().1.len() > 1).then(Ticket::new);
        loop {
            let Some(lead) = lead::known(&self.raft, until).await else { return Err(too_late(ticket)) };
            let written = match timeout(DEADLINE, self.attempt(&lead, request, ticket)).await {
                Ok(written) => written,
                Err(_) => return Err(Refusal::new(RefusalKind::DeadlineExceeded, "context deadline exceeded")),
            };
            match (written, &mut ticket) {
                (Ok(Written { answer, index }), _) => {
                    self.applied(index).await?;
                    return Ok(answer);
                }
                (Err(Halt::Refused(refusal)), _) => return Err(refusal),
                (Err(Halt::Lost), None) => return Err(outcome_unknown()),
                (Err(Halt::Lost), Some(ticket)) if !ticket.again => {
                    ticket.again = true;
                    until = Instant::now() + LEADERLESS;
                }
                (Err(_), _) if Instant::now() >= until => return Err(too_late(ticket)),
                (Err(Halt::Lost | Halt::NotLeader), _) => {}
            }
            drop(timeout(RETRY, lead::over(&self.raft, lead.number)).await);
        }
    }

    async fn attempt(&self, lead: &Lead, request: &Request, ticket: Option<Ticket>) -> Result<Written, Halt> {
        // A leader that has been cut off shows now, while nothing is written yet.
        let knock = async { self.progress(lead, Instant::now()).await.ok_or(Halt::NotLeader) };
        tokio::select! {
            knocked = knock => drop(knocked?),
            () = lead::over(&self.raft, lead.number) => return Err(Halt::NotLeader),
        }
        if lead.number == self.raft.number() {
            let answer = self.here().carry_out(request.clone(), ticket).await?;
            return Ok(Written { answer, index: self.raft.snapshot().index() });
        }
        let lost = async {
            lead::over(&self.raft, lead.number).await;
            tokio::time::sleep(AFTERMATH).await;
        };
        tokio::select! {
            biased;
            written = self.there(lead, request, ticket) => written,
            () = lost => Err(Halt::Lost),
        }
    }

    async fn there(&self, lead: &Lead, request: &Request, ticket: Option<Ticket>) -> Result<Written, Halt> {
        let wire = |e: WireError| Halt::from(Refusal::new(RefusalKind::Internal, e.to_string()));
        let message = proto::ControlWrite {
            request_json: encode("a request", request).map_err(wire)?,
            request_id: ticket.map(|t| t.id.to_string()).unwrap_or_default(),
            again: ticket.is_some_and(|t| t.again),
        };
        let mut client = self.client(lead).await?;
        let response = client.write(message).await.map_err(failed)?.into_inner();
        match response.outcome {
            Some(Outcome::AnswerJson(answer)) => Ok(Written { answer, index: response.index }),
            Some(Outcome::RefusalJson(bytes)) => Err(decode::<Refusal>("a refusal", &bytes).map_err(wire)?.into()),
            None => Err(wire(WireError::Missing { what: "the answer of the leader" })),
        }
    }

    async fn client(&self, lead: &Lead) -> Result<ControlClient<Channel>, Halt> {
        let channel = self.dial.dial(&lead.addr).await.map_err(|error| {
            tracing::debug!(%error, addr = lead.addr, "no way to the leader");
            Halt::NotLeader
        })?;
        Ok(ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// Waits until a read here sees everything that was answered before, wherever that was; whether it does. Without a
    /// leader, reads see what is here.
    pub async fn catch_up(&self) -> bool {
        let arrived = Instant::now();
        let had_leader = self.standing().leader.is_some();
        // Where there was none the last time, nobody waits for one.
        let until = if had_leader { arrived + READ } else { arrived };
        let index = match lead::known(&self.raft, until).await {
            Some(lead) => self.progress(&lead, arrived).await,
            None => {
                self.note(Standing::default());
                None
            }
        };
        match index {
            Some(index) => timeout(READ, self.raft.applied(index)).await.is_ok_and(|is_here| is_here),
            None => false,
        }
    }

    /// How far the leader is, as of `arrived` or later; nothing where it does not answer. Callers that come at the same
    /// time share one round trip.
    async fn progress(&self, lead: &Lead, arrived: Instant) -> Option<u64> {
        let mut round = self.round.lock().await;
        if round.began.is_none_or(|began| began <= arrived) {
            let began = Instant::now();
            let progress = timeout(READ, self.ask_progress(lead)).await.ok().flatten();
            let leader = progress.as_ref().map(|_| lead.number);
            *round = Round { began: Some(began), index: progress.as_ref().map(|p| p.index) };
            self.note(Standing { leader, unreachable: progress.map(|p| p.unreachable).unwrap_or_default() });
        }
        round.index
    }

    async fn ask_progress(&self, lead: &Lead) -> Option<Progress> {
        if lead.number == self.raft.number() {
            return self.here().progress().await;
        }
        let mut client = self.client(lead).await.ok()?;
        let answer = client.read_index(proto::ControlReadIndex {}).await.ok()?.into_inner();
        Some(Progress { index: answer.index, unreachable: answer.unreachable.into_iter().collect() })
    }

    /// What the leader last said of the managers.
    pub fn standing(&self) -> Standing {
        self.standing.lock().expect("nothing panics while it is held").clone()
    }

    fn note(&self, standing: Standing) {
        *self.standing.lock().expect("nothing panics while it is held") = standing;
    }

    /// A client must read its own write here.
    async fn applied(&self, index: u64) -> Result<(), Refusal> {
        if timeout(DEADLINE, self.raft.applied(index)).await.is_ok_and(|is_here| is_here) {
            return Ok(());
        }
        let text = "the change was made, but this manager does not hear from the leader and does not show it yet";
        Err(Refusal::new(RefusalKind::DeadlineExceeded, text))
    }
}

impl Here {
    /// How far this manager is, if it leads: confirmed with a majority.
    pub(super) async fn progress(&self) -> Option<Progress> {
        let index = self.raft.read_index().await?;
        let (_, members) = self.raft.members();
        let others = members.into_iter().map(|(number, _)| number);
        let unreachable = others.filter(|n| *n != self.raft.number() && !self.raft.reachable(*n)).collect();
        Some(Progress { index, unreachable })
    }
}

/// What a failed call says of the write.
fn failed(status: Status) -> Halt {
    if is_not_leader(&status) || never_sent(&status) {
        return Halt::NotLeader;
    }
    match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
            Refusal::new(RefusalKind::PermissionDenied, status.message()).into()
        }
        // Another version, that does not know this request.
        tonic::Code::InvalidArgument => Refusal::invalid(status.message()).into(),
        _ => {
            tracing::debug!(%status, "the leader did not answer a write");
            Halt::Lost
        }
    }
}

/// No leader takes the request.
fn too_late(ticket: Option<Ticket>) -> Refusal {
    if ticket.is_some_and(|t| t.again) { outcome_unknown() } else { no_leader() }
}

fn outcome_unknown() -> Refusal {
    let text =
        "the leader was lost while the change was under way: it may have been made or not; look before you try again";
    Refusal::new(RefusalKind::Unknown, text)
}
