//! Unpacking a layer: from a stream that nobody trusts to a directory that overlayfs can stand on.
//!
//! The stream may be compressed; its uncompressed digest is the layer's diff id. Every entry is applied relative to the
//! layer's root by calls that cannot leave it ([`root`]), whatever links the layer itself made before.

mod apply;
mod finish;
mod pax;
mod root;
mod sparse;
mod stream;
mod tar;

use std::io::Read;
use std::path::PathBuf;

pub(crate) use finish::finish;
pub(crate) use root::clean;
pub(crate) use stream::{HashingReader, decompress};
pub(crate) use tar::{Archive, Kind};

use crate::digest::DiffId;
use crate::error::ExtractError;
use crate::layout::Layout;

/// The attribute that makes a directory hide what is below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// What was unpacked.
#[derive(Debug, PartialEq)]
pub(crate) struct Unpacked {
    /// Digest of the uncompressed stream.
    pub diff: DiffId,
    /// Bytes of all files.
    pub size: u64,
    /// Directories that entries lie in but that have no entry of their own: [`finish`] gives them the attributes of the
    /// layers below.
    pub implied: Vec<PathBuf>,
}

/// Unpacks a layer into the empty directory `dir`. On an error the directory holds some of it. Blocks.
pub(crate) fn unpack(layer: impl Read, dir: &std::path::Path, layout: &Layout) -> Result<Unpacked, ExtractError> {
    let mut hashing = HashingReader::new(stream::decompress(layer).map_err(ExtractError::Stream)?);
    let (size, implied) = {
        let mut applier = apply::Applier::new(root::Root::open(dir, layout)?);
        let mut archive = tar::Archive::new(&mut hashing);
        while let Some(entry) = archive.next_entry()? {
            applier.apply(&entry, &mut archive)?;
        }
        applier.finish()?
    };
    // the digest covers what follows the archive's end, too
    std::io::copy(&mut hashing, &mut std::io::sink()).map_err(ExtractError::Stream)?;
    Ok(Unpacked { diff: hashing.finish(), size, implied })
}

#[cfg(test)]
mod tests;
