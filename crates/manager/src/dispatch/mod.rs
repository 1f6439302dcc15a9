//! The dispatcher of one leader's term: sessions of agents, what they are to run, what they report
//! (swarm-semantics 7).
//!
//! Everything here ends with the term. The next leader waits for the nodes to come back, and for a second with what needs
//! all of them.

mod assignments;
mod heartbeat;
mod liveness;
mod payloads;
mod registration;
mod reports;
mod router;
mod service;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::Rng;
use shoal_raft::{Raft, Snapshot, WriteError, WriteFailure};
use shoal_types::object::NodeState;
use shoal_types::spec::ClusterSpec;
use shoal_types::{NodeId, View};
use shoal_wire::session::Welcome;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use liveness::Rules;
use router::Router;
pub use service::DispatcherService;
use sessions::Sessions;

use crate::lead;

/// The dispatcher of one term.
#[derive(Debug)]
pub struct Dispatcher {
    raft: Raft,
    sessions: Mutex<Sessions>,
    router: Mutex<Router>,
    rules: Mutex<Rules>,
    /// Marked when a node has come into session.
    came: watch::Sender<()>,
    /// Whether the nodes of the leader before are back, or marked as unknown.
    gathered: watch::Sender<bool>,
    /// Ends all streams.
    stop: CancellationToken,
}

impl Dispatcher {
    /// Nobody is in session yet; who was under the leader before is expected. Works once [`Self::run`] runs.
    pub fn new(raft: Raft) -> Self {
        let view = raft.snapshot();
        let rules = rules(&view);
        let deadline = Instant::now() + rules.return_within();
        let known = view.nodes().filter(|n| n.status.state != NodeState::Down);
        let expected = known.map(|n| (n.id, deadline)).collect();
        Self {
            raft,
            sessions: Mutex::new(Sessions::expecting(expected)),
            rules: Mutex::new(rules),
            router: Mutex::new(Router::new(view)),
            came: watch::channel(()).0,
            gathered: watch::channel(false).0,
            stop: CancellationToken::new(),
        }
    }

    /// Waits until the nodes of the leader before are back or marked as unknown.
    pub async fn has_gathered(&self) {
        // An error would be the end of the dispatcher, and of whoever waits.
        drop(self.gathered.subscribe().wait_for(|gathered| *gathered).await);
    }

    /// Serves until one of its parts fails; gives the reason.
    pub async fn run(self: Arc<Self>) -> String {
        // Whatever way this ends, the streams end, too, and agents look for the next leader.
        let _stop = self.stop.clone().drop_guard();
        let (route, beat) = (self.route(), self.watch_heartbeats());
        tokio::select! {
            () = route => "the router ended".to_owned(),
            reason = beat => reason,
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().expect("nothing panics while it holds the sessions")
    }

    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().expect("nothing panics while it holds the router")
    }

    /// How often this cluster's nodes are to be heard, and what their silence means. Of a moment ago: nodes are counted
    /// now and then, not for every heartbeat.
    fn rules(&self) -> Rules {
        *self.rules.lock().expect("nothing panics while it is held")
    }

    fn renew_rules(&self) -> Rules {
        let rules = rules(&self.router().view.clone());
        *self.rules.lock().expect("nothing panics while it is held") = rules;
        rules
    }

    /// A heartbeat period, give or take a tenth, so that nodes do not come in step.
    fn draw_period(&self) -> Duration {
        self.rules().period.mul_f64(shoal_ambient::chance().random_range(0.9..=1.1))
    }

    fn welcome(&self, node: NodeId, session_id: &str, period: Duration) -> Option<Welcome> {
        let (view, managers) = {
            let router = self.router();
            (router.view.clone(), router.managers.clone())
        };
        Some(Welcome {
            session_id: session_id.to_owned(),
            node: view.node(node)?.as_ref().clone(),
            managers,
            heartbeat_period: period,
            root_ca: view.cluster().map(|c| c.root_ca.cert_pem.clone()).unwrap_or_default(),
        })
    }
}

fn rules(view: &Snapshot) -> Rules {
    let nanos = view.cluster().map_or(0, |c| c.spec.dispatcher.heartbeat_period);
    let fallback = ClusterSpec::initial().dispatcher.heartbeat_period;
    let setting = Duration::from_nanos(u64::try_from(if nanos > 0 { nanos } else { fallback }).unwrap_or(1));
    Rules::new(view.nodes().count(), setting)
}

/// What an agent is told of a write that did not happen.
fn status(raft: &Raft, error: WriteError<Status>) -> Status {
    match error {
        WriteError::Refused(status) => status,
        WriteError::Failed(WriteFailure::NotLeader | WriteFailure::Unknown) => lead::elsewhere(raft),
        WriteError::Failed(failure @ WriteFailure::NoSpace(_)) => Status::resource_exhausted(failure.to_string()),
        WriteError::Failed(failure @ WriteFailure::TooLarge) => Status::out_of_range(failure.to_string()),
        WriteError::Failed(failure @ WriteFailure::Stopped(_)) => Status::unavailable(failure.to_string()),
    }
}

fn stopped() -> Status {
    Status::aborted("dispatcher is stopped")
}
