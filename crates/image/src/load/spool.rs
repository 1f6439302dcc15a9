//! An archive's members, each in a file of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::digest::Digest;
use crate::error::{ExtractError, LoadError, StoreError};
use crate::extract::{Archive, HashingReader, Kind, clean, decompress};
use crate::layout::{Layout, TempFile};

/// Documents are read into memory; no real one is larger.
const MAX_DOCUMENT: u64 = 8 << 20;

/// No real archive has more members.
const MAX_MEMBERS: usize = 100_000;

/// How many links lead from one member to another.
const MAX_LINKS: usize = 8;

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The members of an archive. Their files go with it, except those that are kept elsewhere.
pub(super) struct Spool {
    members: HashMap<PathBuf, Member>,
    links: HashMap<PathBuf, PathBuf>,
}

/// One regular file of the archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub file: Arc<TempFile>,
    pub digest: Digest,
    pub size: u64,
}

/// Tells how far it was read, now and then.
pub(super) struct Reporting<R, F> {
    inner: R,
    bytes: u64,
    last: Instant,
    report: F,
}

impl Spool {
    /// Reads the whole archive.
    pub fn read(archive: impl Read, layout: &Layout) -> Result<Self, LoadError> {
        let mut stream = decompress(archive).map_err(LoadError::Stream)?;
        let mut spool = Self { members: HashMap::new(), links: HashMap::new() };
        let mut archive = Archive::new(&mut stream);
        while let Some(entry) = archive.next_entry().map_err(as_load_error)? {
            let shown = String::from_utf8_lossy(&entry.name).into_owned();
            let malformed = |reason: &str| LoadError::Malformed { name: shown.clone(), reason: reason.to_owned() };
            let name = clean(&entry.name).ok_or_else(|| malformed("it is outside of the archive"))?;
            if spool.members.len() + spool.links.len() > MAX_MEMBERS {
                return Err(malformed("it is one of too many members"));
            }
            match entry.kind {
                Kind::File => {
                    let member = Member::copy(&mut archive, layout)?;
                    spool.links.remove(&name);
                    spool.members.insert(name, member);
                }
                Kind::Symlink | Kind::HardLink => {
                    let dir = if entry.kind == Kind::Symlink {
                        name.parent().unwrap_or(Path::new(""))
                    } else {
                        Path::new("")
                    };
                    let target = [dir.as_os_str().as_encoded_bytes(), b"/", &entry.link].concat();
                    let target = clean(&target).ok_or_else(|| malformed("it links out of the archive"))?;
                    spool.members.remove(&name);
                    spool.links.insert(name, target);
                }
                Kind::Directory => {}
                Kind::Device { .. } | Kind::Fifo => return Err(malformed("it is neither a file nor a link")),
            }
        }
        // a truncated compressed stream shows itself only at its end
        io::copy(&mut stream, &mut io::sink()).map_err(LoadError::Stream)?;
        Ok(spool)
    }

    pub fn has(&self, name: &str) -> bool {
        self.member(name).is_ok()
    }

    /// The member of this name, or that a link of this name leads to.
    pub fn member(&self, name: &str) -> Result<&Member, LoadError> {
        let missing = || LoadError::Missing(name.to_owned());
        let mut path = clean(name.as_bytes()).ok_or_else(missing)?;
        for _ in 0..MAX_LINKS {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        self.members.get(&path).ok_or_else(missing)
    }

    /// A member's content, if it is a document.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let member = self.member(name)?;
        if member.size > MAX_DOCUMENT {
            return Err(LoadError::Malformed {
                name: name.to_owned(),
                reason: format!("it is larger than {MAX_DOCUMENT} bytes"),
            });
        }
        Ok(fs::read(&member.file.path).map_err(StoreError::at("read", &member.file.path))?)
    }

    /// A document of a known shape.
    pub fn parse<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        let content = self.document(name)?;
        serde_json::from_slice(&content)
            .map_err(|error| LoadError::Malformed { name: name.to_owned(), reason: error.to_string() })
    }
}

impl Member {
    fn copy<R: Read>(archive: &mut Archive<R>, layout: &Layout) -> Result<Self, LoadError> {
        let (temp, mut file) = layout.temp_file()?;
        let mut content = HashingReader::new(archive);
        let (mut size, mut buffer) = (0, vec![0; 128 * 1024]);
        loop {
            let count = content.read(&mut buffer).map_err(LoadError::Stream)?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(StoreError::at("write", &temp.path))?;
            size += count as u64;
        }
        Ok(Self { file: Arc::new(temp), digest: content.finish(), size })
    }

    pub fn open(&self) -> Result<File, StoreError> {
        File::open(&self.file.path).map_err(StoreError::at("open", &self.file.path))
    }
}

impl<R, F: Fn(u64)> Reporting<R, F> {
    pub fn new(inner: R, report: F) -> Self {
        Self { inner, bytes: 0, last: Instant::now(), report }
    }
}

impl<R: Read, F: Fn(u64)> Read for Reporting<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.last.elapsed() >= REPORT_EVERY {
            self.last = Instant::now();
            (self.report)(self.bytes);
        }
        Ok(count)
    }
}

/// The archive is read like a layer, but is none.
fn as_load_error(error: ExtractError) -> LoadError {
    match error {
        ExtractError::Stream(error) => LoadError::Stream(error),
        other => LoadError::Malformed { name: "an archive member".to_owned(), reason: other.to_string() },
    }
}
