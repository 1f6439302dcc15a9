//! Keeps the log short: a snapshot whenever it has grown enough, then the entries that the snapshot holds may go, but for
//! some that slow followers may still want. Each member does so for itself.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::Fatal;
use shoal_types::View;
use shoal_types::spec::RaftConfig as Settings;

use crate::feed::Publisher;
use crate::log::LogStore;
use crate::machine::Keeper;
use crate::types::{Core, Member};

/// A log larger than this is cut even if it has few entries. Bytes.
const LARGE_LOG: u64 = 64 * 1024 * 1024;
/// How long to wait after a snapshot that could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// What is needed to keep the log short.
pub struct Trim {
    /// The algorithm.
    pub core: Core,
    /// The log.
    pub log: LogStore,
    /// Makes the snapshots.
    pub keeper: Keeper,
    /// Knows the cluster's settings.
    pub publisher: Arc<Publisher>,
    /// Where the cluster's settings do not say.
    pub fallback: Settings,
}

impl Trim {
    /// Works until consensus ends here.
    pub async fn run(self) {
        let mut metrics = self.core.data_metrics();
        let mut saved_size = self.log.size();
        while metrics.changed().await.is_ok() {
            let (applied, saved) = {
                let now = metrics.borrow_and_update();
                (now.last_applied.map_or(0, |id| id.index), now.snapshot.map_or(0, |id| id.index))
            };
            let limits =
                self.publisher.snapshot().cluster().map_or_else(|| self.fallback.clone(), |c| c.spec.raft.clone());
            let interval = match limits.snapshot_interval {
                0 => self.fallback.snapshot_interval,
                interval => interval,
            };
            let large = self.log.size().saturating_sub(saved_size) > LARGE_LOG;
            if applied.saturating_sub(saved) < interval && !(large && applied > saved) {
                continue;
            }
            if let Err(error) = self.keeper.save(limits.keep_old_snapshots.unwrap_or(0)).await {
                tracing::warn!(%error, "cannot write a snapshot of the cluster's state; trying again later");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            saved_size = self.log.size();
            if let Err(ended) = self.let_go(saved, limits.log_entries_for_slow_followers).await {
                tracing::debug!(%ended, "the log is not cut any more");
                return;
            }
        }
    }

    /// Tells the algorithm of a snapshot beyond `before`, then cuts the log behind it but for `keep` entries.
    async fn let_go(&self, before: u64, keep: u64) -> Result<(), Fatal<u64>> {
        self.core.trigger().snapshot().await?;
        let beyond = |m: &openraft::RaftMetrics<u64, Member>| m.snapshot.is_some_and(|s| s.index > before);
        let seen = self.core.wait(None).metrics(beyond, "a new snapshot").await.map_err(|_| Fatal::Stopped)?;
        let upto = seen.snapshot.map_or(0, |s| s.index).saturating_sub(keep);
        if upto > 0 { self.core.trigger().purge_log(upto).await } else { Ok(()) }
    }
}
