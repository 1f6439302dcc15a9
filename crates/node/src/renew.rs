//! Renews this node's certificate before it ends (swarm-semantics 9). A manager that was powered off beyond that end
//! renews as soon as it leads: its log, which only its own key can read, holds the authority.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::KeyPair;
use shoal_manager::{Control, ca};
use shoal_types::Timestamp;
use tokio::sync::watch;

use crate::identity::{Identity, IdentityError, Issued};

/// The pause after a renewal that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// How long to sleep at most: the clock may be set.
const NAP: Duration = Duration::from_secs(3600);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Cluster(#[from] shoal_types::Refusal),
    #[error(transparent)]
    Ca(#[from] ca::CaError),
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Renews whenever it is time, for ever.
pub async fn run(identity: watch::Sender<Identity>, certificates: PathBuf, control: Control) {
    let fraction = rand::random();
    let mut backoff = BACKOFF.0;
    loop {
        let at = identity.borrow().renew_at(fraction);
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        if !left.is_zero() {
            tokio::time::sleep(left.min(NAP)).await;
            continue;
        }
        let old = identity.borrow().clone();
        match renew(&old, &certificates, &control) {
            Ok(new) => {
                tracing::info!(until = %new.not_after, "this node has a new certificate");
                identity.send_replace(new);
                backoff = BACKOFF.0;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot renew the certificate of this node");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

fn renew(old: &Identity, certificates: &Path, control: &Control) -> Result<Identity, RenewError> {
    let cluster = control.get_cluster()?;
    let subject = ca::Subject { node: old.node, role: old.role, cluster: old.cluster };
    let key = KeyPair::generate()?;
    let validity = cluster.spec.ca_config.node_cert_expiry;
    let cert_pem = ca::issue(&cluster.root_ca, &subject, &key, validity, Timestamp::now())?;
    let new = Identity::new(Issued { cert_pem, key_pem: key.serialize_pem() }, cluster.root_ca.cert_pem.clone())?;
    new.save(certificates)?;
    Ok(new)
}
