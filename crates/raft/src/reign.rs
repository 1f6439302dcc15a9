//! Who leads: this manager, with a majority behind it and everything of former terms applied; another one that is heard;
//! or nobody that is known.
//!
//! The algorithm's leader keeps its title until it hears of a newer one. Here it also has to be followed by a majority:
//! one that is cut off stops taking writes about when the others elect another, and its clients hear of it.
//!
//! Signs of life go from here, beside the algorithm: that one stands still while a disk is slow, its own or a follower's,
//! and a disk that takes two seconds once in a while is no reason to change leaders. One that takes longer is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::{Membership, ServerState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::network::Mesh;
use crate::types::{Core, Member, Proposal, Vote};
use crate::writer::{WriteFailure, propose};

/// A leader that no majority has followed for this long does not lead.
const QUORUM: Duration = Duration::from_millis(1_000);
/// A leader that was not heard for this long is not named any more.
const SILENT: Duration = Duration::from_millis(1_500);
/// How often a leader shows that it lives, and all this is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often a manager that is the only one looks, and the algorithm is asked whether it does anything.
const SELDOM: Duration = Duration::from_secs(1);
/// Signs of life that may be under way to one member.
const BEATS: usize = 8;

/// What is known of leadership, for those who follow it.
#[derive(Debug, Clone)]
pub struct Reign {
    /// The term in which this manager leads with a majority behind it. What it has proposed may be answered.
    pub holds: watch::Receiver<Option<u64>>,
    /// The term in which it leads, and takes writes.
    pub leads: watch::Receiver<Option<u64>>,
    /// The leader.
    pub leader: watch::Receiver<Option<(u64, Member)>>,
    /// Whether this manager is about to hand over: it takes no writes then.
    pub yields: Arc<watch::Sender<bool>>,
}

/// The end that finds out.
pub struct Watcher {
    core: Core,
    mesh: Arc<Mesh>,
    holds: watch::Sender<Option<u64>>,
    leads: watch::Sender<Option<u64>>,
    leader: watch::Sender<Option<(u64, Member)>>,
    yields: watch::Receiver<bool>,
    /// The term in which this manager leads by the algorithm, and since when.
    crowned: Option<(u64, Instant)>,
    /// When signs of life were last sent, and those under way.
    beaten: Instant,
    beats: BTreeMap<u64, JoinSet<()>>,
}

/// The algorithm's view.
struct View {
    vote: Vote,
    state: ServerState,
    leader: Option<u64>,
    membership: Arc<openraft::StoredMembership<u64, Member>>,
}

type Barrier = BoxFuture<'static, Result<u64, WriteFailure>>;

/// Both ends.
pub fn watch(core: Core, mesh: Arc<Mesh>) -> (Reign, Watcher) {
    mesh.contacts.wake();
    let (holds, held) = watch::channel(None);
    let (leads, led) = watch::channel(None);
    let (leader, named) = watch::channel(None);
    let (yields, yielding) = watch::channel(false);
    let reign = Reign { holds: held, leads: led, leader: named, yields: Arc::new(yields) };
    let (crowned, beaten, beats) = (None, Instant::now(), BTreeMap::new());
    (reign, Watcher { core, mesh, holds, leads, leader, yields: yielding, crowned, beaten, beats })
}

