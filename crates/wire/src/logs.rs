//! Log lines of tasks on their way to a client.

use std::collections::BTreeMap;

use shoal_types::{ServiceId, TaskId, Timestamp};

use crate::body::id;
use crate::{PART, WireError, proto};

/// Which lines a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Goes on with new lines and new tasks until closed.
    pub follow: bool,
    /// The last lines of each task; absent: all.
    pub tail: Option<u64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
}

/// Whose lines a client wants: those of the services and those of the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSelector {
    /// All their tasks.
    pub services: Vec<ServiceId>,
    /// Single tasks.
    pub tasks: Vec<TaskId>,
}

/// What an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// Publish these lines. May come again after a reconnect; the same `id` is the same subscription.
    Open {
        /// Names it.
        id: String,
        /// Whose lines.
        selector: LogSelector,
        /// Which lines.
        options: LogOptions,
    },
    /// Stop publishing.
    Close {
        /// Names it.
        id: String,
    },
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The task's service.
    pub service: ServiceId,
    /// The task.
    pub task: TaskId,
    /// When it was written.
    pub time: Timestamp,
    /// Standard error, else standard output.
    pub stderr: bool,
    /// As written, with its end.
    pub data: Vec<u8>,
    /// What the log driver was told to add.
    pub attrs: BTreeMap<String, String>,
}

/// Lines in one message, at most; of long lines, fewer.
pub const LINES: usize = 256;

/// `lines` in messages that can be sent.
pub fn batches(lines: Vec<proto::LogLine>) -> Vec<Vec<proto::LogLine>> {
    let (mut batches, mut size) = (Vec::<Vec<_>>::new(), usize::MAX);
    for line in lines {
        let add = prost::Message::encoded_len(&line);
        if size.saturating_add(add) > PART || batches.last().is_some_and(|batch| batch.len() >= LINES) {
            batches.push(Vec::new());
            size = 0;
        }
        size += add;
        batches.last_mut().expect("the first line begins one").push(line);
    }
    batches
}

impl From<Subscription> for proto::Subscription {
    fn from(subscription: Subscription) -> Self {
        match subscription {
            Subscription::Open { id, selector, options } => Self {
                id,
                close: false,
                service_ids: selector.services.iter().map(ToString::to_string).collect(),
                task_ids: selector.tasks.iter().map(ToString::to_string).collect(),
                options: Some(options.into()),
            },
            Subscription::Close { id } => Self { id, close: true, ..Self::default() },
        }
    }
}

impl TryFrom<proto::Subscription> for Subscription {
    type Error = WireError;

    fn try_from(message: proto::Subscription) -> Result<Self, WireError> {
        if message.close {
            return Ok(Self::Close { id: message.id });
        }
        let options = message.options.ok_or(WireError::Missing { what: "the options of a subscription" })?;
        let selector = selector(&message.service_ids, &message.task_ids)?;
        Ok(Self::Open { id: message.id, selector, options: options.try_into()? })
    }
}

impl LogSelector {
    /// As another manager asks for it.
    pub fn request(&self, options: &LogOptions) -> proto::SubscribeLogsRequest {
        proto::SubscribeLogsRequest {
            service_ids: self.services.iter().map(ToString::to_string).collect(),
            task_ids: self.tasks.iter().map(ToString::to_string).collect(),
            options: Some(options.clone().into()),
        }
    }
}

impl TryFrom<proto::SubscribeLogsRequest> for (LogSelector, LogOptions) {
    type Error = WireError;

    fn try_from(request: proto::SubscribeLogsRequest) -> Result<Self, WireError> {
        let options = request.options.ok_or(WireError::Missing { what: "the options of a subscription" })?;
        Ok((selector(&request.service_ids, &request.task_ids)?, options.try_into()?))
    }
}

fn selector(services: &[String], tasks: &[String]) -> Result<LogSelector, WireError> {
    Ok(LogSelector {
        services: services.iter().map(|text| id("service", text)).collect::<Result<_, _>>()?,
        tasks: tasks.iter().map(|text| id("task", text)).collect::<Result<_, _>>()?,
    })
}

impl From<LogOptions> for proto::LogOptions {
    fn from(options: LogOptions) -> Self {
        Self {
            stdout: options.stdout,
            stderr: options.stderr,
            follow: options.follow,
            tail: options.tail,
            since: options.since.map(nanos),
        }
    }
}

impl TryFrom<proto::LogOptions> for LogOptions {
    type Error = WireError;

    fn try_from(options: proto::LogOptions) -> Result<Self, WireError> {
        Ok(Self {
            stdout: options.stdout,
            stderr: options.stderr,
            follow: options.follow,
            tail: options.tail,
            since: options.since.map(time).transpose()?,
        })
    }
}

impl From<LogLine> for proto::LogLine {
    fn from(line: LogLine) -> Self {
        use proto::log_line::Stream;
        Self {
            service_id: line.service.to_string(),
            task_id: line.task.to_string(),
            time: nanos(line.time),
            stream: if line.stderr { Stream::Stderr } else { Stream::Stdout }.into(),
            data: line.data,
            attrs: line.attrs.into_iter().collect(),
        }
    }
}

impl TryFrom<proto::LogLine> for LogLine {
    type Error = WireError;

    fn try_from(line: proto::LogLine) -> Result<Self, WireError> {
        Ok(Self {
            service: id("service", &line.service_id)?,
            task: id("task", &line.task_id)?,
            time: time(line.time)?,
            stderr: line.stream() == proto::log_line::Stream::Stderr,
            data: line.data,
            attrs: line.attrs.into_iter().collect(),
        })
    }
}

/// Nanoseconds since 1970; at the ends of what 64 bits can say (1677 and 2262), the end.
fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn time(nanos: i64) -> Result<Timestamp, WireError> {
    Timestamp::from_nanosecond(nanos.into()).map_err(|_| WireError::Range { what: "a time of", value: nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_survive_the_way() {
        let options =
            LogOptions { stdout: true, tail: Some(0), since: Some(Timestamp::UNIX_EPOCH), ..Default::default() };
        let selector = LogSelector { services: vec!["a".repeat(25).parse().unwrap()], tasks: Vec::new() };
        for sub in [Subscription::Open { id: "x".into(), selector, options }, Subscription::Close { id: "x".into() }] {
            assert_eq!(Subscription::try_from(proto::Subscription::from(sub.clone())).unwrap(), sub);
        }
    }

    #[test]
    fn long_lines_are_cut_into_messages_that_fit_and_none_is_lost() {
        let line = |len: usize| proto::LogLine { data: vec![0; len], ..Default::default() };
        let long = batches((0..10).map(|_| line(PART / 2 + 1)).collect());
        assert_eq!(long.iter().map(Vec::len).collect::<Vec<_>>(), [1; 10]);
        let short = batches((0..LINES + 1).map(|_| line(1)).collect());
        assert_eq!(short.iter().map(Vec::len).collect::<Vec<_>>(), [LINES, 1]);
        assert!(batches(Vec::new()).is_empty());
    }

    #[test]
    fn a_line_keeps_its_bytes_time_and_stream() {
        let line = LogLine {
            service: "a".repeat(25).parse().unwrap(),
            task: "b".repeat(25).parse().unwrap(),
            time: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
            stderr: true,
            data: b"\xff\x00\n".to_vec(),
            attrs: [("k".to_owned(), "v".to_owned())].into(),
        };
        assert_eq!(LogLine::try_from(proto::LogLine::from(line.clone())).unwrap(), line);
    }
}
