//! Keeps a daemon what its node is, as `node` does in the real one: starts and stops its manager, has it taken in by the
//! others, and tells them where it listens.

use std::sync::Arc;
use std::time::Duration;

use shoal_manager::Manager;
use shoal_raft::{Config, DataKey, Member, Raft};
use shoal_types::spec::NodeRole;
use shoal_types::{Cluster, Node};
use shoal_wire::Dial;
use shoal_wire::dial::leader_in;
use shoal_wire::proto::ConsensusJoin;
use shoal_wire::proto::consensus_client::ConsensusClient;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Server;

use crate::disk::Mount;
use crate::machine::Site;
use crate::process::{Door, Process};

/// The pause before something is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a manager that was removed may take to hear what its node is now.
const SETTLE: Duration = Duration::from_secs(5);
/// How long no leader is heard until a manager asks whether it still is one.
const SILENCE: Duration = Duration::from_secs(15);
/// How long it may take to be taken in.
const PATIENCE: Duration = Duration::from_secs(60);
/// Managers that are asked in a row before a pause.
const HOPS: usize = 4;

/// What a supervisor needs.
pub struct Supervisor {
    /// What all machines share.
    pub site: Site,
    /// Whose daemon it is.
    pub process: Process,
    /// Its disk.
    pub mount: Mount,
    /// Where it listens.
    pub addr: String,
    /// What the first manager begins with.
    pub first: Option<(Cluster, Node)>,
    /// It makes a new cluster of what it has.
    pub is_forced: bool,
}

/// A manager that runs; it ends with this.
struct Running {
    site: Site,
    process: Process,
    raft: Raft,
    manager: Option<Manager>,
    tasks: Vec<AbortHandle>,
}

