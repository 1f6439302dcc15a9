//! What this node was told to run, on its disk: it runs its last assignment through a restart, before and without any
//! manager (swarm-semantics 7.5). One entry a task, in JSON.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use shoal_types::{Task, TaskId};

/// Tasks are few and read once, when the agent starts.
const CACHE_BYTES: usize = 1 << 20;

const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");

/// The record. Writes are durable when they return.
#[derive(Debug)]
pub struct Record {
    database: Database,
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
        Self::begin(Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(failed)?)
    }

    /// Like [`Self::open`], with the record on `storage`.
    ///
    /// # Errors
    /// The storage cannot be used.
    pub fn open_on(storage: impl StorageBackend) -> Result<Self, RecordError> {
        Self::begin(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(storage).map_err(failed)?)
    }

    fn begin(database: Database) -> Result<Self, RecordError> {
        let write = database.begin_write().map_err(failed)?;
        write.open_table(TASKS).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(Self { database })
    }

    /// All tasks. An entry that this version cannot read is skipped: the managers send it again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tasks(&self) -> Result<Vec<Task>, RecordError> {
        let read = self.database.begin_read().map_err(failed)?;
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
        shoal_ambient::blocking(move || self.write_now(replace, &put, &remove))
            .await
            .expect("writing does not panic, and what is spawned here is not cancelled")
    }

    fn write_now(&self, replace: bool, put: &[Arc<Task>], remove: &[TaskId]) -> Result<(), RecordError> {
        let write = self.database.begin_write().map_err(failed)?;
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
}
