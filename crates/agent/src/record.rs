//! What this node was told to run, on its disk: it runs its last assignment through a restart, before and without any
//! manager (swarm-semantics 7.5). One entry a task, in JSON.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use shoal_types::{Task, TaskId};

/// Tasks are few and read once, when the agent starts.
const CACHE_BYTES: usize = 1 << 20;

const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");

/// Opens the database, again where need be.
type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// The record. Writes are durable when they return.
pub struct Record {
    open: Opener,
    /// Nothing after a failure: `redb` lets nobody write a database any more that could not be written once (the disk was
    /// full), until it is opened anew.
    database: Mutex<Option<Database>>,
}

/// The record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database said no.
    #[error("the record of tasks failed: {0}")]
    Database(#[from] Box<redb::Error>),
    /// An entry cannot be put into words.
    #[error("the record of tasks cannot hold task {id}: {source}")]
    Form {
        /// The task.
        id: TaskId,
        /// Why.
        source: serde_json::Error,
    },
}

/// `redb` has an error type per operation; here all mean the same.
fn failed<E: Into<redb::Error>>(error: E) -> RecordError {
    RecordError::Database(Box::new(error.into()))
}

impl Record {
    /// Opens the record at `path`, making it where there is none.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let path = path.to_owned();
        Self::begin(Box::new(move || open_whole(&path)))
    }

    /// Like [`Self::open`], with the record on what `storage` gives each time that it is opened.
    ///
    /// # Errors
    /// The storage cannot be used.
    pub fn open_on<S: StorageBackend>(
        storage: impl Fn() -> io::Result<S> + Send + Sync + 'static,
    ) -> Result<Self, RecordError> {
        Self::begin(Box::new(move || {
            let storage = storage().map_err(redb::Error::Io)?;
            Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(storage)?)
        }))
    }

    fn begin(open: Opener) -> Result<Self, RecordError> {
        let record = Self { open, database: Mutex::default() };
        record.with(|database| {
            let write = database.begin_write().map_err(failed)?;
            write.open_table(TASKS).map_err(failed)?;
            write.commit().map_err(failed)
        })?;
        Ok(record)
    }

    /// Has `act` done on the database. One that fails is closed, and opened for whoever comes next.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, RecordError>) -> Result<T, RecordError> {
        let mut held = self.database.lock().expect("nothing panics while it is held");
        let database = held.take().map_or_else(&self.open, Ok).map_err(failed)?;
        let result = act(&database);
        if !matches!(result, Err(RecordError::Database(_))) {
            *held = Some(database);
        }
        result
    }

    /// All tasks. An entry that this version cannot read is skipped: the managers send it again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tasks(&self) -> Result<Vec<Task>, RecordError> {
        self.with(|database| {
            let read = database.begin_read().map_err(failed)?;
            let table = read.open_table(TASKS).map_err(failed)?;
            let mut tasks = Vec::new();
            for entry in table.iter().map_err(failed)? {
                let (id, body) = entry.map_err(failed)?;
                match serde_json::from_slice(body.value()) {
                    Ok(task) => tasks.push(task),
                    Err(error) => tracing::warn!("cannot read task {} from the record: {error}", id.value()),
                }
            }
            Ok(tasks)
        })
    }

    /// Puts `put` in, takes `remove` out; with `replace`, nothing else stays. One transaction.
    ///
    /// # Errors
    /// The file cannot be written; then nothing has changed.
    pub async fn write(
        self: Arc<Self>,
        replace: bool,
        put: Vec<Arc<Task>>,
        remove: Vec<TaskId>,
    ) -> Result<(), RecordError> {
        shoal_ambient::blocking(move || self.with(|database| write(database, replace, &put, &remove)))
            .await
            .expect("writing does not panic, and what is spawned here is not cancelled")
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

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Record")
    }
}

fn write(database: &Database, replace: bool, put: &[Arc<Task>], remove: &[TaskId]) -> Result<(), RecordError> {
    let write = database.begin_write().map_err(failed)?;
    {
        let mut table = write.open_table(TASKS).map_err(failed)?;
        if replace {
            table.retain(|_, _| false).map_err(failed)?;
        }
        for task in put {
            let body = serde_json::to_vec(&**task).map_err(|source| RecordError::Form { id: task.id, source })?;
            table.insert(task.id.as_str(), &body[..]).map_err(failed)?;
        }
        for id in remove {
            table.remove(id.as_str()).map_err(failed)?;
        }
    }
    write.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::backends::InMemoryBackend;

    use super::*;

    /// A disk that is full while it is told to be.
    #[derive(Debug, Clone, Default)]
    struct Disk(Arc<(InMemoryBackend, AtomicBool)>);

    impl Disk {
        fn space(&self) -> io::Result<()> {
            if self.0.1.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.0.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.space().and_then(|()| self.0.0.set_len(len))
        }
        fn sync_data(&self) -> io::Result<()> {
            self.space().and_then(|()| self.0.0.sync_data())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.space().and_then(|()| self.0.0.write(offset, data))
        }
    }

    #[test]
    fn what_a_crash_left_of_a_record_that_was_being_made_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks.redb");
        std::fs::write(path.with_extension("new"), [0; 4096]).unwrap();
        drop(Record::open(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the record and nothing else");
    }

    #[tokio::test]
    async fn a_disk_that_was_full_is_written_again_once_it_has_space() {
        let disk = Disk::default();
        let again = disk.clone();
        let record = Arc::new(Record::open_on(move || Ok(again.clone())).unwrap());
        let gone = vec!["a".repeat(25).parse().unwrap()];
        let write = || record.clone().write(true, Vec::new(), gone.clone());
        write().await.unwrap();
        disk.0.1.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            write().await.unwrap_err();
        }
        disk.0.1.store(false, Ordering::Relaxed);
        write().await.unwrap();
        assert_eq!(record.tasks().unwrap(), []);
    }
}
