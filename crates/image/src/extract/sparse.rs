//! Files with holes: the four ways in which GNU tar writes down where the data goes.

use std::io::{self, Read};

use tar::Header;

use super::pax::{self, Extensions};
use super::tar::Archive;

/// A map with more parts than this is an attack on memory, not a file.
const MAX_SEGMENTS: usize = 1 << 16;

/// A run of data in a file; what no segment covers is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// The `GNU.sparse` records of an extended header.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SparseHeader {
    pub name: Option<Vec<u8>>,
    /// Size of the file with its holes.
    size: Option<u64>,
    /// Format 1.0: the map precedes the data.
    in_data: bool,
    /// Formats 0.0 and 0.1: offsets and lengths in turn.
    map: Vec<u64>,
}

impl SparseHeader {
    /// Takes in one record; others than `GNU.sparse` are not for us and fine.
    pub fn add(&mut self, key: &str, value: &[u8]) -> Option<()> {
        match key {
            "GNU.sparse.name" => self.name = Some(value.to_vec()),
            "GNU.sparse.realsize" | "GNU.sparse.size" => self.size = Some(pax::number(value)?),
            "GNU.sparse.major" => self.in_data = value == b"1",
            "GNU.sparse.offset" | "GNU.sparse.numbytes" => self.map.push(pax::number(value)?),
            "GNU.sparse.map" => self.map = value.split(|byte| *byte == b',').map(pax::number).collect::<Option<_>>()?,
            _ => {}
        }
        (self.map.len() <= 2 * MAX_SEGMENTS).then_some(())
    }
}

/// The file's size and map, if it has one. Reads the parts of the map that are in the stream.
pub(super) fn read_map<R: Read>(
    archive: &mut Archive<R>,
    header: &Header,
    extensions: &Extensions,
) -> io::Result<Option<(u64, Vec<Segment>)>> {
    if header.entry_type().is_gnu_sparse() {
        return read_old_map(archive, header).map(Some);
    }
    let Some(size) = extensions.sparse.size else { return Ok(None) };
    let numbers = if extensions.sparse.in_data { read_numbers(archive)? } else { extensions.sparse.map.clone() };
    let segments = numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair.get(1).copied().unwrap_or(0) });
    Ok(Some((size, segments.collect())))
}

/// Whether the segments are in order, within the file, and all of the stored data.
pub(super) fn check(size: u64, segments: &[Segment], stored: u64) -> Option<()> {
    let (mut end, mut total) = (0, 0u64);
    for segment in segments {
        let next = segment.offset.checked_add(segment.length)?;
        if segment.offset < end || next > size {
            return None;
        }
        end = next;
        total = total.checked_add(segment.length)?;
    }
    (total == stored && i64::try_from(size).is_ok()).then_some(())
}

/// The map in and behind a GNU header.
fn read_old_map<R: Read>(archive: &mut Archive<R>, header: &Header) -> io::Result<(u64, Vec<Segment>)> {
    let gnu = header.as_gnu().ok_or(io::ErrorKind::InvalidData)?;
    let mut segments = Vec::new();
    let mut add = |sparse: &tar::GnuSparseHeader| -> io::Result<()> {
        if !sparse.is_empty() {
            segments.push(Segment { offset: sparse.offset()?, length: sparse.length()? });
        }
        if segments.len() > MAX_SEGMENTS { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    };
    gnu.sparse.iter().try_for_each(&mut add)?;
    let mut extended = gnu.is_extended();
    while extended {
        let mut block = tar::GnuExtSparseHeader::new();
        archive.read_block(block.as_mut_bytes())?.ok_or(io::ErrorKind::UnexpectedEof)?;
        block.sparse.iter().try_for_each(&mut add)?;
        extended = block.is_extended();
    }
    Ok((gnu.real_size()?, segments))
}

/// The map at the start of the data: decimal numbers, one a line, the first of which counts the segments; padded to a
/// block.
fn read_numbers<R: Read>(archive: &mut Archive<R>) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut block = [0; 512];
    loop {
        archive.read_exact(&mut block)?;
        for byte in block {
            match (byte, numbers.first()) {
                (b'\n', first) => {
                    let number = pax::number(&line).ok_or(io::ErrorKind::InvalidData)?;
                    if first.is_none() && number > MAX_SEGMENTS as u64 {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    numbers.push(number);
                    line.clear();
                }
                (byte, _) => line.push(byte),
            }
            if numbers.first().is_some_and(|count| numbers.len() as u64 == 1 + 2 * count) {
                return Ok(numbers.split_off(1));
            }
        }
    }
}
