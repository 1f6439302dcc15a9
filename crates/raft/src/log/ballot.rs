//! The last vote a second time, beside the log: damage to the log must not make a member vote twice.
//!
//! Two places in one file, written in turn, so that one of them is always whole. The file has its full size from the
//! beginning: a vote needs no space on a full disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::frame::{DataKey, Frame};
use crate::media::{Media, MediaFile};
use crate::types::Vote;

const NAME: &str = "vote";
/// Bytes of one place: what disks write at once.
const PLACE: u64 = 4096;

/// The file.
#[derive(Debug)]
pub struct Ballot {
    file: Arc<dyn MediaFile>,
    key: DataKey,
    /// The place that is written next: 0 or 1.
    next: u64,
}

impl Ballot {
    /// Opens the file in `dir`, or makes it; the vote in it, if there is one.
    pub fn open(media: &dyn Media, dir: &Path, key: DataKey) -> io::Result<(Self, Option<Vote>)> {
        let path = dir.join(NAME);
        let file = match media.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let temp = dir.join(format!("{NAME}.tmp"));
                let file = media.create(&temp)?;
                file.set_aside(0, 2 * PLACE)?;
                file.sync_all()?;
                media.rename(&temp, &path)?;
                media.sync_dir(dir)?;
                file
            }
            other => other?,
        };
        let votes = [read(&*file, &key, 0)?, read(&*file, &key, 1)?];
        let newest = if votes[1] > votes[0] { 1 } else { 0 };
        Ok((Self { file, key, next: 1 - newest as u64 }, votes[newest]))
    }

    /// Writes `vote`, which is safe, to both places.
    pub fn rewrite(&mut self, vote: Vote) -> io::Result<()> {
        self.save(vote)?;
        self.save(vote)
    }

    /// Makes `vote` safe.
    pub fn save(&mut self, vote: Vote) -> io::Result<()> {
        let mut record = Vec::new();
        self.key.seal(&serde_json::to_vec(&vote)?, &mut record);
        self.file.write_at(&record, self.next * PLACE)?;
        self.file.sync_data()?;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn read(file: &dyn MediaFile, key: &DataKey, place: u64) -> io::Result<Option<Vote>> {
    let mut bytes = vec![0; PLACE as usize];
    file.read_at(&mut bytes, place * PLACE)?;
    match key.open(&bytes).map_err(io::Error::other)? {
        Frame::Record { content, .. } => Ok(Some(serde_json::from_slice(&content)?)),
        Frame::End | Frame::Torn => Ok(None),
    }
}
