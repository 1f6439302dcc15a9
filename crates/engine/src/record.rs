//! The durable record: which containers and volumes there are, in one redb file.
//!
//! Writes go through one thread that puts all that are waiting into one transaction: fifty creations at once cost a few
//! flushes of the disk, not fifty. What a container is doing is not here but in its own `state.json` (see
//! [`crate::container::status`]): it changes often, and a crash of the machine ends every container anyway.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use redb::{AccessGuard, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::error::RecordError;

const CACHE_BYTES: usize = 1 << 20;

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By container id.
    Container,
    /// By volume name.
    Volume,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Container, Self::Volume];

    const fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Container => "containers",
            Self::Volume => "volumes",
        })
    }
}

struct Write {
    kind: Kind,
    key: String,
    /// `None` removes it.
    value: Option<Vec<u8>>,
    done: Option<oneshot::Sender<Result<(), RecordError>>>,
}

/// The record. Cheap to clone; all clones are one. The file is closed when the last one has been dropped.
#[derive(Clone, Debug)]
pub(crate) struct Record(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Taken away when it is dropped, so that the writer ends.
    writes: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
    database: Arc<File>,
}

/// The file. `redb` lets nobody write a database any more that could not be written once (the disk was full), until it is
/// opened anew: one that failed is closed, and opened for whoever comes next.
#[derive(Debug)]
struct File {
    path: PathBuf,
    database: Mutex<Option<Database>>,
}

impl File {
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut held = self.database.lock().expect("nothing panics while it is held");
        let database = held.take().map_or_else(|| open_whole(&self.path), Ok)?;
        let result = act(&database);
        if result.is_ok() {
            *held = Some(database);
        }
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the container record has panicked");
        }
    }
}

impl Record {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source: redb::Error| RecordError::Database { path: path.to_owned(), source: Box::new(source) };
        let database = Arc::new(File { path: path.to_owned(), database: Mutex::default() });
        // makes the tables
        database.with(|database| apply(database, &[])).map_err(failed)?;
        let (writes, queue) = mpsc::channel();
        let (written, name) = (database.clone(), path.to_owned());
        let writer = std::thread::Builder::new()
            .name("record".to_owned())
            .stack_size(256 << 10)
            .spawn(move || run(&written, &name, &queue))
            .map_err(|e| failed(redb::Error::Io(e)))?;
        Ok(Self(Arc::new(Inner { path: path.to_owned(), writes: Some(writes), writer: Some(writer), database })))
    }

    /// All entries of a kind.
    pub fn load<T: DeserializeOwned>(&self, kind: Kind) -> Result<Vec<T>, RecordError> {
        let path = &self.0.path;
        let failed = |source: redb::Error| RecordError::Database { path: path.clone(), source: Box::new(source) };
        let all = self.0.database.with(|database| {
            let table = database.begin_read()?.open_table(kind.table())?;
            let entry = |entry: Result<(AccessGuard<'_, &str>, AccessGuard<'_, &[u8]>), _>| {
                entry.map(|(key, value)| (key.value().to_owned(), value.value().to_owned()))
            };
            Ok(table.iter()?.map(entry).collect::<Result<Vec<_>, redb::StorageError>>()?)
        });
        let parsed = all.map_err(failed)?.into_iter().map(|(key, value)| {
            serde_json::from_slice(&value).map_err(|source| RecordError::Damaged { path: path.clone(), key, source })
        });
        parsed.collect()
    }

    /// Writes an entry; it is on the disk when this returns.
    pub async fn put(&self, kind: Kind, key: &str, value: &impl Serialize) -> Result<(), RecordError> {
        let value = serde_json::to_vec(value).expect("records have string keys only");
        let (done, told) = oneshot::channel();
        self.send(Write { kind, key: key.to_owned(), value: Some(value), done: Some(done) })?;
        told.await.map_err(|_| RecordError::Closed)?
    }

    /// Removes an entry soon. Whoever calls this has made the entry void by other means (its directory is gone), so
    /// that the next start drops it if this one does not come to it.
    pub fn forget(&self, kind: Kind, key: &str) {
        if self.send(Write { kind, key: key.to_owned(), value: None, done: None }).is_err() {
            tracing::debug!(key, "the record is closed: the entry goes at the next start");
        }
    }

    /// Removes an entry; it is off the disk when this returns.
    pub async fn remove(&self, kind: Kind, key: &str) -> Result<(), RecordError> {
        let (done, told) = oneshot::channel();
        self.send(Write { kind, key: key.to_owned(), value: None, done: Some(done) })?;
        told.await.map_err(|_| RecordError::Closed)?
    }

    fn send(&self, write: Write) -> Result<(), RecordError> {
        let writes = self.0.writes.as_ref().ok_or(RecordError::Closed)?;
        writes.send(write).map_err(|_| RecordError::Closed)
    }
}

