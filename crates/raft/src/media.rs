//! The operations on files that log and snapshots need, so that the simulator can put a disk of its own under them: one
//! that is slow, full, or forgets at a crash what was not made safe.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};

/// A place for files. What was written is safe once its file is synced; names are safe once their directory is.
pub trait Media: Debug + Send + Sync + 'static {
    /// Makes the directory and those above it, where they are missing.
    ///
    /// # Errors
    /// The system's answer, as with all others.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in `dir`, in any order. Those that are not UTF-8 are not ours and left out.
    ///
    /// # Errors
    /// The system's answer.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file, in place of the one that is there.
    ///
    /// # Errors
    /// The system's answer.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// The system's answer.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>>;

    /// Gives a file its name, in place of the one that has it.
    ///
    /// # Errors
    /// The system's answer.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's answer.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` safe.
    ///
    /// # Errors
    /// The system's answer.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How long a sync that begins now will take, where that is not spent in the call itself: a simulated disk has the
    /// log wait for it. `None`: calls take their time, and the log has a thread of its own.
    fn lag(&self) -> Option<Duration> {
        None
    }
}

/// An open file.
pub trait MediaFile: Debug + Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The system's answer, as with all others.
    fn size(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// The system's answer; `UnexpectedEof` where the file is shorter.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// The system's answer; some of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sets aside `bytes` of zeros from `offset`, the end of the file, on.
    ///
    /// # Errors
    /// The system's answer.
    fn set_aside(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Makes safe what was written, and as much of the file's length as is needed to read it.
    ///
    /// # Errors
    /// The system's answer; then nobody knows what is safe.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes safe everything about the file.
    ///
    /// # Errors
    /// The system's answer; then nobody knows what is safe.
    fn sync_all(&self) -> io::Result<()>;
}

/// The system's own files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

/// Reads or writes a file from its beginning to its end.
#[derive(Debug)]
pub struct Cursor {
    /// The file.
    pub file: Arc<dyn MediaFile>,
    /// Where the next byte is.
    pub at: u64,
}

impl Media for Files {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|file| Ok(file?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }
}

impl MediaFile for std::fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_aside(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let off = |v: u64| i64::try_from(v).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        match fallocate(self, FallocateFlags::empty(), off(offset)?, off(bytes)?) {
            // A file system that cannot set space aside: writes may then meet a full disk, which stops the log until
            // there is space, but loses nothing.
            Err(nix::errno::Errno::EOPNOTSUPP) => self.set_len(offset + bytes),
            other => other.map_err(io::Error::from),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }
}

/// Writes a small file so that it is there whole or not at all, whatever happens.
pub fn write_whole(media: &dyn Media, path: &Path, content: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("tmp");
    let file = media.create(&temp)?;
    file.write_at(content, 0)?;
    file.sync_all()?;
    media.rename(&temp, path)?;
    path.parent().map_or(Ok(()), |dir| media.sync_dir(dir))
}

/// A whole file.
pub fn read_whole(media: &dyn Media, path: &Path) -> io::Result<Vec<u8>> {
    let file = media.open(path)?;
    let len = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Cursor {
    /// At the beginning of `file`.
    pub fn new(file: Arc<dyn MediaFile>) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for Cursor {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.file.size()?.saturating_sub(self.at);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.file.read_at(&mut bytes[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
