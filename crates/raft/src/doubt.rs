//! A member that has lost entries which it had said were safe.
//!
//! A damaged disk can take from the end of the log what others counted on. The leader finds out and sends it again, but
//! until then a vote of this member could make a leader of one that lacks what this member's word had made final. So it
//! neither votes nor stands while it is in doubt, nor goes on leading. It is in doubt until a leader has given it
//! everything that this leader had when it was heard first: such a leader was not elected by this member's bad memory, it
//! has all that was final before it began, and whatever this member may have said to itself was about entries of that log.
//!
//! The mark is on disk before the damaged end is cut off, and goes away last.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::media::{Media, write_whole};
use crate::types::Vote;

/// Whether this member is in doubt.
#[derive(Debug)]
pub struct Doubt {
    media: Arc<dyn Media>,
    path: PathBuf,
    goal: Mutex<Option<Goal>>,
}

/// What ends it.
#[derive(Debug, Clone, Copy, Default)]
struct Goal {
    /// The leader that is heard.
    vote: Option<Vote>,
    /// What it had when it was heard first.
    index: u64,
}

impl Doubt {
    /// As it was when the member stopped.
    pub fn open(media: Arc<dyn Media>, path: PathBuf) -> Self {
        let goal = media.open(&path).is_ok().then(Goal::default);
        Self { media, path, goal: Mutex::new(goal) }
    }

    /// Begins it.
    pub fn raise(&self) -> io::Result<()> {
        write_whole(&*self.media, &self.path, b"entries that were safe are lost\n")?;
        *self.lock() = Some(Goal::default());
        Ok(())
    }

    /// Ends it: nobody is left who counted on this member.
    pub fn forgive(&self) -> io::Result<()> {
        match self.lock().take() {
            Some(_) => self.media.remove(&self.path),
            None => Ok(()),
        }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// The leader by `vote`, which has entries up to `last`, has seen to it that everything up to `index` is here.
    pub fn lift(&self, vote: Vote, index: Option<u64>, last: u64) {
        let mut goal = self.lock();
        let Some(now) = goal.as_mut() else { return };
        if now.vote != Some(vote) {
            *now = Goal { vote: Some(vote), index: last };
        }
        if index < Some(now.index) {
            return;
        }
        match self.media.remove(&self.path) {
            Ok(()) => {
                tracing::info!("what was lost from the log is back");
                *goal = None;
            }
            // The next message tries again.
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot remove a mark"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Goal>> {
        self.goal.lock().expect("nothing panics while it holds the goal")
    }
}
