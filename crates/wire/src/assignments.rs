//! What a node is to run: cut into messages on one side, put together again on the other.

use std::sync::Arc;

use shoal_types::{Config, ConfigId, Secret, SecretId, Task, TaskId};

use crate::body::{decode, encode, id};
use crate::proto::assignments_message::Kind;
use crate::{PART, WireError, proto};

/// One change of what a node has.
#[derive(Debug, Clone, PartialEq)]
pub enum Assigned {
    /// Add or replace the task.
    Task(Box<Task>),
    /// Forget the task and what is left of it.
    RemoveTask(TaskId),
    /// Have the secret at hand, in memory only: tasks that follow use it.
    Secret(Arc<Secret>),
    /// Forget the secret.
    RemoveSecret(SecretId),
    /// Have the config at hand, in memory only: tasks that follow use it.
    Config(Arc<Config>),
    /// Forget the config.
    RemoveConfig(ConfigId),
}

/// A whole step: everything at the beginning of a stream, then what changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignments {
    /// Replaces all that came before; else changes it.
    pub complete: bool,
    /// In the leader's order.
    pub changes: Vec<Assigned>,
}

/// Numbers the steps of one stream and cuts them into messages of a size that can be sent.
#[derive(Debug, Default)]
pub struct Sender {
    state: u64,
}

/// Puts the messages of one stream together again.
#[derive(Debug, Default)]
pub struct Receiver {
    state: u64,
    partial: Option<(u64, Assignments)>,
}

// === impl Sender ===

impl Sender {
    /// The messages that say `step`.
    ///
    /// # Errors
    /// [`WireError::Encode`] where a task has no serde form.
    pub fn messages(&mut self, step: &Assignments) -> Result<Vec<proto::AssignmentsMessage>, WireError> {
        let kind = if step.complete { Kind::Complete } else { Kind::Incremental };
        let (applies_to, results_in) = (self.state, self.state + 1);
        let blank = || proto::AssignmentsMessage {
            kind: kind.into(),
            applies_to,
            results_in,
            changes: Vec::new(),
            more: false,
        };
        let (mut parts, mut size) = (vec![blank()], 0);
        for change in &step.changes {
            let change = to_proto(change)?;
            let add = prost::Message::encoded_len(&change);
            if size > 0 && size + add > PART {
                parts.last_mut().expect("it begins with one").more = true;
                parts.push(blank());
                size = 0;
            }
            size += add;
            parts.last_mut().expect("it begins with one").changes.push(change);
        }
        self.state = results_in;
        Ok(parts)
    }
}

// === impl Receiver ===

impl Receiver {
    /// Takes one message; gives the step once it is whole.
    ///
    /// # Errors
    /// [`WireError::Gap`] where a message is missing: open the stream anew. Others where it cannot be read.
    pub fn take(&mut self, message: proto::AssignmentsMessage) -> Result<Option<Assignments>, WireError> {
        let complete = message.kind() == Kind::Complete;
        if message.applies_to != self.state && !complete {
            return Err(WireError::Gap { have: self.state, got: message.applies_to });
        }
        let (results_in, mut step) =
            self.partial.take().unwrap_or_else(|| (message.results_in, Assignments { complete, changes: Vec::new() }));
        if results_in != message.results_in || step.complete != complete {
            return Err(WireError::Gap { have: self.state, got: message.applies_to });
        }
        for change in message.changes {
            step.changes.push(from_proto(change)?);
        }
        if message.more {
            self.partial = Some((results_in, step));
            return Ok(None);
        }
        self.state = results_in;
        Ok(Some(step))
    }
}

fn to_proto(change: &Assigned) -> Result<proto::AssignmentChange, WireError> {
    use proto::assignment_change::Change;
    let change = match change {
        Assigned::Task(task) => Change::UpdateTaskJson(encode("a task", task)?),
        Assigned::RemoveTask(id) => Change::RemoveTask(id.to_string()),
        Assigned::Secret(secret) => Change::UpdateSecretJson(encode("a secret", secret)?),
        Assigned::RemoveSecret(id) => Change::RemoveSecret(id.to_string()),
        Assigned::Config(config) => Change::UpdateConfigJson(encode("a config", config)?),
        Assigned::RemoveConfig(id) => Change::RemoveConfig(id.to_string()),
    };
    Ok(proto::AssignmentChange { change: Some(change) })
}

