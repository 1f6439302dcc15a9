//! The store's background thread: deletes what is in the trash, and makes new layers durable.
//!
//! Neither may hold up a pull or the removal of a container: a deletion can take seconds, and so can writing out a
//! layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::StoreError;
use crate::layout::read_dir;

/// Work for the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chore {
    EmptyTrash,
    SyncLayers,
}

/// Asks the thread to work; the thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Janitor(Sender<Chore>);

impl Janitor {
    /// A janitor whose work waits until [`start`] is called with the other end.
    pub fn new() -> (Self, Receiver<Chore>) {
        let (sender, receiver) = channel();
        (Self(sender), receiver)
    }

    pub fn ask(&self, chore: Chore) {
        // the thread ends only with the store, and what is left then is done when it is opened again
        self.0.send(chore).ok();
    }
}

/// Starts the thread. `sync` makes layers durable.
pub(crate) fn start(
    chores: Receiver<Chore>,
    trash: PathBuf,
    sync: impl Fn() + Send + 'static,
) -> Result<(), StoreError> {
    let path = trash.clone();
    let thread = std::thread::Builder::new().name("image-janitor".to_owned()).spawn(move || run(&chores, &trash, sync));
    thread.map(drop).map_err(StoreError::at("start the thread that empties", path))
}

fn run(chores: &Receiver<Chore>, trash: &Path, sync: impl Fn()) {
    while let Ok(first) = chores.recv() {
        let asked: Vec<Chore> = std::iter::once(first).chain(chores.try_iter()).collect();
        if asked.contains(&Chore::EmptyTrash) {
            empty(trash);
        }
        if asked.contains(&Chore::SyncLayers) {
            sync();
        }
    }
}

/// Deletes what is in the trash. What cannot be deleted stays and is tried again next time.
fn empty(trash: &Path) {
    let entries = match read_dir(trash) {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(%error, "cannot empty the trash"),
    };
    for path in entries.iter().map(|entry| trash.join(entry)) {
        let deleted = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(path = %path.display(), %error, "cannot delete from the trash");
        }
    }
}
