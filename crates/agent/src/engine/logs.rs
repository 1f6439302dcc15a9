//! The output of a task's container, for `service logs`.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, empty};
use shoal_engine::{Engine, ErrorKind, LogsOptions, StdStream};
use shoal_lifecycle::Failure;
use shoal_types::{Task, name};
use shoal_wire::logs::{LogLine, LogOptions};

pub(super) async fn read(
    engine: &Arc<Engine>,
    task: &Task,
    options: LogOptions,
) -> Result<BoxStream<'static, LogLine>, Failure> {
    let options = LogsOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        follow: options.follow,
        tail: options.tail,
        since: options.since,
        until: None,
    };
    let lines = match engine.logs(&name::task_name(task), options).await {
        Ok(lines) => lines,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(empty().boxed()),
        Err(error) => return Err(Failure::Final(error.to_string())),
    };
    let (service, task) = (task.service_id, task.id);
    let carried = lines.filter_map(move |line| async move {
        let line = line.ok()?;
        Some(LogLine {
            service,
            task,
            time: line.time,
            stderr: line.stream == StdStream::Stderr,
            data: line.line.to_vec(),
            attrs: line.attrs,
        })
    });
    Ok(carried.boxed())
}
