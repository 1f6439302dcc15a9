//! One file of the log: a head, then records, then the zeros that were set aside for the next ones.
//!
//! Space is set aside before it is needed, so a full disk refuses a write before anything of it is written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frame::{DataKey, Frame, WrongKey};
use crate::media::{Media, MediaFile};

const MAGIC: &[u8; 8] = b"SHOALOG1";
/// Bytes before the first record: magic and the segment's number.
pub const START: u64 = 16;

/// One file of the log, open for writing at its end and for reading anywhere.
#[derive(Debug)]
pub struct Segment {
    /// Its place in the row of segments.
    pub number: u64,
    /// Where the next record goes.
    pub end: u64,
    /// Up to where space is set aside.
    pub reserved: u64,
    /// The largest log index of an entry in it, once there is one.
    pub last_entry: Option<u64>,
    /// The file.
    pub file: Arc<dyn MediaFile>,
    path: PathBuf,
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The system's answer.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Its first bytes are not those of a segment.
    #[error("{path} is not a segment of the log")]
    Head {
        /// The file.
        path: PathBuf,
    },
    /// Damage where no crash can have left it.
    #[error("{path} is damaged at byte {offset}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// Written with another key.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What it means.
        source: WrongKey,
    },
}

/// The name of segment `number`.
pub fn file_name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// The number in a segment's name.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

impl Segment {
    /// A new, empty segment with `size` bytes set aside. Nothing stays if that fails.
    pub fn create(media: &dyn Media, dir: &Path, number: u64, size: u64) -> io::Result<Self> {
        let (path, temp) = (dir.join(file_name(number)), dir.join(format!("{}.tmp", file_name(number))));
        let make = || {
            let file = media.create(&temp)?;
            file.set_aside(0, size)?;
            let mut head = [0; START as usize];
            head[..8].copy_from_slice(MAGIC);
            head[8..].copy_from_slice(&number.to_le_bytes());
            file.write_at(&head, 0)?;
            file.sync_all()?;
            media.rename(&temp, &path)?;
            media.sync_dir(dir)?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(Self { number, end: START, reserved: size, last_entry: None, file, path: path.clone() }),
            Err(error) => {
                for left in [&temp, &path] {
                    if let Err(e) = media.remove(left)
                        && e.kind() != io::ErrorKind::NotFound
                    {
                        tracing::warn!(path = %left.display(), error = %e, "cannot remove an unfinished segment");
                    }
                }
                Err(error)
            }
        }
    }

    /// Opens the segment and hands each whole record with its offset to `record`, in order. What follows the last whole
    /// one is cut off in the newest segment and an error in others. Mostly a crash left it, and nobody was told that it is
    /// safe; where somebody was, `lost` is called before it is cut off.
    ///
    /// Only damage to what was written last before a crash looks like what the crash left: what came after it would show
    /// it, and there is nothing.
    pub fn open(
        media: &dyn Media,
        dir: &Path,
        number: u64,
        newest: bool,
        key: &DataKey,
        lost: &mut dyn FnMut() -> io::Result<()>,
        mut record: impl FnMut(u64, usize, Vec<u8>) -> Result<(), SegmentError>,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(file_name(number));
        let io = |source| SegmentError::Io { path: path.clone(), source };
        let file = media.open(&path).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(file.size().map_err(io)?).expect("a segment fits memory")];
        file.read_at(&mut bytes, 0).map_err(io)?;
        if bytes.len() < START as usize || &bytes[..8] != MAGIC || bytes[8..16] != number.to_le_bytes() {
            return Err(SegmentError::Head { path });
        }
        let mut at = START as usize;
        loop {
            let frame = key.open(&bytes[at..]).map_err(|source| SegmentError::Key { path: path.clone(), source })?;
            match frame {
                Frame::Record { content, len } => {
                    record(at as u64, len, content)?;
                    at += len;
                }
                Frame::End if newest || bytes[at..].iter().all(|b| *b == 0) => break,
                Frame::Torn if newest => {
                    tracing::warn!(path = %path.display(), offset = at, "cut off a record that a crash left unfinished");
                    break;
                }
                Frame::End | Frame::Torn => return Err(SegmentError::Damaged { path, offset: at as u64 }),
            }
        }
        let end = at as u64;
        if newest && bytes[at..].iter().any(|b| *b != 0) {
            if key.was_safe(&bytes[at..]) {
                tracing::error!(path = %path.display(), offset = at, "records that were safe are damaged");
                lost().map_err(io)?;
            }
            // Overwritten, not cut: the space stays set aside, also on a disk that is full by now.
            file.write_at(&vec![0; bytes.len() - at], end).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        let reserved = bytes.len() as u64;
        Ok(Self { number, end, reserved, last_entry: None, file, path })
    }

    /// Sets aside space so that `bytes` more can be written; fails, and changes nothing, where there is none.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let want = self.end + bytes;
        if want > self.reserved {
            self.file.set_aside(self.reserved, want - self.reserved)?;
            self.file.sync_all()?;
            self.reserved = want;
        }
        Ok(())
    }

    /// Writes `bytes` at the end. Not safe before [`Self::sync`].
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end;
        self.file.write_at(bytes, at)?;
        self.end += bytes.len() as u64;
        self.reserved = self.reserved.max(self.end);
        Ok(at)
    }

    /// Makes safe what was written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Removes the file.
    pub fn remove(self, media: &dyn Media) -> io::Result<()> {
        media.remove(&self.path)
    }
}
