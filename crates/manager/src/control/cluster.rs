//! The cluster itself: settings, join tokens, keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_types::object::TlsInfo;
use shoal_types::spec::ClusterSpec;
use shoal_types::{Change, Cluster, Object, Refusal, RefusalKind, Timestamp, View, validate};

use super::{Control, Halt, Here, Request};
use crate::ca;

/// What a client wants of the cluster besides its settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate {
    /// A new secret for workers that join.
    pub worker_token: bool,
    /// A new secret for managers that join.
    pub manager_token: bool,
    /// A new unlock key.
    pub unlock_key: bool,
}

/// A change of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterUpdate {
    /// The version that the client has seen.
    pub version: u64,
    /// All settings; what is left out is zero.
    pub spec: ClusterSpec,
    /// What is to be renewed.
    pub rotate: Rotate,
}

impl Control {
    /// The cluster.
    ///
    /// # Errors
    /// None is known yet: this manager has just begun.
    pub fn get_cluster(&self) -> Result<Arc<Cluster>, Refusal> {
        let none = || Refusal::new(RefusalKind::NotFound, "no cluster found");
        self.snapshot().cluster().cloned().ok_or_else(none)
    }

    /// The authority that nodes are to trust.
    ///
    /// # Errors
    /// As [`Self::get_cluster`].
    pub fn tls_info(&self) -> Result<TlsInfo, Refusal> {
        let cluster = self.get_cluster()?;
        ca::tls_info(&cluster.root_ca.cert_pem).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))
    }

    /// Changes settings, renews join tokens and the unlock key, begins to change the root certificate.
    ///
    /// # Errors
    /// What `validate::cluster_update` refuses; `update out of sequence`.
    pub async fn update_cluster(&self, update: ClusterUpdate) -> Result<(), Refusal> {
        self.ask(Request::UpdateCluster(Box::new(update))).await
    }

    /// The key that unlocks managers after a restart (`SWMKEY-1-…`); empty for a cluster that does not lock them.
    ///
    /// # Errors
    /// As [`Self::get_cluster`].
    pub fn unlock_key(&self) -> Result<String, Refusal> {
        self.get_cluster().map(|cluster| cluster.unlock_keys.clone().unwrap_or_default())
    }
}

impl Here {
    pub(super) async fn update_cluster(&self, update: ClusterUpdate) -> Result<(), Halt> {
        validate::cluster_update(&update.spec)?;
        self.write(move |tx| {
            let before = tx.cluster().ok_or_else(|| Refusal::new(RefusalKind::NotFound, "no cluster found"))?;
            if !before.meta.is_current(update.version) {
                return Err(Refusal::out_of_sequence());
            }
            let next = ca::rotation::wanted(before, &update.spec.ca_config, Timestamp::now())?;
            let mut after = Cluster { spec: update.spec, ..before.as_ref().clone() };
            if let Some(next) = next {
                after.root_rotation = next;
            }
            // What was given is in its place now; the settings are shown.
            after.spec.ca_config.signing_ca_cert.clear();
            after.spec.ca_config.signing_ca_key.clear();
            after.unlock_keys = match before.unlock_keys.clone() {
                _ if !after.spec.encryption_config.auto_lock_managers => None,
                Some(key) if !update.rotate.unlock_key => Some(key),
                _ => Some(ca::UnlockKey::random().to_string()),
            };
            let tokens = [
                (update.rotate.worker_token, &mut after.root_ca.worker_token),
                (update.rotate.manager_token, &mut after.root_ca.manager_token),
            ];
            for (_, token) in tokens.into_iter().filter(|(rotate, _)| *rotate) {
                *token = ca::renew_secret(token).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
            }
            Ok(tx.change(Change::Put(Object::Cluster(Arc::new(after))))?)
        })
        .await
    }
}
