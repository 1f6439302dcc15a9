//! Log lines of services and tasks, from wherever their containers run (swarm-semantics 12).

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use shoal_manager::LogStream;
use shoal_manager::control::Control;
use shoal_types::spec::TaskSpec;
use shoal_types::{TaskId, View};
use shoal_wire::logs::{LogLine, LogOptions};

use crate::error::Answer;
use crate::lines::{self, Style};
use crate::query::Query;
use crate::state::Api;
use crate::stream::{Channel, content_type, streamed};

/// `GET /services/{id}/logs`
pub(super) async fn of_service(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    let control = api.node.control()?;
    let service = control.get_service(&id)?;
    let options = options(&query)?;
    let lines = control.service_logs(service.id, options).await?;
    Ok(answer(control, &query, &service.spec.task_template, lines))
}

/// `GET /tasks/{id}/logs`
pub(super) async fn of_task(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer {
    let control = api.node.control()?;
    let task = control.get_task(&id)?;
    let options = options(&query)?;
    let lines = control.task_logs(task.id, options).await?;
    Ok(answer(control, &query, &task.spec, lines))
}

fn options(query: &Query) -> Answer<LogOptions> {
    Ok(LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        tail: lines::service_tail(query)?,
        since: lines::time(query, "since")?,
    })
}

fn answer(control: Control, query: &Query, spec: &TaskSpec, lines: LogStream) -> Response {
    let tty = spec.container_spec.as_ref().is_some_and(|c| c.tty);
    let style = Style { timestamps: query.flag("timestamps"), details: query.flag("details"), tty };
    let bytes = stream::unfold((control, lines), move |(control, mut lines)| async move {
        let piece = match lines.next().await? {
            Ok(line) => written(&control, style, line),
            Err(end) => style.error(&end.to_string()),
        };
        Some((piece, (control, lines)))
    });
    streamed(content_type(tty), bytes)
}

fn written(control: &Control, style: Style, line: LogLine) -> Bytes {
    let channel = if line.stderr { Channel::Stderr } else { Channel::Stdout };
    let mut attrs: BTreeMap<String, String> = line.attrs;
    for (kind, id) in
        [("node", node_of(control, line.task)), ("service", line.service.to_string()), ("task", line.task.to_string())]
    {
        attrs.insert(format!("com.docker.swarm.{kind}.id"), id);
    }
    style.line(channel, line.time, &attrs, &line.data)
}

fn node_of(control: &Control, task: TaskId) -> String {
    let view = control.snapshot();
    view.task(task).and_then(|t| t.node_id).map(|n| n.to_string()).unwrap_or_default()
}