fn from_proto(change: proto::AssignmentChange) -> Result<Assigned, WireError> {
    use proto::assignment_change::Change;
    match change.change {
        Some(Change::UpdateTaskJson(bytes)) => Ok(Assigned::Task(Box::new(decode("a task", &bytes)?))),
        Some(Change::RemoveTask(text)) => Ok(Assigned::RemoveTask(id("task", &text)?)),
        Some(Change::UpdateSecretJson(bytes)) => Ok(Assigned::Secret(Arc::new(decode("a secret", &bytes)?))),
        Some(Change::RemoveSecret(text)) => Ok(Assigned::RemoveSecret(id("secret", &text)?)),
        Some(Change::UpdateConfigJson(bytes)) => Ok(Assigned::Config(Arc::new(decode("a config", &bytes)?))),
        Some(Change::RemoveConfig(text)) => Ok(Assigned::RemoveConfig(id("config", &text)?)),
        None => Err(WireError::Missing { what: "the change of an assignment" }),
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::spec::{Annotations, ContainerSpec, PayloadSpec, TaskSpec};
    use shoal_types::{IdSource, Meta, TaskState};

    use super::*;

    struct Count(u8);
    impl IdSource for Count {
        fn random(&mut self) -> [u8; 17] {
            self.0 += 1;
            [self.0; 17]
        }
    }

    fn task(ids: &mut Count, bytes: usize) -> Assigned {
        let container = ContainerSpec { image: "x".repeat(bytes), ..ContainerSpec::default() };
        Assigned::Task(Box::new(Task {
            id: TaskId::new(ids),
            meta: Meta::default(),
            service_id: shoal_types::ServiceId::new(ids),
            slot: 1,
            node_id: None,
            annotations: Arc::new(Annotations::default()),
            spec: Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() }),
            spec_version: 3,
            endpoint: None,
            registry_auth: Some("secret".into()),
            status: Default::default(),
            desired_state: TaskState::Running,
            job_iteration: None,
            assigned_generic: Vec::new(),
        }))
    }

    fn pass(sender: &mut Sender, receiver: &mut Receiver, step: &Assignments) -> (usize, Assignments) {
        let messages = sender.messages(step).unwrap();
        let count = messages.len();
        let mut got: Vec<_> = messages.into_iter().filter_map(|m| receiver.take(m).unwrap()).collect();
        assert_eq!(got.len(), 1, "the parts take effect together");
        (count, got.remove(0))
    }

    #[test]
    fn steps_survive_the_way_whole_and_in_order() {
        let ids = &mut Count(0);
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        let first = Assignments { complete: true, changes: vec![task(ids, 1), task(ids, 1)] };
        let mut changes = vec![Assigned::RemoveTask(TaskId::new(ids))];
        let spec = Arc::new(PayloadSpec { data: vec![0, 255].into(), ..PayloadSpec::default() });
        let secret = Secret { id: SecretId::new(ids), meta: Meta::default(), spec: spec.clone() };
        let config = Config { id: ConfigId::new(ids), meta: Meta::default(), spec };
        changes.extend([Assigned::RemoveSecret(secret.id), Assigned::RemoveConfig(config.id)]);
        changes.extend([Assigned::Secret(Arc::new(secret)), Assigned::Config(Arc::new(config))]);
        let second = Assignments { complete: false, changes };
        for step in [first, second, Assignments { complete: false, changes: Vec::new() }] {
            assert_eq!(pass(&mut sender, &mut receiver, &step), (1, step));
        }
    }

    #[test]
    fn a_step_larger_than_a_message_comes_in_parts_that_fit() {
        let ids = &mut Count(0);
        let step = Assignments { complete: true, changes: (0..20).map(|_| task(ids, PART / 2 + 1)).collect() };
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        for message in Sender::default().messages(&step).unwrap() {
            assert!(prost::Message::encoded_len(&message) < crate::MAX_MESSAGE);
        }
        let (parts, got) = pass(&mut sender, &mut receiver, &step);
        assert_eq!(got, step);
        assert_eq!(parts, 20);
    }

    #[test]
    fn a_lost_message_is_noticed() {
        let ids = &mut Count(0);
        let step = |ids: &mut Count| Assignments { complete: false, changes: vec![task(ids, 1)] };
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        sender.messages(&step(ids)).unwrap();
        let late = sender.messages(&step(ids)).unwrap().remove(0);
        assert!(matches!(receiver.take(late), Err(WireError::Gap { have: 0, got: 1 })));
    }
}
