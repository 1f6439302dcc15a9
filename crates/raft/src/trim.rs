//! Keeps the log short: a snapshot whenever it has grown enough, then the entries that the snapshot holds may go, but for
//! some that slow followers may still want. Each member does so for itself. When the key has changed, all of it goes, so that
//! nothing is left that was encrypted with the old one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::Fatal;
use shoal_types::View;
use shoal_types::spec::RaftConfig as Settings;
use tokio::sync::{mpsc, oneshot};

use crate::feed::Publisher;
use crate::frame::DataKey;
use crate::log::LogStore;
use crate::machine::Keeper;
use crate::snapshot::SnapshotError;
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
    /// What log and snapshots are encrypted with.
    pub key: DataKey,
    /// Who wants nothing to be left that was encrypted with older keys.
    pub sheds: mpsc::Receiver<Shed>,
}

/// Whom to tell that nothing is left.
pub type Shed = oneshot::Sender<Result<(), ShedError>>;

/// Why something may be left that was encrypted with an older key. That key is still known.
#[derive(Debug, thiserror::Error)]
pub enum ShedError {
    /// The log cannot go on in a new file.
    #[error("cannot go on with the log under a new key: {0}")]
    Log(#[from] io::Error),
    /// There is no snapshot under the new key.
    #[error("cannot write a snapshot under a new key: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The log is still needed.
    #[error("the log from before the change of its key is still there")]
    Kept,
    /// Consensus stopped here.
    #[error("consensus stopped on this manager")]
    Stopped,
}

impl Trim {
    /// Works until consensus ends here.
    pub async fn run(mut self) {
        let mut metrics = self.core.data_metrics();
        let mut saved_size = self.log.size();
        loop {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                Some(done) = self.sheds.recv() => {
                    // The asker may have given up waiting.
                    drop(done.send(self.shed().await));
                    continue;
                }
            }
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
            if let Err(ended) = self.let_go(saved + 1, limits.log_entries_for_slow_followers).await {
                tracing::debug!(%ended, "the log is not cut any more");
                return;
            }
        }
    }

    /// Tells the algorithm of a snapshot at `least` or beyond, then cuts the log behind it but for `keep` entries; up to
    /// where.
    async fn let_go(&self, least: u64, keep: u64) -> Result<u64, Fatal<u64>> {
        self.core.trigger().snapshot().await?;
        let is_there = |m: &openraft::RaftMetrics<u64, Member>| m.snapshot.is_some_and(|s| s.index >= least);
        let seen = self.core.wait(None).metrics(is_there, "a new snapshot").await.map_err(|_| Fatal::Stopped)?;
        let upto = seen.snapshot.map_or(0, |s| s.index).saturating_sub(keep);
        if upto > 0 {
            self.core.trigger().purge_log(upto).await?;
        }
        Ok(upto)
    }

    /// Sees to it that nothing is left that was encrypted with older keys: the log goes on in a new file, a snapshot takes
    /// the place of everything in the files before, and these go.
    async fn shed(&self) -> Result<(), ShedError> {
        let stopped = |_| ShedError::Stopped;
        let segment = self.log.roll().await?;
        let last = self.log.last().map_or(0, |id| id.index);
        self.core.wait(None).applied_index_at_least(Some(last), "what is in the log").await.map_err(stopped)?;
        self.keeper.save(0).await?;
        let upto = self.let_go(last, 0).await.map_err(|_| ShedError::Stopped)?;
        let is_cut = |m: &openraft::RaftMetrics<u64, Member>| m.purged.is_some_and(|p| p.index >= upto);
        self.core.wait(None).metrics(is_cut, "the log to be cut").await.map_err(stopped)?;
        if self.log.oldest().await? < segment {
            return Err(ShedError::Kept);
        }
        self.key.forget_older();
        Ok(())
    }
}
