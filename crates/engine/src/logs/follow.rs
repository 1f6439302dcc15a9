//! From the beginning that a client asked for to the end of the log, and on as it grows.
//!
//! Files are read where blocking is allowed, a batch at a time; growth is told by inotify. A rotation while we look is
//! seen by the file's identity: what is left of the old one is read first.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::Reader;
use super::entry::parse;
use super::files::{Segment, inode, next_line, segments};
use super::tail::{self, Start};
use crate::container::Seen;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::options::LogLine;

/// Lines read at once.
const BATCH: usize = 256;

/// An open file of the log.
struct Open {
    reader: Box<dyn BufRead + Send>,
    /// Identity of the file that is written; `None` for rotated ones.
    live: Option<(u64, u64)>,
    /// Where its next line begins, in the file that is written.
    at: u64,
}

impl Reader {
    pub(super) async fn run(mut self, follow: Option<watch::Receiver<Seen>>) -> Result<()> {
        let path = self.path.clone();
        let failed = |error| Error::at("read", path.clone())(error);
        // watched before it is read: growth between the two is not missed
        let grown = match &follow {
            Some(_) => Some(watch_dir(&self.path).map_err(failed)?),
            None => None,
        };
        let live = self.read_past().await.map_err(failed)?;
        match (follow, grown, live) {
            (Some(seen), Some(grown), Some(live)) => self.follow(live, grown, seen).await.map_err(failed),
            _ => Ok(()),
        }
    }

    /// All that is there. Returns the file that is written, read to its end; `None`: the client needs no more.
    async fn read_past(&mut self) -> io::Result<Option<Open>> {
        let (path, tail) = (self.path.clone(), self.options.tail);
        let (all, start) = blocking(move || {
            let all = segments(&path);
            let start = tail.map_or(Ok(Start::default()), |lines| tail::find(&all, lines));
            start.map(|start| (all, start))
        })
        .await?;
        let last = all.len() - 1;
        for (index, segment) in all.into_iter().enumerate().skip(start.segment) {
            let skip = if index == start.segment { start.skip } else { 0 };
            let old = self.options.since.is_some_and(|since| segment.is_older_than(since));
            if index < last && old {
                continue;
            }
            let open = match blocking(move || open(&segment, skip, index == last)).await {
                Ok(open) => open,
                // rotated away meanwhile, or nothing was ever written
                Err(error) if error.kind() == io::ErrorKind::NotFound && index < last => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Open::nothing())),
                Err(error) => return Err(error),
            };
            match self.drain(open).await? {
                Some(open) if index == last => return Ok(Some(open)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Sends what is left of a file; `None`: the client wants no more.
    async fn drain(&mut self, mut open: Open) -> io::Result<Option<Open>> {
        loop {
            let (back, lines, more) = blocking(move || open.batch()).await?;
            open = back;
            let past = lines.iter().position(|line| self.is_past(line));
            let lines: Vec<_> =
                lines.into_iter().take(past.unwrap_or(usize::MAX)).filter(|line| self.wants(line)).collect();
            let gone = !lines.is_empty() && self.out.send(Ok(lines)).await.is_err();
            if gone || past.is_some() {
                return Ok(None);
            }
            if !more {
                return Ok(Some(open));
            }
        }
    }

    async fn follow(
        mut self,
        mut live: Open,
        mut grown: pipe::Receiver,
        mut seen: watch::Receiver<Seen>,
    ) -> io::Result<()> {
        let mut events = [0; 4096];
        let before = seen.borrow_and_update().exits;
        let over = |seen: &Seen| seen.exits > before || !seen.running || seen.removed;
        loop {
            // the log is whole before the end is told: what is read after that is all
            let ended = over(&seen.borrow_and_update());
            live = match self.catch_up(live).await? {
                Some(live) => live,
                None => return Ok(()),
            };
            if ended {
                return Ok(());
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return Ok(()) },
                // that something happened is enough: what, is seen in the files
                told = grown.read(&mut events) => drop(told?),
                () = self.out.closed() => return Ok(()),
                () = until(self.options.until) => return Ok(()),
            }
        }
    }

    /// Reads on, through as many rotations as there were.
    async fn catch_up(&mut self, live: Open) -> io::Result<Option<Open>> {
        let mut live = live;
        loop {
            live = match self.drain(live).await? {
                Some(live) => live,
                None => return Ok(None),
            };
            let path = self.path.clone();
            let next = blocking(move || next(live, &path)).await?;
            match next {
                Next::Same(same) => return Ok(Some(same)),
                // nothing more is written to the old one, but something may have been since it was read
                Next::Other(old, other) => match self.drain(old).await? {
                    Some(_) => live = other,
                    None => return Ok(None),
                },
            }
        }
    }
}

/// What comes after a file that has been read to its end.
enum Next {
    /// Nothing yet.
    Same(Open),
    /// Another file, after what is left of this one.
    Other(Open, Open),
}

fn next(open: Open, path: &std::path::Path) -> io::Result<Next> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Next::Same(open)),
        Err(error) => return Err(error),
    };
    if open.live == Some(inode(&meta)) && meta.len() >= open.at {
        return Ok(Next::Same(open));
    }
    // ours has been renamed, maybe more than once: the next is the one before it in number
    let all = segments(path);
    let ours = all.iter().position(|segment| fs::metadata(&segment.path).is_ok_and(|m| open.live == Some(inode(&m))));
    let index = match ours {
        Some(index) if index + 1 < all.len() => index + 1,
        _ => all.len() - 1,
    };
    let segment = Segment { compressed: false, ..all[index].clone() };
    self::open(&segment, 0, true).map(|other| Next::Other(open, other))
}