impl Watcher {
    /// Looks until consensus ends here; gives the reason.
    pub async fn run(mut self) -> Arc<str> {
        let mut server = self.core.server_metrics();
        let mut barrier: Option<Barrier> = None;
        let mut asked = Box::pin(ask(self.core.clone()));
        loop {
            let view = view(&server.borrow_and_update());
            let term = self.term_held(&view);
            set(&self.holds, term);
            let may = term.filter(|_| !*self.yields.borrow_and_update());
            if may.is_none() || (self.leads.borrow().is_some() && *self.leads.borrow() != may) {
                barrier = None;
                set(&self.leads, None);
            }
            if let Some(term) = may
                && self.leads.borrow().is_none()
                && barrier.is_none()
            {
                barrier = Some(Box::pin(self.begin(term)));
            }
            self.name_leader(&view);
            self.beat(&view);
            let look = if view.membership.membership().nodes().nth(1).is_some() { LOOK } else { SELDOM };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(self.beaten + look) => {}
                () = &mut asked => {
                    self.mesh.contacts.wake();
                    asked = Box::pin(ask(self.core.clone()));
                }
                _ = self.yields.changed() => {}
                began = async { barrier.as_mut().expect("only polled where there is one").await }, if barrier.is_some() => {
                    barrier = None;
                    match began {
                        Ok(term) => if *self.holds.borrow() == Some(term) { set(&self.leads, Some(term)) },
                        Err(error) => tracing::debug!(%error, "lost leadership before it began"),
                    }
                }
            }
        }
        set(&self.leads, None);
        set(&self.holds, None);
        set(&self.leader, None);
        match &self.core.metrics().borrow().running_state {
            Err(fatal) => fatal.to_string().into(),
            Ok(()) => "it was stopped".into(),
        }
    }

    /// The term in which this manager leads, while a majority follows it. One that was just elected has been followed.
    fn term_held(&mut self, view: &View) -> Option<u64> {
        if view.state != ServerState::Leader {
            self.crowned = None;
            return None;
        }
        let term = view.vote.leader_id().term;
        let now = Instant::now();
        if self.crowned.is_none_or(|(crowned, _)| crowned != term) {
            self.crowned = Some((term, now));
        }
        let heeded = self.mesh.contacts.heeded(view.membership.membership(), self.mesh.number, view.vote, now);
        let since = heeded.max(self.crowned.map(|(_, at)| at));
        (since.is_some_and(|at| now - at < QUORUM) && self.mesh.contacts.is_awake()).then_some(term)
    }

    /// Shows the others that this leader lives, unless it is about to hand over or does nothing else any more.
    fn beat(&mut self, view: &View) {
        if self.beaten.elapsed() < LOOK {
            return;
        }
        self.beaten = Instant::now();
        if view.state != ServerState::Leader || *self.yields.borrow() || !self.mesh.contacts.is_awake() {
            self.beats.clear();
            return;
        }
        let members = view.membership.membership();
        self.beats.retain(|number, _| members.get_node(number).is_some());
        for (number, member) in members.nodes().filter(|(number, _)| **number != self.mesh.number) {
            let beats = self.beats.entry(*number).or_default();
            while beats.try_join_next().is_some() {}
            if beats.len() < BEATS {
                let (mesh, number, member, vote) = (self.mesh.clone(), *number, member.clone(), view.vote);
                beats.spawn(async move { mesh.beat(number, &member, vote).await });
            }
        }
    }

    /// Once an entry of ours is applied, so is everything before it.
    fn begin(&self, term: u64) -> impl Future<Output = Result<u64, WriteFailure>> + Send + 'static {
        let (core, holds) = (self.core.clone(), self.holds.subscribe());
        async move {
            let barrier = Proposal { time: shoal_ambient::now(), term, changes: Arc::new([]) };
            propose(&core, holds, barrier).await.map(|_| term)
        }
    }

    fn name_leader(&self, view: &View) {
        let is_heard = || self.mesh.contacts.heard().is_some_and(|at| at.elapsed() < SILENT);
        let number = match view.leader {
            Some(number) if number == self.mesh.number => self.leads.borrow().map(|_| number),
            other => other.filter(|_| is_heard()),
        };
        let member = |number| view.membership.membership().get_node(&number).cloned().map(|member| (number, member));
        set(&self.leader, number.and_then(member));
        if view.state == ServerState::Leader {
            self.mesh.contacts.set_down(self.unreached(view.membership.membership()));
        }
    }

    fn unreached(&self, membership: &Membership<u64, Member>) -> Vec<u64> {
        let others = membership.nodes().map(|(number, _)| *number).filter(|number| *number != self.mesh.number);
        others.filter(|number| !self.mesh.contacts.is_near(*number)).collect()
    }
}

/// Ends when the algorithm has had time for it, a while from now.
async fn ask(core: Core) {
    tokio::time::sleep(SELDOM).await;
    if core.with_raft_state(|_| ()).await.is_err() {
        // It has ended; nothing is asked any more.
        std::future::pending().await
    }
}

fn view(metrics: &openraft::metrics::RaftServerMetrics<u64, Member>) -> View {
    View {
        vote: metrics.vote,
        state: metrics.state,
        leader: metrics.current_leader,
        membership: metrics.membership_config.clone(),
    }
}

fn set<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|now| {
        let is_new = *now != value;
        if is_new {
            *now = value;
        }
        is_new
    });
}
