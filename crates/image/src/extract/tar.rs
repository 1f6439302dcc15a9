//! Reading a tar stream, entry by entry.
//!
//! The `tar` crate decodes the headers. Its iterator is not used: it holds extended headers of any size in memory, and
//! it cuts extended attributes at line feeds, which file capabilities contain. Here extended headers have a limit and
//! their lengths are obeyed.

use std::io::{self, Read};

use tar::Header;

use super::pax::Extensions;
use super::sparse::{self, Segment};
use crate::error::ExtractError;

const BLOCK: u64 = 512;

/// Names, links and attributes of one entry need no more.
const MAX_EXTENDED_HEADER: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
    Directory,
}

/// One entry's header, all extensions applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: Kind,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Bytes of data in the stream.
    pub stored: u64,
    /// Bytes of the file, and where in it the stored data goes, if it has holes.
    pub sparse: Option<(u64, Vec<Segment>)>,
}

/// A tar stream. Reads as the current entry's data.
pub(crate) struct Archive<R> {
    stream: R,
    /// Unread data of the current entry.
    data: u64,
    padding: u64,
}

/// What precedes an entry's own header.
#[derive(Default)]
struct Prefix {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    extensions: Extensions,
}

impl<R: Read> Archive<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, data: 0, padding: 0 }
    }

    /// The next entry; what is left of the current one is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ExtractError> {
        let mut prefix = Prefix::default();
        loop {
            self.skip_rest().map_err(ExtractError::Stream)?;
            let Some(header) = self.read_header().map_err(ExtractError::Stream)? else { return Ok(None) };
            let bad = |source: io::Error| ExtractError::Stream(source);
            match header.entry_type().as_byte() {
                b'L' => prefix.name = Some(self.read_name(&header).map_err(bad)?),
                b'K' => prefix.link = Some(self.read_name(&header).map_err(bad)?),
                b'x' | b'X' => {
                    prefix.extensions = Extensions::parse(&self.read_extended(&header).map_err(bad)?).map_err(bad)?
                }
                // global headers carry comments of the tool that made the archive
                b'g' => {
                    self.read_extended(&header).map_err(bad)?;
                }
                _ => return self.start_entry(&header, prefix).map(Some),
            }
        }
    }

    fn start_entry(&mut self, header: &Header, prefix: Prefix) -> Result<Entry, ExtractError> {
        let Prefix { name, link, mut extensions } = prefix;
        let name = extensions.name.take().or(name).unwrap_or_else(|| header.path_bytes().into_owned());
        let link =
            extensions.link.take().or(link).or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let malformed = |reason| ExtractError::Malformed { name: shown.clone(), reason };
        let kind = kind(header, &name).ok_or_else(|| {
            let kind = char::from(header.entry_type().as_byte());
            ExtractError::Type { name: shown.clone(), kind }
        })?;
        let stored = match extensions.size {
            Some(size) => size,
            None => {
                number(&header.as_old().size, header.entry_size()).ok_or_else(|| malformed("its size is no number"))?
            }
        };
        // only files have data; writers differ in what they put into the other kinds' size
        let stored = if matches!(kind, Kind::File) { stored } else { 0 };
        self.begin_data(stored).ok_or_else(|| malformed("its size is absurd"))?;
        let old = header.as_old();
        let id = |over: Option<u64>, own: Option<u64>| over.or(own).and_then(|id| u32::try_from(id).ok());
        let mode = number(&old.mode, header.mode().map(u64::from)).ok_or_else(|| malformed("its mode is no number"))?;
        let mut entry = Entry {
            kind,
            link,
            mode: (mode & 0o7777) as u32,
            uid: id(extensions.uid, number(&old.uid, header.uid()))
                .ok_or_else(|| malformed("its user id is no number below 2^32"))?,
            gid: id(extensions.gid, number(&old.gid, header.gid()))
                .ok_or_else(|| malformed("its group id is no number below 2^32"))?,
            modified: extensions
                .modified
                .unwrap_or((header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0)),
            xattrs: std::mem::take(&mut extensions.xattrs),
            stored,
            sparse: None,
            name,
        };
        entry.sparse = sparse::read_map(self, header, &extensions).map_err(ExtractError::Stream)?;
        if let Some((size, segments)) = &entry.sparse {
            sparse::check(*size, segments, self.data)
                .ok_or_else(|| malformed("its map of holes does not fit its data"))?;
        }
        Ok(entry)
    }

    /// The next header; `None` at the end of the archive.
    pub fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let Some(()) = self.read_block(header.as_mut_bytes())? else { return Ok(None) };
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum =
            bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a tar archive, or a damaged one"));
        }
        Ok(Some(header))
    }

    /// One block that belongs to no entry's data. `None` if the stream ends before it.
    pub fn read_block(&mut self, block: &mut [u8; BLOCK as usize]) -> io::Result<Option<()>> {
        let mut filled = 0;
        while filled < block.len() {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(()))
    }

    fn read_name(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let mut name = self.read_extended(header)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn read_extended(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.entry_size()?;
        if size > MAX_EXTENDED_HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an extended header of {size} bytes")));
        }
        self.begin_data(size);
        let mut content = vec![0; size as usize];
        self.read_exact(&mut content)?;
        Ok(content)
    }

    fn begin_data(&mut self, size: u64) -> Option<()> {
        size.checked_add(BLOCK)?;
        self.data = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Some(())
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.data) + std::mem::take(&mut self.padding);
        let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())?;
        if skipped < rest { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data -= count as u64;
        Ok(count)
    }
}

/// A field that was left blank is zero.
fn number(field: &[u8], parsed: io::Result<u64>) -> Option<u64> {
    let is_blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if is_blank { Some(0) } else { parsed.ok() }
}

fn kind(header: &Header, name: &[u8]) -> Option<Kind> {
    let device = |block| {
        let part = |part: io::Result<Option<u32>>| part.ok().flatten();
        Some(Kind::Device { block, major: part(header.device_major())?, minor: part(header.device_minor())? })
    };
    match header.entry_type().as_byte() {
        // archives older than POSIX have no type for directories
        b'0' | 0 if name.ends_with(b"/") => Some(Kind::Directory),
        b'0' | 0 | b'7' | b'S' => Some(Kind::File),
        b'1' => Some(Kind::HardLink),
        b'2' => Some(Kind::Symlink),
        b'3' => device(false),
        b'4' => device(true),
        b'5' => Some(Kind::Directory),
        b'6' => Some(Kind::Fifo),
        _ => None,
    }
}
