//! A snapshot as bytes: JSON, one record a line. What tasks share is written once and read back shared.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_types::object::TaskStatus;
use shoal_types::spec::{Annotations, EndpointSpec, TaskSpec};
use shoal_types::{
    Cluster, Config, GenericResource, Meta, Node, NodeId, Secret, Service, ServiceId, Settled, Task, TaskId, TaskState,
    View,
};

use crate::Snapshot;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
enum Row {
    /// Comes first.
    Head {
        format: u32,
        index: u64,
    },
    Cluster(Arc<Cluster>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    /// Numbered from 0 in the order of the rows.
    Template(Template),
    Task(Box<TaskRow>),
    Settled(Settled),
    /// Comes last; `rows` counts those before it.
    End {
        rows: u64,
    },
}

/// What tasks share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Template {
    annotations: Arc<Annotations>,
    spec: Arc<TaskSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Arc<EndpointSpec>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registry_auth: Option<Arc<str>>,
}

/// A task without what it shares.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TaskRow {
    id: TaskId,
    meta: Meta,
    service_id: ServiceId,
    slot: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_id: Option<NodeId>,
    template: usize,
    spec_version: u64,
    status: TaskStatus,
    desired_state: TaskState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job_iteration: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    assigned_generic: Vec<GenericResource>,
}

/// The templates written so far, by where their parts lie.
#[derive(Debug, Default)]
pub(crate) struct Templates(HashMap<(usize, usize, Option<usize>, Option<usize>), usize>);

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A line is not a record.
    #[error("line {line} of the snapshot is damaged")]
    Row {
        /// Counted from 1.
        line: u64,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// It was written by another version.
    #[error("the snapshot has format {0}, this version reads format {FORMAT}")]
    Format(u32),
    /// A record is where it cannot be.
    #[error("line {0} of the snapshot is out of place")]
    Order(u64),
    /// The end is missing.
    #[error("the snapshot ends early, after {0} lines")]
    Truncated(u64),
}

/// Reads a snapshot piece by piece; pieces may end anywhere.
#[derive(Default)]
pub struct Decoder {
    state: Snapshot,
    templates: Vec<Template>,
    rest: Vec<u8>,
    rows: u64,
    ended: bool,
}

// === impl Snapshot ===

