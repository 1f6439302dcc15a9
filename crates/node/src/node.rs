//! The node's handle: what the API asks of this machine's place in a swarm.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use shoal_manager::Control;
use shoal_types::{NodeId, Refusal, RefusalKind};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::joining::Joining;
use crate::launch::{LaunchError, Launcher};
use crate::member::Member;
use crate::membership::Membership;
use crate::paths::{FileError, Paths};
use crate::supervise::{Running, Start, Status};
use crate::vault::{Found, Vault};
use crate::whereabouts;

/// How long a daemon that starts waits for its manager.
const START: Duration = Duration::from_secs(10);

/// This machine's place in a swarm, or that it has none.
pub struct Node {
    pub(crate) paths: Paths,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) status: watch::Sender<Status>,
    /// Held while the node begins, joins or leaves: one at a time.
    pub(crate) member: Mutex<Option<Member>>,
    /// What is known of this node without asking anybody.
    pub(crate) local: StdMutex<Option<Arc<Membership>>>,
    /// Gives up a join that goes on in the background.
    pub(crate) joining: StdMutex<Option<CancellationToken>>,
}

impl Node {
    /// Goes on where the files under `dir` say that this node was. Returns once it works, has failed, or takes longer than a
    /// user would wait; it goes on starting then. A node that cannot start says why in [`Self::info`].
    pub async fn start(dir: PathBuf, launcher: Arc<dyn Launcher>) -> Arc<Self> {
        let node = Arc::new(Self {
            paths: Paths::new(dir),
            launcher,
            status: watch::channel(Status::Inactive).0,
            member: Mutex::default(),
            local: StdMutex::default(),
            joining: StdMutex::default(),
        });
        let resuming = node.clone();
        node.status.send_replace(Status::Pending);
        tokio::spawn(resuming.resume());
        node.await_start().await;
        node
    }

    /// Waits for what starts, but no longer than a user would.
    pub(crate) async fn await_start(&self) {
        let mut status = self.status.subscribe();
        drop(tokio::time::timeout(START, status.wait_for(|s| !matches!(s, Status::Pending))).await);
    }

    async fn resume(self: Arc<Self>) {
        let mut member = self.member.lock().await;
        let dir = self.paths.certificates();
        let found = Vault::find(&dir);
        if matches!(found, Ok(Found::Node(..) | Found::Locked(_)))
            && let Err(error) = Joining::forget(&dir)
        {
            tracing::warn!(%error, "cannot remove what is left of a join");
        }
        let back = match found {
            Ok(Found::Node(identity, vault)) => self.come_back(identity, vault, None).await.map(Some),
            Ok(Found::Locked(_)) => {
                tracing::info!("this manager is locked and needs the unlock key");
                self.status.send_replace(Status::Locked);
                return;
            }
            Ok(Found::Nothing) => match Joining::load(&dir) {
                Ok(Some(joining)) => {
                    drop(member);
                    return self.clone().resume_join(joining).await;
                }
                // An init or a leave that a crash cut short, or a join that had not begun.
                Ok(None) | Err(FileError::Damaged { .. }) => self.paths.wipe().map(|()| None).map_err(Into::into),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        };
        match back {
            Ok(Some(back)) => *member = Some(back),
            Ok(None) => drop(self.status.send_replace(Status::Inactive)),
            Err(error) => {
                tracing::error!(%error, "this node cannot take its place in the swarm");
                self.status.send_replace(Status::Failed(error.to_string().into()));
            }
        }
    }

    /// The membership that the files tell of.
    pub(crate) async fn come_back(
        &self,
        identity: Identity,
        vault: Vault,
        start: Option<Start>,
    ) -> Result<Member, LaunchError> {
        let saved = self.paths.load()?.ok_or("the addresses of this node are missing (state.json)")?;
        let remotes = saved.remotes.clone();
        let addresses = whereabouts::at_start(&self.paths, saved);
        let membership = Membership::new(self.paths.clone(), vault, identity, addresses)?;
        if membership.remotes.managers().is_empty() {
            remotes.iter().for_each(|addr| membership.remotes.hint(addr));
        }
        self.set_local(Some(membership.clone()));
        let running = match start {
            Some(start) => Some(Running::start(&membership, start, &CancellationToken::new()).await?),
            None => None,
        };
        Member::start(membership, running, &self.status, &*self.launcher).await
    }

    /// The control API of the cluster.
    ///
    /// # Errors
    /// This node is no manager, or its manager does not work yet.
    pub fn control(&self) -> Result<Control, Refusal> {
        match self.status() {
            Status::Active(control) => Ok(control),
            Status::Inactive => Err(unavailable(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                 node to swarm and try again.",
            )),
            Status::Worker => Err(unavailable(
                "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please \
                 run this command on a manager node or promote the current node to a manager.",
            )),
            Status::Locked => Err(locked()),
            Status::Pending | Status::Failed(_) => Err(unavailable(
                "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
            )),
        }
    }

    /// This node's identifier, while it is in a swarm.
    pub fn id(&self) -> Option<NodeId> {
        self.local().map(|l| l.node())
    }

    /// Ends manager and agent, for a daemon that stops. The containers of tasks go on.
    pub async fn stop(&self) {
        self.give_up_joining();
        if let Some(member) = self.member.lock().await.take() {
            member.stop().await;
        }
    }

    /// Ends a join that goes on in the background; it then undoes what it did.
    pub(crate) fn give_up_joining(&self) {
        if let Some(joining) = self.joining.lock().expect("nothing panics while it is held").take() {
            joining.cancel();
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn local(&self) -> Option<Arc<Membership>> {
        self.local.lock().expect("nothing panics while it is held").clone()
    }

    pub(crate) fn set_local(&self, local: Option<Arc<Membership>>) {
        *self.local.lock().expect("nothing panics while it is held") = local;
    }
}

/// HTTP 503, from the engine.
pub(crate) fn unavailable(text: &str) -> Refusal {
    Refusal::engine(RefusalKind::Unavailable, text)
}

pub(crate) fn locked() -> Refusal {
    unavailable(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.",
    )
}

pub(crate) fn already() -> Refusal {
    unavailable(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
    )
}
