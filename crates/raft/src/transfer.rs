//! Snapshots on their way from the leader to a member that is too far behind for the log: piece by piece from disk to disk.
//!
//! Each piece is answered before the next one goes, so a lost, doubled or late one is told by its number. A piece that is
//! lost is sent again; a receiver that has lost its place (it restarted) makes the algorithm begin anew. The receiver
//! writes the pieces as they come, and the snapshot is safe on its disk before the algorithm hears of it: the algorithm
//! lets go of the log entries that a snapshot replaces before it asks whether that is written.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use openraft::Snapshot as RaftSnapshot;
use rand::Rng;
use shoal_store::Decoder;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::machine::Keeper;
use crate::message::{Answer, Piece, What};
use crate::network::CallError;
use crate::peer::Line;
use crate::snapshot::{Draft, Pieces, SnapshotError};
use crate::types::{Core, Image, SnapshotMeta, Types, Vote};

/// A receiver that takes nothing for this long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before a piece that was lost is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The member does not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The snapshot cannot be read here.
    #[error(transparent)]
    Read(#[from] SnapshotError),
    /// The receiver has lost its place.
    #[error("the receiver of a snapshot begins anew")]
    Restarted,
    /// The algorithm wants to send what is not on disk.
    #[error("there is no snapshot to send")]
    Nothing,
}

/// Where a member takes snapshots. Cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    core: Core,
    keeper: Keeper,
    incoming: Arc<Mutex<Option<Incoming>>>,
}

struct Incoming {
    transfer: u64,
    /// The piece that is waited for.
    next: u64,
    stage: Stage,
}

enum Stage {
    /// Pieces come.
    Open(Box<Open>),
    /// All are there. Ends with the newest vote, or why it failed.
    Closing(Closing),
}

type Closing = Shared<BoxFuture<'static, Result<Vote, Arc<str>>>>;

struct Open {
    meta: SnapshotMeta,
    draft: Draft,
    decoder: Decoder,
}

// === the sender ===

/// Sends `snapshot` to the member at the end of `line`; returns the newest vote there. Dropping it ends it.
///
/// # Errors
/// [`SendError`].
pub async fn send(line: &Line, vote: Vote, snapshot: RaftSnapshot<Types>) -> Result<Vote, SendError> {
    let Image::Stored(pieces) = *snapshot.snapshot else { return Err(SendError::Nothing) };
    send_pieces(line, vote, snapshot.meta, pieces).await
}

async fn send_pieces(line: &Line, vote: Vote, meta: SnapshotMeta, pieces: Pieces) -> Result<Vote, SendError> {
    let transfer = shoal_ambient::chance().random();
    let (mut meta, mut seq, mut content) = (Some(meta), 0, read(&pieces).await?);
    loop {
        let following = read(&pieces).await?;
        let is_last = following.is_none();
        let piece = Piece { vote, transfer, seq, meta: meta.take(), is_last };
        let (newest, next, is_done) = deliver(line, piece, &content.unwrap_or_default()).await?;
        if newest > vote || is_done {
            return Ok(newest);
        }
        if next != seq + 1 || is_last {
            return Err(SendError::Restarted);
        }
        (seq, content) = (next, following);
    }
}

