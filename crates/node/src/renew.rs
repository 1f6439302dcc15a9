//! Renews this node's certificate: before it ends, and at once when the cluster gives the node another role or itself
//! another authority (swarm-semantics 9). A node that was off beyond that end shows its old certificate and has the key of it.

use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use shoal_types::Timestamp;
use shoal_wire::proto::IssueRequest;

use crate::authority::{AuthorityError, from_own, issue};
use crate::identity::{Identity, IdentityError};
use crate::membership::Membership;

/// The pause after a renewal that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3600));
/// The same where the node cannot go on without a new certificate.
const URGENT: Duration = Duration::from_secs(10);
/// How long to sleep at most: the clock may be set.
const NAP: Duration = Duration::from_secs(3600);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("no manager is known")]
    NoManager,
    #[error("the certificate that came back is for another node")]
    Other,
}

/// Renews whenever it is time, for ever.
pub async fn run(membership: Arc<Membership>) {
    let mut wanted = membership.wanted.subscribe();
    let fraction = rand::random();
    let (mut backoff, mut doubted) = (BACKOFF.0, false);
    loop {
        let is_wrong = is_wrong(&membership);
        let left = {
            let at = membership.identity.borrow().renew_at(fraction);
            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
        };
        if !is_wrong && !doubted && !left.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(left.min(NAP)) => {}
                () = membership.doubt.notified() => doubted = true,
                changed = wanted.changed() => if changed.is_err() { return },
            }
            continue;
        }
        match renew(&membership).await {
            Ok(new) => {
                tracing::info!(role = new.role.as_str(), until = %new.not_after, "this node has a new certificate");
                (backoff, doubted) = (BACKOFF.0, false);
                // One that is not what was asked for is not asked for again and again.
                wanted.mark_unchanged();
                if self::is_wrong(&membership) {
                    pause(&membership, BACKOFF.0).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot renew the certificate of this node");
                let expired = membership.identity.borrow().has_expired(Timestamp::now());
                pause(&membership, if expired || is_wrong { backoff.min(URGENT) } else { backoff }).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

async fn pause(membership: &Membership, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = membership.doubt.notified() => {}
    }
}

/// Whether the cluster says that this node's certificate should be another one.
fn is_wrong(membership: &Membership) -> bool {
    let Some((role, issuer)) = membership.wanted.borrow().clone() else { return false };
    role != membership.role() || issuer.is_some_and(|key| key != membership.tls.borrow().cert_issuer_public_key)
}

/// Gets a certificate for a new key and becomes what it says.
///
/// # Errors
/// [`RenewError`]; the certificate of before still counts.
pub async fn renew(membership: &Membership) -> Result<Identity, RenewError> {
    let old = membership.identity.borrow().clone();
    let has_expired = old.has_expired(Timestamp::now());
    let key = match has_expired {
        true => KeyPair::from_pem(&old.issued().key_pem)?,
        false => KeyPair::generate()?,
    };
    let expired = if has_expired { old.issued().cert_pem.clone() } else { String::new() };
    let ask = IssueRequest { expired, ..IssueRequest::default() };
    let identity = ask_around(membership, &old, ask, &key).await?;
    if (identity.node, identity.cluster) != (old.node, old.cluster) {
        return Err(RenewError::Other);
    }
    membership.take(identity.clone())?;
    Ok(identity)
}

/// Asks this node's own manager, then one after the other of those that are known. A node whose certificate has ended asks
/// the others first: where they can still prove themselves, they know better what it is now.
async fn ask_around(
    membership: &Membership,
    old: &Identity,
    ask: IssueRequest,
    key: &KeyPair,
) -> Result<Identity, RenewError> {
    let own = membership.own.borrow().clone();
    let mine = async {
        match own {
            Some(own) => from_own(&own.authority, old, key).await.map_err(RenewError::from),
            None => Err(RenewError::NoManager),
        }
    };
    if old.has_expired(Timestamp::now()) {
        match ask_others(membership, ask, key).await {
            Ok(identity) => Ok(identity),
            Err(error) => mine.await.map_err(|own| if matches!(own, RenewError::NoManager) { error } else { own }),
        }
    } else {
        match mine.await {
            Ok(identity) => Ok(identity),
            Err(_) => ask_others(membership, ask, key).await,
        }
    }
}

async fn ask_others(membership: &Membership, ask: IssueRequest, key: &KeyPair) -> Result<Identity, RenewError> {
    let mut last = RenewError::NoManager;
    let managers = membership.remotes.shuffled(&mut rand::rng());
    for addr in managers {
        let channel = membership.dialer.channel(&addr).map_err(AuthorityError::from)?;
        match issue(channel, ask.clone(), key).await {
            Ok(identity) => return Ok(identity),
            Err(error) => {
                if error.is_passing() {
                    membership.remotes.observe(&addr, false);
                }
                last = error.into();
            }
        }
    }
    Err(last)
}