fn open(segment: &Segment, skip: u64, live: bool) -> io::Result<Open> {
    if segment.compressed {
        let mut reader = segment.open()?;
        let mut line = Vec::new();
        for _ in 0..skip {
            next_line(&mut *reader, &mut line)?;
        }
        return Ok(Open { reader, live: None, at: 0 });
    }
    let mut file = File::open(&segment.path)?;
    let identity = inode(&file.metadata()?);
    file.seek(SeekFrom::Start(skip))?;
    Ok(Open {
        reader: Box::new(Resume::new(BufReader::with_capacity(64 << 10, file))),
        live: live.then_some(identity),
        at: skip,
    })
}

impl Open {
    /// In the place of a file that is not there yet.
    fn nothing() -> Self {
        Self { reader: Box::new(io::empty()), live: None, at: 0 }
    }

    /// The next lines, and whether there may be more.
    fn batch(mut self) -> io::Result<(Self, Vec<LogLine>, bool)> {
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            if !next_line(&mut *self.reader, &mut line)? {
                return Ok((self, lines, false));
            }
            self.at += line.len() as u64;
            lines.extend(parse(&line));
        }
        Ok((self, lines, true))
    }
}

/// A reader that gives back what it read of a line that is not whole yet: the rest may come later.
struct Resume {
    file: BufReader<File>,
    begun: Vec<u8>,
}

impl Resume {
    fn new(file: BufReader<File>) -> Self {
        Self { file, begun: Vec::new() }
    }
}

impl io::Read for Resume {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl BufRead for Resume {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.file.consume(amount);
    }

    fn read_until(&mut self, byte: u8, line: &mut Vec<u8>) -> io::Result<usize> {
        self.file.read_until(byte, &mut self.begun)?;
        if self.begun.ends_with(&[byte]) {
            line.append(&mut self.begun);
        }
        Ok(line.len())
    }
}

/// inotify's descriptor, which is read as a pipe is.
fn watch_dir(path: &std::path::Path) -> io::Result<pipe::Receiver> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let dir = path.parent().unwrap_or(path);
    inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    pipe::Receiver::from_owned_fd_unchecked(inotify.into())
}

async fn until(time: Option<jiff::Timestamp>) {
    match time {
        None => std::future::pending().await,
        Some(time) => {
            let left = time.duration_since(jiff::Timestamp::now());
            tokio::time::sleep(std::time::Duration::try_from(left).unwrap_or_default()).await;
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
