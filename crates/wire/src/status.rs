//! What became of tasks.

use shoal_types::TaskId;
use shoal_types::object::TaskStatus;

use crate::body::{decode, encode, id};
use crate::{WireError, proto};

/// The request that reports `statuses`.
///
/// # Errors
/// [`WireError::Encode`] where a status has no serde form.
pub fn request(
    session_id: &str,
    statuses: &[(TaskId, TaskStatus)],
) -> Result<proto::UpdateTaskStatusRequest, WireError> {
    let reports = statuses
        .iter()
        .map(|(task, status)| {
            let status_json = encode("the status of a task", status)?;
            Ok(proto::TaskReport { task_id: task.to_string(), status_json })
        })
        .collect::<Result<_, WireError>>()?;
    Ok(proto::UpdateTaskStatusRequest { session_id: session_id.to_owned(), reports })
}

/// The statuses in `reports`.
///
/// # Errors
/// [`WireError::Body`] or [`WireError::Id`] where one cannot be read.
pub fn reports(reports: &[proto::TaskReport]) -> Result<Vec<(TaskId, TaskStatus)>, WireError> {
    reports
        .iter()
        .map(|report| Ok((id("task", &report.task_id)?, decode("the status of a task", &report.status_json)?)))
        .collect()
}