impl Supervisor {
    /// Works until its process is dead.
    pub async fn run(mut self) {
        loop {
            match self.process.role() {
                NodeRole::Worker => {
                    self.mount.remove_dir("/raft".as_ref());
                    self.process.until_not(NodeRole::Worker).await;
                }
                NodeRole::Manager => {
                    self.manage().await;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn manage(&mut self) {
        let config = Config {
            dir: "/raft".into(),
            key: DataKey::new(&[self.process.place() as u8; 32]),
            limits: self.site.limits.clone(),
            force_new: self.is_forced,
        };
        let (mount, transport) = (Arc::new(self.mount.clone()), Arc::new(self.process.clone()));
        let raft = match Raft::open_on(mount, &config, transport).await {
            Ok(raft) => raft,
            Err(error) => {
                self.site.world.note(format_args!("cannot open the log: {error}"));
                self.site.observer.cannot_open(&self.process, &error);
                return;
            }
        };
        self.is_forced = false;
        let running = Running::start(&self.site, &self.process, raft.clone());
        let first = self.first.take();
        let place = self.take_place(&raft, first);
        let mut is_removed = false;
        let is_in = tokio::select! {
            is_in = place => is_in,
            () = self.process.until_not(NodeRole::Manager) => false,
        };
        if is_in {
            self.site.directory.open(self.process.place());
            self.site.world.note("is a manager");
            tokio::select! {
                reason = raft.stopped() => self.site.world.note(format_args!("consensus stopped: {reason}")),
                () = self.process.until_not(NodeRole::Manager) => {
                    self.site.world.note("is no manager any more");
                    is_removed = true;
                }
                () = is_over(&raft) => {
                    self.site.world.note("begins anew as a manager");
                    is_removed = true;
                }
            }
        }
        running.stop().await;
        if is_removed {
            self.mount.remove_dir("/raft".as_ref());
        }
    }

    /// Whether this manager is one of the managers.
    async fn take_place(&self, raft: &Raft, first: Option<(Cluster, Node)>) -> bool {
        let addr = self.addr.clone();
        if let Some((cluster, node)) = first {
            let begun = raft.begin(Member { node_id: Some(node.id), addr, ..Member::default() }).await;
            let begun = begun.is_ok() && shoal_manager::begin(raft, cluster, node).await.is_ok();
            if !begun {
                self.site.world.violated("a cluster cannot be begun");
            }
            return begun;
        }
        if raft.has_begun().await.unwrap_or(false) {
            tokio::spawn(announce(self.process.clone(), raft.clone(), addr));
            return true;
        }
        join(&self.process, raft, &addr).await
    }
}

/// Waits until the others have removed this manager, and still want one here a while later.
async fn is_over(raft: &Raft) {
    // The sender is ours.
    drop(raft.removed().wait_for(|removed| *removed).await);
    tokio::time::sleep(SETTLE).await;
}

/// Tells the others where this manager listens, if they know it otherwise.
async fn announce(process: Process, raft: Raft, addr: String) {
    let number = raft.number();
    let is_known = || raft.members().1.iter().any(|(n, member)| *n == number && member.addr == addr);
    let is_news = !is_known() || (hears_a_leader(&raft).await && !is_known());
    if !is_news && !is_lost(&raft).await {
        return;
    }
    while process.is_alive() {
        if join(&process, &raft, &addr).await && !is_lost(&raft).await {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether a leader is heard before long.
async fn hears_a_leader(raft: &Raft) -> bool {
    tokio::time::timeout(SILENCE, raft.leader().wait_for(Option::is_some)).await.is_ok_and(|heard| heard.is_ok())
}

/// Waits until no leader was heard for long. False where consensus ends.
async fn is_lost(raft: &Raft) -> bool {
    let mut leader = raft.leader();
    while leader.wait_for(Option::is_none).await.is_ok() {
        if !hears_a_leader(raft).await {
            return true;
        }
    }
    false
}

/// Asks until this manager is taken in; whether it is.
async fn join(process: &Process, raft: &Raft, addr: &str) -> bool {
    while process.is_alive() {
        // One that leads, and moved, is known to nobody where it is now.
        let leads = raft.leadership().borrow().is_some();
        let mut next = if leads { Some(addr.to_owned()) } else { process.draw_manager() };
        for _ in 0..HOPS {
            let Some(at) = next.take() else { break };
            let Ok(channel) = process.dial(&at).await else { break };
            let ask = ConsensusJoin { number: raft.number(), addr: addr.to_owned(), has_vote: raft.has_vote() };
            let mut client = ConsensusClient::new(channel);
            match tokio::time::timeout(PATIENCE, client.join(ask)).await {
                Ok(Ok(_)) => return true,
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                    process.world().note(format_args!("is not taken in: {}", status.message()));
                }
                Ok(Err(status)) if status.code() == tonic::Code::Aborted => raft.set_removed(),
                Ok(Err(status)) => next = leader_in(&status).map(str::to_owned),
                Err(_) => {}
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    false
}

impl Running {
    fn start(site: &Site, process: &Process, raft: Raft) -> Self {
        let manager = Manager::start(raft.clone(), site.cluster, Arc::new(process.clone()));
        let control = manager.control();
        let place = process.place();
        site.directory.enter(Door { process: process.clone(), raft: raft.clone(), control, is_open: false });
        let incoming = UnboundedReceiverStream::new(site.net.listen(place)).map(Ok::<_, std::io::Error>);
        let routes = manager.routes();
        let server = tokio::spawn(async move {
            drop(Server::builder().add_routes(routes).serve_with_incoming(incoming).await);
        });
        let observer = tokio::spawn(site.observer.clone().follow(place, raft.clone()));
        let tasks = vec![server.abort_handle(), observer.abort_handle()];
        Self { site: site.clone(), process: process.clone(), raft, manager: Some(manager), tasks }
    }

    /// Ends it in good order.
    async fn stop(self) {
        let raft = self.raft.clone();
        drop(self);
        raft.stop().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process.is_alive() {
            self.site.directory.leave(self.process.place());
            self.site.net.deafen(self.process.place());
        }
        self.tasks.iter().for_each(AbortHandle::abort);
        drop(self.manager.take());
        // What is left of a process that was killed must end some time, too; its disk is gone.
        let raft = self.raft.clone();
        tokio::spawn(async move { raft.stop().await });
    }
}
