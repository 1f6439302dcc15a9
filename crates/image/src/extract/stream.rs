//! Compression and digests of streams.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

const BUFFER: usize = 128 * 1024;

/// How a stream is compressed, by its first bytes: media types are not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    /// Known, but not supported.
    Other(&'static str),
}

/// Computes the digest of what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
}

impl Compression {
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            _ => Self::None,
        }
    }
}

/// Undoes gzip or zstd; passes anything else through.
pub(crate) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    Ok(match Compression::detect(fill(&mut stream)?) {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(stream))),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
        Compression::Other(name) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
        }
    })
}

/// The first bytes of a stream, as many as its reader gives at once.
fn fill<R: Read>(stream: &mut BufReader<R>) -> io::Result<&[u8]> {
    stream.fill_buf()
}

impl<R> HashingReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The digest of everything that was read.
    pub fn finish(self) -> Digest {
        Digest::from(self.hasher)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
