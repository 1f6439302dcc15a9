//! One file of the log: a head, then records, then the zeros that were set aside for the next ones.
//!
//! Space is set aside before it is needed, so a full disk refuses a write before anything of it is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::frame::{DataKey, Frame, WrongKey};

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
    pub file: std::sync::Arc<File>,
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
    pub fn create(dir: &Path, number: u64, size: u64) -> io::Result<Self> {
        let (path, temp) = (dir.join(file_name(number)), dir.join(format!("{}.tmp", file_name(number))));
        let make = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temp)?;
            set_aside(&file, 0, size)?;
            let mut head = [0; START as usize];
            head[..8].copy_from_slice(MAGIC);
            head[8..].copy_from_slice(&number.to_le_bytes());
            file.write_all_at(&head, 0)?;
            file.sync_all()?;
            std::fs::rename(&temp, &path)?;
            sync_dir(dir)?;
            Ok(file)
        };
        match make() {
            Ok(file) => {
                Ok(Self { number, end: START, reserved: size, last_entry: None, file: file.into(), path: path.clone() })
            }
            Err(error) => {
                for left in [&temp, &path] {
                    if let Err(e) = std::fs::remove_file(left)
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
    /// one is cut off in the newest segment (a crash left it, nobody was told that it is safe) and an error in others.
    pub fn open(
        dir: &Path,
        number: u64,
        newest: bool,
        key: &DataKey,
        mut record: impl FnMut(u64, usize, Vec<u8>) -> Result<(), SegmentError>,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(file_name(number));
        let io = |source| SegmentError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(file.metadata().map_err(io)?.len()).expect("a segment fits memory")];
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
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
            // Overwritten, not cut: the space stays set aside, also on a disk that is full by now.
            file.write_all_at(&vec![0; bytes.len() - at], end).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        let reserved = file.metadata().map_err(io)?.len();
        Ok(Self { number, end, reserved, last_entry: None, file: file.into(), path })
    }

    /// Sets aside space so that `bytes` more can be written; fails, and changes nothing, where there is none.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let want = self.end + bytes;
        if want > self.reserved {
            set_aside(&self.file, self.reserved, want - self.reserved)?;
            self.file.sync_all()?;
            self.reserved = want;
        }
        Ok(())
    }

    /// Writes `bytes` at the end. Not safe before [`Self::sync`].
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end;
        self.file.write_all_at(bytes, at)?;
        self.end += bytes.len() as u64;
        self.reserved = self.reserved.max(self.end);
        Ok(at)
    }

    /// Makes safe what was written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Removes the file.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Makes names in `dir` safe.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn set_aside(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let off = |v: u64| i64::try_from(v).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    match fallocate(file, FallocateFlags::empty(), off(from)?, off(bytes)?) {
        // A file system that cannot set space aside: writes may then meet a full disk, which stops the log until
        // there is space, but loses nothing.
        Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(from + bytes),
        other => other.map_err(io::Error::from),
    }
}
