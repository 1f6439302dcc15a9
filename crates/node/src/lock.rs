//! Sealing what lies on a manager's disk, as the cluster wants it (swarm-semantics 8.4).

use std::sync::Arc;

use shoal_manager::Control;
use shoal_manager::ca::UnlockKey;
use shoal_types::View;

use crate::membership::Membership;

/// Seals the keys of this manager whenever the cluster changes its unlock key, for ever.
pub async fn follow(membership: Arc<Membership>, control: Control) {
    let mut changes = control.follow();
    let mut seen = None;
    loop {
        if let Some(cluster) = control.snapshot().cluster()
            && seen != Some(cluster.meta.version)
        {
            seen = Some(cluster.meta.version);
            heed(&membership, cluster.unlock_keys.as_deref(), cluster.meta.version);
        }
        changes.next().await;
    }
}

fn heed(membership: &Membership, key: Option<&str>, version: u64) {
    let key = key.map(str::parse::<UnlockKey>).transpose().map_err(|e| e.to_string());
    let sealed = key.and_then(|key| membership.vault.seal(key.as_ref(), version).map_err(|e| e.to_string()));
    if let Err(error) = sealed {
        tracing::error!(error, "cannot seal the keys of this manager as the cluster wants it");
    }
}