/// The writer: ends when nobody can send it anything more.
fn run(database: &File, path: &Path, queue: &mpsc::Receiver<Write>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter());
        match database.with(|database| apply(database, &batch)) {
            Ok(()) => batch.into_iter().filter_map(|write| write.done).for_each(|done| {
                // the caller may have gone; the write stands
                done.send(Ok(())).ok();
            }),
            Err(source) => {
                tracing::error!(error = %source, "container record cannot be written");
                let text = source.to_string();
                for done in batch.into_iter().filter_map(|write| write.done) {
                    let source = Box::new(redb::Error::Io(std::io::Error::other(text.clone())));
                    done.send(Err(RecordError::Database { path: path.to_owned(), source })).ok();
                }
            }
        }
    }
}

/// Opens the database at `path`. A new one is there whole or not at all: `redb` does not open what a crash leaves of one that
/// was being made.
fn open_whole(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    if !path.exists() {
        let fresh = path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => drop(builder.create(&fresh)?),
        }
        std::fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())?;
    }
    Ok(builder.create(path)?)
}

fn apply(database: &Database, batch: &[Write]) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    for kind in Kind::ALL {
        let mut table = txn.open_table(kind.table())?;
        for write in batch.iter().filter(|write| write.kind == kind) {
            match &write.value {
                Some(value) => drop(table.insert(write.key.as_str(), value.as_slice())?),
                None => drop(table.remove(write.key.as_str())?),
            }
        }
    }
    Ok(txn.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_put_is_there_after_reopening_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.redb");
        let record = Record::open(&path).unwrap();
        let puts = (0..20).map(|n| {
            let record = record.clone();
            async move { record.put(Kind::Container, &format!("c{n:02}"), &n).await }
        });
        futures::future::try_join_all(puts).await.unwrap();
        record.remove(Kind::Container, "c00").await.unwrap();
        record.put(Kind::Volume, "v", &"volume").await.unwrap();
        drop(record);
        let record = Record::open(&path).unwrap();
        assert_eq!(record.load::<i32>(Kind::Container).unwrap(), (1..20).collect::<Vec<_>>());
        assert_eq!(record.load::<String>(Kind::Volume).unwrap(), ["volume"]);
        assert!(matches!(record.load::<i32>(Kind::Volume), Err(RecordError::Damaged { .. })));
    }

    #[test]
    fn what_a_crash_left_of_a_record_that_was_being_made_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.redb");
        std::fs::write(path.with_extension("new"), [0; 4096]).unwrap();
        drop(Record::open(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the record and nothing else");
    }

    #[tokio::test]
    async fn a_disk_that_was_full_is_written_again_once_it_has_space() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |program: &str, arguments: &[&str]| {
            assert!(std::process::Command::new(program).args(arguments).arg(dir.path()).status().unwrap().success());
        };
        mount("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
        let record = Record::open(&dir.path().join("engine.redb")).unwrap();
        let ballast = dir.path().join("ballast");
        let filled = std::fs::write(&ballast, vec![0_u8; 16 << 20]);
        let value = "x".repeat(4 << 20);
        let refused = record.put(Kind::Volume, "big", &value).await;
        std::fs::remove_file(&ballast).unwrap();
        let accepted = record.put(Kind::Volume, "small", &"x").await;
        let known = record.load::<String>(Kind::Volume);
        drop(record);
        mount("umount", &[]);
        assert!(filled.is_err() && refused.is_err(), "the disk was full");
        accepted.unwrap();
        assert_eq!(known.unwrap(), ["x"]);
    }
}
