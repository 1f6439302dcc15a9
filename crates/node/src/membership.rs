//! What a node is and knows while it is in a swarm; shared by its manager, its agent and the renewal of its certificate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use shoal_manager::ca::CaService;
use shoal_types::NodeId;
use shoal_types::object::TlsInfo;
use shoal_types::spec::NodeRole;
use tokio::sync::{Notify, watch};

use crate::addresses::Addresses;
use crate::dialer::Dialer;
use crate::identity::{Identity, IdentityError};
use crate::paths::Paths;
use crate::remotes::Remotes;
use crate::vault::Vault;

/// A node's place in its swarm.
pub struct Membership {
    /// Where its files are.
    pub paths: Paths,
    /// Where its certificates and keys are.
    pub vault: Vault,
    /// Where it listens and is reached.
    pub addresses: watch::Sender<Addresses>,
    /// Who it is.
    pub identity: watch::Sender<Identity>,
    /// What is shown of that.
    pub tls: watch::Sender<TlsInfo>,
    /// Its connections to managers.
    pub dialer: Arc<Dialer>,
    /// The managers that it knows.
    pub remotes: Remotes,
    /// Its own manager, while it has one that works.
    pub own: watch::Sender<Option<Own>>,
    /// The role that the cluster gives it, and the authority that its certificate is to be from.
    pub wanted: watch::Sender<Option<(NodeRole, Option<String>)>>,
    /// Whether its agent has been in session.
    pub greeted: watch::Sender<bool>,
    /// Asks for a new certificate at once: something says that the role has changed.
    pub doubt: Notify,
    /// The keys on disk were sealed, and that of the log is a new one.
    pub sealed: Notify,
    /// Held while the identity changes: one change at a time, and none after the end.
    turn: Mutex<Over>,
}

/// Whether the membership has ended: nothing is written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Over(bool);

/// The manager on this node, as the rest of the node uses it.
#[derive(Clone)]
pub struct Own {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its authority.
    pub authority: CaService,
}

impl Membership {
    /// The place of the node that `identity` says, as of now.
    ///
    /// # Errors
    /// The root certificate is not one.
    pub fn new(
        paths: Paths,
        vault: Vault,
        identity: Identity,
        addresses: Addresses,
    ) -> Result<Arc<Self>, shoal_manager::ca::CaError> {
        let (tls, remotes) = (identity.tls_info()?, Remotes::load(paths.managers()));
        let (identity, seen) = watch::channel(identity);
        Ok(Arc::new(Self {
            paths,
            vault,
            addresses: watch::channel(addresses).0,
            identity,
            tls: watch::channel(tls).0,
            dialer: Arc::new(Dialer::new(seen)),
            remotes,
            own: watch::channel(None).0,
            wanted: watch::channel(None).0,
            greeted: watch::channel(false).0,
            doubt: Notify::new(),
            sealed: Notify::new(),
            turn: Mutex::new(Over(false)),
        }))
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.identity.borrow().node
    }

    /// The role that its certificate says.
    pub fn role(&self) -> NodeRole {
        self.identity.borrow().role
    }

    /// Waits until the agent has been in session.
    pub async fn greeted(&self) {
        // An error cannot be: the sender is here.
        drop(self.greeted.subscribe().wait_for(|greeted| *greeted).await);
    }

    /// A manager to turn to: its own before all others.
    pub fn somewhere(&self) -> Option<String> {
        let own = self.own.borrow().as_ref().map(|own| own.addr.to_string());
        own.or_else(|| self.remotes.choose(&mut rand::rng()))
    }

    /// All managers to turn to, the likeliest first.
    pub fn everywhere(&self) -> Vec<String> {
        let own = self.own.borrow().as_ref().map(|own| own.addr.to_string());
        own.into_iter().chain(self.remotes.shuffled(&mut rand::rng())).collect()
    }

    /// Becomes whoever `identity` says; it is on disk when this returns.
    ///
    /// # Errors
    /// It cannot be kept; everything is as before then.
    pub fn take(&self, identity: Identity) -> Result<(), IdentityError> {
        let over = self.turn.lock().expect("nothing panics while it is held");
        if *over == Over(true) {
            return Err(IdentityError::Ended);
        }
        self.replace(identity)
    }

    /// From now on nothing of this membership is written.
    pub fn end(&self) {
        *self.turn.lock().expect("nothing panics while it is held") = Over(true);
        self.remotes.end();
    }

    fn replace(&self, identity: Identity) -> Result<(), IdentityError> {
        let tls = identity.tls_info().map_err(|e| IdentityError::Certificate(e.to_string()))?;
        self.vault.keep(&identity)?;
        self.identity.send_replace(identity);
        self.tls.send_if_modified(|shown| {
            let is_news = *shown != tls;
            *shown = tls;
            is_news
        });
        Ok(())
    }

    /// Trusts the roots that a manager names, which this node trusted when it said so.
    pub fn trust(&self, root_pem: &str) {
        let over = self.turn.lock().expect("nothing panics while it is held");
        if *over == Over(true) || root_pem.is_empty() || self.identity.borrow().root_pem() == root_pem {
            return;
        }
        let identity = self.identity.borrow().trusting(root_pem);
        match identity.and_then(|identity| self.replace(identity)) {
            Ok(()) => tracing::info!("the root certificate of the cluster has changed"),
            Err(error) => tracing::warn!(%error, "cannot take over the cluster's root certificate"),
        }
    }
}
