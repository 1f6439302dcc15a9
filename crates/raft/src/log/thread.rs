//! The one thread that writes the log.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use openraft::storage::LogFlushed;
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
}

/// Whom to tell once what was written is safe.
enum Waiter {
    Append(Vec<(LogId, Place)>, LogFlushed<Types>),
    Plain(Done),
}

/// Starts the thread. It ends when all senders are gone.
pub fn spawn(disk: Disk, index: Arc<Mutex<Index>>) -> Sender<Command> {
    let (tx, rx) = channel();
    std::thread::Builder::new()
        .name("raft-log".into())
        .spawn(move || run(disk, &index, &rx))
        .expect("a daemon that cannot start a thread cannot run");
    tx
}

fn run(mut disk: Disk, index: &Mutex<Index>, commands: &Receiver<Command>) {
    // After a failed write or sync nobody knows what is on the disk. Only opening the log again tells.
    let mut broken = false;
    while let Ok(first) = commands.recv() {
        let mut waiters = Vec::new();
        let mut command = Some(first);
        while let Some(next) = command {
            broken |= handle(&mut disk, next, broken, &mut waiters);
            command = commands.try_recv().ok();
        }
        let synced = if waiters.is_empty() { Ok(()) } else { disk.sync() };
        broken |= synced.is_err();
        index.lock().expect("nothing panics while it holds the index").size = disk.size();
        for waiter in waiters {
            waiter.tell(index, copy(&synced));
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
