//! What a client has not read yet: a little in memory, more on disk, and a limit.
//!
//! A container must not wait for a client that reads slowly, nor may such a client lose anything. So what it has
//! not read is parked in a file without a name. Past the limit the container waits after all, for as long as
//! the client reads something now and then; one that reads nothing at all is let go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Kept in memory.
const MEMORY: usize = 128 << 10;
/// Kept on disk.
const DISK: u64 = 256 << 20;
/// How long a client with a full outbox may read nothing.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Outbox {
    memory: Vec<u8>,
    /// How much of `memory` has been sent.
    sent: usize,
    spill: Option<Spill>,
    progress: Instant,
}

/// Bytes `read..written` of a file come after those in memory.
#[derive(Debug)]
struct Spill {
    file: File,
    read: u64,
    written: u64,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { memory: Vec::new(), sent: 0, spill: None, progress: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.memory.len() && self.spill.is_none()
    }

    /// Past the limit: whoever writes should wait.
    pub(super) fn is_full(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.written - spill.read > DISK)
    }

    /// There is something to read, and the client does not.
    pub(super) fn is_stalled(&self) -> bool {
        !self.is_empty() && self.progress.elapsed() > PATIENCE
    }

    /// Adds bytes. `dir` is where a file may be made.
    pub(super) fn push(&mut self, bytes: &[u8], dir: &Path) -> io::Result<()> {
        if self.is_empty() {
            self.progress = Instant::now();
        }
        if self.spill.is_none() && self.memory.len() - self.sent + bytes.len() <= MEMORY {
            self.memory.drain(..self.sent);
            self.sent = 0;
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill { file: unnamed(dir)?, read: 0, written: 0 }),
        };
        spill.file.write_all_at(bytes, spill.written)?;
        spill.written += bytes.len() as u64;
        Ok(())
    }

    /// Sends what the client takes at the moment.
    pub(super) fn flush(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        while !self.is_empty() {
            if self.sent == self.memory.len() {
                self.refill()?;
            }
            match stream.write(&self.memory[self.sent..]) {
                Ok(len) => {
                    self.sent += len;
                    self.progress = Instant::now();
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        (self.memory, self.sent) = (Vec::new(), 0);
        Ok(())
    }

    /// Takes bytes back from disk.
    fn refill(&mut self) -> io::Result<()> {
        (self.memory, self.sent) = (Vec::new(), 0);
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let len = (spill.written - spill.read).min(MEMORY as u64);
        self.memory.resize(usize::try_from(len).expect("at most MEMORY"), 0);
        spill.file.read_exact_at(&mut self.memory, spill.read)?;
        spill.read += len;
        if spill.read == spill.written {
            self.spill = None;
        }
        Ok(())
    }
}

/// A file that is gone when it is closed.
fn unnamed(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(dir) {
        Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let path = dir.join(format!("parked-{}", std::process::id()));
            let file = options.create_new(true).open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_slow_reader_gets_every_byte_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::new();
        let all: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
        for piece in all.chunks(70_001) {
            outbox.push(piece, dir.path()).unwrap();
            outbox.flush(&ours).unwrap();
        }
        assert!(outbox.spill.is_some(), "more than memory and the socket hold");
        let mut read = Vec::new();
        while read.len() < all.len() {
            let mut piece = vec![0; 50_000];
            let len = theirs.read(&mut piece).unwrap();
            read.extend_from_slice(&piece[..len]);
            outbox.flush(&ours).unwrap();
        }
        assert!(read == all);
        assert!(outbox.is_empty() && outbox.spill.is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no file is left");
    }
}
