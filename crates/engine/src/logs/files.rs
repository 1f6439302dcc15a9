//! The files of a log: the one that is written, and the rotated ones before it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

/// How many rotated files there can be; far above any real `max-file`.
const MOST: usize = 10_000;
const BUFFER: usize = 64 << 10;

/// A file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub compressed: bool,
}

/// The files, oldest first; the last is the one that is written.
pub(super) fn segments(path: &Path) -> Vec<Segment> {
    let mut all = vec![Segment { path: path.to_owned(), compressed: false }];
    for number in 1..MOST {
        let plain = numbered(path, number, "");
        let packed = numbered(path, number, ".gz");
        if plain.exists() {
            all.push(Segment { path: plain, compressed: false });
        } else if packed.exists() {
            all.push(Segment { path: packed, compressed: true });
        } else {
            break;
        }
    }
    all.reverse();
    all
}

fn numbered(path: &Path, number: usize, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    name.into()
}

impl Segment {
    /// Opens it for reading line by line.
    pub fn open(&self) -> io::Result<Box<dyn BufRead + Send>> {
        let file = BufReader::with_capacity(BUFFER, File::open(&self.path)?);
        match self.compressed {
            true => Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))),
            false => Ok(Box::new(file)),
        }
    }

    /// Whether it was last written before a time.
    pub fn is_older_than(&self, time: jiff::Timestamp) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.mtime() < time.as_second() - 1)
    }
}

/// Which file a name means.
pub(super) fn inode(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// The next line with its line feed; `false`: there is none, or none that is whole.
pub(super) fn next_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    reader.read_until(b'\n', line)?;
    Ok(line.ends_with(b"\n"))
}
