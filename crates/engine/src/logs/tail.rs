//! Where the last lines of a log begin: found from the end, so that the size of the log does not matter.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::files::{Segment, next_line};

const BLOCK: u64 = 64 << 10;

/// Where to begin to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Index of the segment.
    pub segment: usize,
    /// Bytes to skip in it; of a compressed one, lines.
    pub skip: u64,
}

/// Where the last `lines` lines begin.
pub(super) fn find(segments: &[Segment], lines: u64) -> io::Result<Start> {
    let mut left = lines;
    for (index, segment) in segments.iter().enumerate().rev() {
        let found = if segment.compressed { in_packed(segment, left)? } else { in_plain(segment, left)? };
        match found {
            Found::At(skip) => return Ok(Start { segment: index, skip }),
            Found::Fewer(there) => left -= there,
        }
    }
    Ok(Start::default())
}

enum Found {
    At(u64),
    /// Only so many lines.
    Fewer(u64),
}

fn in_plain(segment: &Segment, lines: u64) -> io::Result<Found> {
    let mut file = match File::open(&segment.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Fewer(0)),
        other => other?,
    };
    let mut end = file.metadata()?.len();
    let mut feeds = 0;
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - begin).expect("at most a block"), 0);
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // the feed before the first wanted line
            if feeds == lines {
                return Ok(Found::At(begin + at as u64 + 1));
            }
            feeds += 1;
        }
        end = begin;
    }
    Ok(if feeds == lines { Found::At(0) } else { Found::Fewer(feeds) })
}

fn in_packed(segment: &Segment, lines: u64) -> io::Result<Found> {
    let mut reader = segment.open()?;
    let (mut there, mut line) = (0, Vec::new());
    while next_line(&mut *reader, &mut line)? {
        there += 1;
    }
    Ok(if there >= lines { Found::At(there - lines) } else { Found::Fewer(there) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::files::segments;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_found_across_rotated_and_packed_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, "7\n8\n9\nto").unwrap();
        std::fs::write(dir.path().join("x-json.log.1"), "4\n5\n6\n").unwrap();
        let packed = File::create(dir.path().join("x-json.log.2.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        packed.write_all(b"1\n2\n3\n").unwrap();
        packed.finish().unwrap();
        let segments = segments(&path);
        assert_eq!(segments.len(), 3);
        for (lines, segment, skip) in
            [(0, 2, 6), (1, 2, 4), (3, 2, 0), (4, 1, 4), (6, 1, 0), (7, 0, 2), (9, 0, 0), (50, 0, 0)]
        {
            assert_eq!(find(&segments, lines).unwrap(), Start { segment, skip }, "{lines}");
        }
    }

    #[test]
    fn lines_longer_than_a_block_are_found_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(BLOCK as usize * 2 + 7);
        std::fs::write(&path, format!("a\n{long}\n{long}\n")).unwrap();
        let start = find(&segments(&path), 1).unwrap();
        assert_eq!(start.skip, 2 + long.len() as u64 + 1);
    }
}