/// Sends `piece` until it is answered.
async fn deliver(line: &Line, piece: Piece, content: &[u8]) -> Result<(Vote, u64, bool), SendError> {
    let began = Instant::now();
    loop {
        let lost = match line.call_with(What::Piece(piece.clone()), content).await {
            Ok(Answer::Piece { vote, next, is_done }) => return Ok((vote, next, is_done)),
            Ok(other) => line.strange(&other),
            Err(lost) => lost,
        };
        if began.elapsed() > PATIENCE {
            return Err(lost.into());
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read(pieces: &Pieces) -> Result<Option<Vec<u8>>, SnapshotError> {
    let pieces = pieces.clone();
    shoal_ambient::blocking(move || pieces.next())
        .await
        .expect("reading a snapshot does not panic and is not cancelled")
}

// === the receiver ===

impl Inbox {
    /// Nothing is on its way.
    pub fn new(core: Core, keeper: Keeper) -> Self {
        Self { core, keeper, incoming: Arc::default() }
    }

    /// Takes `piece`, which is the next one or not; says how far the snapshot is: the piece that is waited for, and whether
    /// it is installed. With the last piece it returns once that is so, or fails.
    ///
    /// # Errors
    /// The reason; the sender has to begin anew.
    pub async fn take(&self, piece: Piece, content: Vec<u8>) -> Result<(Vote, u64, bool), Arc<str>> {
        let newest = self.core.metrics().borrow().vote;
        if newest > piece.vote {
            return Ok((newest, 0, false));
        }
        let mut incoming = self.incoming.lock().await;
        if incoming.as_ref().is_none_or(|i| i.transfer != piece.transfer) {
            let (0, Some(meta)) = (piece.seq, piece.meta) else { return Ok((newest, 0, false)) };
            // Two of one snapshot that were written and installed at a time would take each other's file away.
            if let Some(closing) = incoming.as_ref().and_then(Incoming::closing) {
                drop(closing.await);
            }
            *incoming = None;
            let draft = self.keeper.draft(&meta).map_err(|e| Arc::from(e.to_string()))?;
            let open = Box::new(Open { meta, draft, decoder: Decoder::default() });
            *incoming = Some(Incoming { transfer: piece.transfer, next: 0, stage: Stage::Open(open) });
        }
        let Some(current) = incoming.as_mut() else { return Ok((newest, 0, false)) };
        if piece.seq == current.next
            && let Err(error) = self.add(current, &content, piece.vote, piece.is_last).await
        {
            *incoming = None;
            return Err(error);
        }
        let (next, closing) = (current.next, current.closing().filter(|_| piece.is_last));
        drop(incoming);
        match closing {
            None => Ok((newest, next, false)),
            Some(closing) => {
                let closed = closing.await;
                if closed.is_err() {
                    self.forget(piece.transfer).await;
                }
                closed.map(|vote| (vote, next, true))
            }
        }
    }

    /// Forgets a snapshot that could not be installed: when its sender tries again, it begins anew.
    async fn forget(&self, transfer: u64) {
        let failed = |i: &mut Incoming| i.transfer == transfer && i.closing().is_some_and(|c| c.peek().is_some());
        self.incoming.lock().await.take_if(failed);
    }

    async fn add(&self, to: &mut Incoming, content: &[u8], vote: Vote, is_last: bool) -> Result<(), Arc<str>> {
        let Stage::Open(open) = &mut to.stage else { return Ok(()) };
        open.decoder.feed(content).map_err(|e| Arc::from(e.to_string()))?;
        open.draft.add(content).map_err(|e| Arc::from(e.to_string()))?;
        to.next += 1;
        if is_last {
            // Nothing comes after this: the placeholder is replaced at once.
            let idle = Stage::Closing(std::future::pending().boxed().shared());
            if let Stage::Open(open) = std::mem::replace(&mut to.stage, idle) {
                let task = tokio::spawn(self.clone().close(*open, vote));
                // By itself, so that it goes on when the sender gives this call up and asks again.
                let closed = async move { task.await.unwrap_or_else(|e| Err(e.to_string().into())) };
                to.stage = Stage::Closing(closed.boxed().shared());
            }
        }
        Ok(())
    }

    /// Makes the snapshot safe, then has the algorithm install it.
    async fn close(self, open: Open, vote: Vote) -> Result<Vote, Arc<str>> {
        let Open { meta, draft, decoder } = open;
        let state = decoder.finish().map_err(|e| Arc::from(e.to_string()))?;
        self.keeper.receive(draft).await.map_err(|e| Arc::from(e.to_string()))?;
        let snapshot = RaftSnapshot { meta: meta.clone(), snapshot: Box::new(Image::Received(state)) };
        let installed = self.core.install_full_snapshot(vote, snapshot).await;
        // A newer vote, or more entries than it has: the algorithm did not want it.
        self.keeper.settle(&meta);
        installed.map(|response| response.vote).map_err(|e| e.to_string().into())
    }
}

impl Incoming {
    fn closing(&self) -> Option<Closing> {
        match &self.stage {
            Stage::Open(_) => None,
            Stage::Closing(closing) => Some(closing.clone()),
        }
    }
}
