//! Sealing what lies on a manager's disk, as the cluster wants it (swarm-semantics 8.4). Where it begins to be sealed, the
//! keys that lay open until then are replaced: that of the log, and that of the certificate.

use std::sync::Arc;
use std::time::Duration;

use shoal_manager::Control;
use shoal_manager::ca::UnlockKey;
use shoal_raft::Raft;
use shoal_types::View;

use crate::membership::Membership;

/// The pause after a change of the log's key that did not come to its end.
const RETRY: Duration = Duration::from_secs(10);

/// Seals the keys of this manager whenever the cluster changes its unlock key, for ever. `raft` writes its log with
/// `log_key` now.
pub async fn follow(membership: Arc<Membership>, control: Control, raft: Raft, log_key: [u8; 32]) {
    tokio::join!(follow_key(&membership, &control), change_log_key(&membership, &raft, log_key));
}

async fn follow_key(membership: &Membership, control: &Control) {
    let mut changes = control.follow();
    let mut seen = None;
    loop {
        if let Some(cluster) = control.snapshot().cluster()
            && seen != Some(cluster.meta.version)
        {
            seen = Some(cluster.meta.version);
            heed(membership, cluster.unlock_keys.as_deref(), cluster.meta.version);
        }
        changes.next().await;
    }
}

fn heed(membership: &Membership, key: Option<&str>, version: u64) {
    let key = key.map(str::parse::<UnlockKey>).transpose().map_err(|e| e.to_string());
    match key.and_then(|key| membership.vault.seal(key.as_ref(), version).map_err(|e| e.to_string())) {
        Ok(true) => {
            tracing::info!("the keys of this manager are sealed from now on, and replaced");
            membership.doubt.notify_one();
            membership.sealed.notify_one();
        }
        Ok(false) => {}
        Err(error) => tracing::error!(error, "cannot seal the keys of this manager as the cluster wants it"),
    }
}

/// Brings the log, which is written with `current`, under its newest key whenever there is one, and where a restart came
/// between.
async fn change_log_key(membership: &Membership, raft: &Raft, mut current: [u8; 32]) {
    loop {
        let keys = membership.vault.log_keys();
        let (newest, older) = match keys {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(%error, "cannot read the key of the log");
                return;
            }
        };
        if older.is_empty() {
            membership.sealed.notified().await;
            continue;
        }
        let changed = if current == newest { raft.shed_older_keys().await } else { raft.change_key(&newest).await };
        current = newest;
        let ended = changed.map_err(|e| e.to_string());
        match ended.and_then(|()| membership.vault.forget_log_keys_but(&newest).map_err(|e| e.to_string())) {
            Ok(()) => tracing::info!("the log of this manager is encrypted with a new key"),
            Err(error) => {
                tracing::warn!(error, "the log of this manager is not wholly under its new key yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