impl Snapshot {
    /// The snapshot in pieces of about `size` bytes, made as they are asked for.
    pub fn encode_pieces(&self, size: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut lines = self.lines();
        std::iter::from_fn(move || {
            let mut piece = Vec::new();
            while piece.len() < size {
                let Some(line) = lines.next() else { break };
                piece.extend_from_slice(&line);
            }
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// The snapshot in one piece.
    pub fn encode(&self) -> Vec<u8> {
        self.lines().flatten().collect()
    }

    /// The snapshot that `bytes` are.
    ///
    /// # Errors
    /// Bytes that [`Snapshot::encode`] did not make, or not all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes)?;
        decoder.finish()
    }

    fn lines(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut rows = 0;
        std::iter::once(Row::Head { format: FORMAT, index: self.index() })
            .chain(self.cluster().cloned().map(Row::Cluster))
            .chain(self.nodes().cloned().map(Row::Node))
            .chain(self.services().cloned().map(Row::Service))
            .chain(self.secrets().cloned().map(Row::Secret))
            .chain(self.configs().cloned().map(Row::Config))
            .chain(task_rows(self))
            .chain(self.settled.all().map(Row::Settled))
            .map(Some)
            .chain(std::iter::once(None))
            .map(move |row| {
                let row = row.unwrap_or(Row::End { rows });
                rows += 1;
                let mut line = serde_json::to_vec(&row).expect("rows have text keys and finite numbers only");
                line.push(b'\n');
                line
            })
    }
}

/// Each task, after its template where that is new.
fn task_rows(state: &Snapshot) -> impl Iterator<Item = Row> + '_ {
    let mut templates = Templates::default();
    state.tasks().flat_map(move |task| {
        let (number, template) = templates.of(task);
        template.map(Row::Template).into_iter().chain([Row::Task(Box::new(TaskRow::new(task, number)))])
    })
}

// === impl Templates ===

impl Templates {
    /// The number of the template of `task`, and the template itself where it is new. Templates are told apart by where they
    /// lie: equal ones are shared, and the tasks that were asked for keep theirs alive.
    pub(crate) fn of(&mut self, task: &Task) -> (usize, Option<Template>) {
        let key = (
            Arc::as_ptr(&task.spec).addr(),
            Arc::as_ptr(&task.annotations).addr(),
            task.endpoint.as_ref().map(|endpoint| Arc::as_ptr(endpoint).addr()),
            task.registry_auth.as_ref().map(|auth| Arc::as_ptr(auth).addr()),
        );
        let next = self.0.len();
        let number = *self.0.entry(key).or_insert(next);
        let template = (number == next).then(|| Template {
            annotations: task.annotations.clone(),
            spec: task.spec.clone(),
            endpoint: task.endpoint.clone(),
            registry_auth: task.registry_auth.clone(),
        });
        (number, template)
    }
}

// === impl Decoder ===

impl Decoder {
    /// Takes the next piece.
    ///
    /// # Errors
    /// The piece holds something that is not a snapshot's.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        let mut piece = piece;
        while let Some(end) = piece.iter().position(|b| *b == b'\n') {
            let (line, after) = (&piece[..end], &piece[end + 1..]);
            if self.rest.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
            piece = after;
        }
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    /// The snapshot, once all pieces were taken.
    ///
    /// # Errors
    /// The last piece is missing.
    pub fn finish(self) -> Result<Snapshot, DecodeError> {
        if self.ended && self.rest.is_empty() { Ok(self.state) } else { Err(DecodeError::Truncated(self.rows)) }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), DecodeError> {
        let row = serde_json::from_slice(line).map_err(|source| DecodeError::Row { line: self.rows + 1, source })?;
        let misplaced = Err(DecodeError::Order(self.rows + 1));
        match row {
            Row::Head { format, .. } if format != FORMAT => return Err(DecodeError::Format(format)),
            Row::Head { index, .. } if self.rows == 0 => self.state.set_index(index),
            _ if self.rows == 0 || self.ended => return misplaced,
            Row::Head { .. } => return misplaced,
            Row::Cluster(cluster) => drop(self.state.put_cluster(cluster)),
            Row::Node(node) => drop(self.state.put_node(node)),
            Row::Service(service) => drop(self.state.put_service(service)),
            Row::Secret(secret) => drop(self.state.secrets.put(secret)),
            Row::Config(config) => drop(self.state.configs.put(config)),
            Row::Template(template) => self.templates.push(template),
            Row::Task(row) => {
                let Some(task) = row.with(&self.templates) else { return misplaced };
                self.state.put_task(Arc::new(task));
            }
            Row::Settled(settled) => {
                self.state.settled.put(&settled);
            }
            Row::End { rows } if rows == self.rows => self.ended = true,
            Row::End { .. } => return Err(DecodeError::Truncated(self.rows)),
        }
        self.rows += 1;
        Ok(())
    }
}

// === impl TaskRow ===

impl TaskRow {
    /// `task`, whose template has this number.
    pub(crate) fn new(task: &Task, template: usize) -> Self {
        Self {
            id: task.id,
            meta: task.meta,
            service_id: task.service_id,
            slot: task.slot,
            node_id: task.node_id,
            template,
            spec_version: task.spec_version,
            status: task.status.clone(),
            desired_state: task.desired_state,
            job_iteration: task.job_iteration,
            assigned_generic: task.assigned_generic.clone(),
        }
    }

    /// The task, if its template is there.
    pub(crate) fn with(self, templates: &[Template]) -> Option<Task> {
        let Template { annotations, spec, endpoint, registry_auth } = templates.get(self.template)?.clone();
        Some(Task {
            id: self.id,
            meta: self.meta,
            service_id: self.service_id,
            slot: self.slot,
            node_id: self.node_id,
            annotations,
            spec,
            spec_version: self.spec_version,
            endpoint,
            registry_auth,
            status: self.status,
            desired_state: self.desired_state,
            job_iteration: self.job_iteration,
            assigned_generic: self.assigned_generic,
        })
    }
}
