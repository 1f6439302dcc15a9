//! The one thread that writes the log.

use std::io;
use std::sync::{Arc, Mutex};

use openraft::storage::LogFlushed;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::Index;
use super::disk::{Disk, Place};
use crate::types::{Entry, LogId, Types, Vote};

type Done = oneshot::Sender<io::Result<()>>;

/// What the thread is asked to do, in order.
pub enum Command {
    /// Write these entries and make them safe.
    Append(Vec<Entry>, LogFlushed<Types>),
    /// Write this vote and make it safe.
    Vote(Vote, Done),
    /// Void the entries from this index on.
    Truncate(u64, Done),
    /// Forget the entries up to this one.
    Purge(LogId, Done),
    /// Set aside space for an entry of this size.
    Reserve(u64, Done),
    /// Note that entries are agreed on up to this one.
    Committed(LogId),
    /// Go on in a new segment, and write anew what is not in segments.
    Roll(Done),
    /// The number of the oldest segment, and of the one that is written.
    Segments(oneshot::Sender<(u64, u64)>),
}

/// Whom to tell once what was written is safe.
enum Waiter {
    Append(Vec<(LogId, Place)>, LogFlushed<Types>),
    Plain(Done),
}

/// What writes the log.
struct Scribe {
    disk: Disk,
    index: Arc<Mutex<Index>>,
    /// After a failed write or sync nobody knows what is on the disk. Only opening the log again tells.
    broken: bool,
}

/// Starts the thread; on a simulated disk, a task that waits for it. It ends when all senders are gone.
pub fn spawn(disk: Disk, index: Arc<Mutex<Index>>) -> UnboundedSender<Command> {
    let (tx, rx) = unbounded_channel();
    let is_simulated = disk.lag().is_some();
    let scribe = Scribe { disk, index, broken: false };
    if is_simulated {
        tokio::spawn(scribe.run_with_lag(rx));
    } else {
        std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || scribe.run(rx))
            .expect("a daemon that cannot start a thread cannot run");
    }
    tx
}

impl Scribe {
    fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let waiters = self.write(first, &mut commands);
            self.finish(waiters);
        }
    }

    async fn run_with_lag(mut self, mut commands: UnboundedReceiver<Command>) {
        while let Some(first) = commands.recv().await {
            let waiters = self.write(first, &mut commands);
            if let Some(lag) = self.disk.lag().filter(|_| !waiters.is_empty()) {
                tokio::time::sleep(lag).await;
            }
            self.finish(waiters);
        }
    }

    /// Writes `first` and all that waits; whom to tell once it is safe.
    fn write(&mut self, first: Command, commands: &mut UnboundedReceiver<Command>) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        let mut command = Some(first);
        while let Some(next) = command {
            self.broken |= handle(&mut self.disk, next, self.broken, &mut waiters);
            command = commands.try_recv().ok();
        }
        waiters
    }

    /// Makes it safe and tells them.
    fn finish(&mut self, waiters: Vec<Waiter>) {
        let synced = if waiters.is_empty() { Ok(()) } else { self.disk.sync() };
        self.broken |= synced.is_err();
        self.index.lock().expect("nothing panics while it holds the index").size = self.disk.size();
        for waiter in waiters {
            waiter.tell(&self.index, copy(&synced));
        }
    }
}

/// Carries out `command`; whether the log is broken now.
fn handle(disk: &mut Disk, command: Command, broken: bool, waiters: &mut Vec<Waiter>) -> bool {
    let check =
        |broken: bool| if broken { Err(io::Error::other("an earlier write to the log failed")) } else { Ok(()) };
    let ok = check(broken);
    match command {
        Command::Reserve(bytes, done) => {
            tell(done, ok.and_then(|()| disk.reserve(bytes)));
            false
        }
        Command::Append(entries, done) => match ok.and_then(|()| disk.append(&entries)) {
            Ok(places) => {
                let ids = entries.iter().map(|e| e.log_id);
                waiters.push(Waiter::Append(ids.zip(places).collect(), done));
                false
            }
            Err(e) => {
                done.log_io_completed(Err(e));
                true
            }
        },
        Command::Roll(done) => plain(ok.and_then(|()| disk.roll()), done, waiters),
        Command::Segments(done) => {
            // The asker may have given up waiting.
            done.send(disk.segments()).ok();
            false
        }
        Command::Committed(id) => ok.and_then(|()| disk.note_committed(id)).is_err(),
        Command::Vote(vote, done) => plain(ok.and_then(|()| disk.save_vote(vote)), done, waiters),
        Command::Truncate(since, done) => plain(ok.and_then(|()| disk.truncate(since)), done, waiters),
        Command::Purge(mark, done) => plain(ok.and_then(|()| disk.purge(mark)), done, waiters),
    }
}

fn plain(result: io::Result<()>, done: Done, waiters: &mut Vec<Waiter>) -> bool {
    let failed = result.is_err();
    match result {
        Ok(()) => waiters.push(Waiter::Plain(done)),
        Err(_) => tell(done, result),
    }
    failed
}

fn tell(done: Done, result: io::Result<()>) {
    // The asker may have given up waiting; the work is done all the same.
    drop(done.send(result));
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
    }
}

impl Waiter {
    fn tell(self, index: &Mutex<Index>, result: io::Result<()>) {
        match self {
            Self::Plain(done) => tell(done, result),
            Self::Append(places, done) => {
                let mut index = index.lock().expect("nothing panics while it holds the index");
                for (id, place) in places {
                    index.written(id, place);
                }
                drop(index);
                done.log_io_completed(result);
            }
        }
    }
}
