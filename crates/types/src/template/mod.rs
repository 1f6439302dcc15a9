//! Templates in service specs: `{{.Task.Slot}}` and the like in environment values, host name, mounts and volume
//! options, and in the content of secrets and configs (swarm-semantics 11). The part of Go's text/template that makes sense in one line: fields, `index`,
//! `join`, `print`, `len`, comparisons, pipes, parentheses, `if`. Anything else is an error that names it.

mod eval;
mod parse;

use crate::name::task_name;
use crate::object::{NodeDescription, Platform};
use crate::spec::{ContainerSpec, Labels, Mount, ServiceSpec};
use crate::{NodeId, Task};

pub use eval::EvalError;
pub use parse::ParseError;

/// What a template may speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    service_id: String,
    service_name: String,
    service_labels: Labels,
    node_id: String,
    hostname: String,
    platform: Platform,
    task_id: String,
    task_name: String,
    slot: String,
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not a template.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It speaks of something that is not there.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// Which part of a container spec cannot be expanded. Docker's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// An environment value.
    #[error("expanding env failed: {0}")]
    Env(TemplateError),
    /// A mount.
    #[error("expanding mounts failed: {0}")]
    Mounts(TemplateError),
    /// The host name.
    #[error("expanding hostname failed: {0}")]
    Hostname(TemplateError),
}

/// `text` with its templates replaced.
///
/// # Errors
/// It is not a template, or speaks of something that is not there.
pub fn expand_text(text: &str, context: &Context) -> Result<String, TemplateError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    Ok(eval::render(&parse::parse(text)?, context, None)?)
}

/// What the content of a secret or config may speak of besides the context: only what its own task has.
pub trait Lookup {
    /// The secret that the task has at that target.
    ///
    /// # Errors
    /// Why there is none.
    fn secret(&self, target: &str) -> Result<String, String>;
    /// The config that the task has at that target.
    ///
    /// # Errors
    /// Why there is none.
    fn config(&self, target: &str) -> Result<String, String>;
    /// The value of an environment variable of the task; empty where there is none.
    fn env(&self, name: &str) -> String;
}

/// The content of a secret or config with its templates replaced.
///
/// # Errors
/// It is not a template, or speaks of something that is not there.
pub fn expand_payload(text: &str, context: &Context, lookup: &dyn Lookup) -> Result<String, TemplateError> {
    Ok(eval::render(&parse::parse(text)?, context, Some(lookup))?)
}

/// `spec` with the templates in it replaced.
///
/// # Errors
/// The first that cannot be.
pub fn expand(spec: &ContainerSpec, context: &Context) -> Result<ContainerSpec, ExpandError> {
    let mut spec = spec.clone();
    for entry in &mut spec.env {
        if let Some((name, value)) = entry.split_once('=') {
            *entry = format!("{name}={}", expand_text(value, context).map_err(ExpandError::Env)?);
        }
    }
    for mount in &mut spec.mounts {
        expand_mount(mount, context).map_err(ExpandError::Mounts)?;
    }
    spec.hostname = expand_text(&spec.hostname, context).map_err(ExpandError::Hostname)?;
    Ok(spec)
}

fn expand_mount(mount: &mut Mount, context: &Context) -> Result<(), TemplateError> {
    mount.source = expand_text(&mount.source, context)?;
    mount.target = expand_text(&mount.target, context)?;
    if let Some(options) = &mut mount.volume_options {
        let driver = options.driver_config.as_mut().map(|d| &mut d.options);
        for value in options.labels.values_mut().chain(driver.into_iter().flat_map(|o| o.values_mut())) {
            *value = expand_text(value, context)?;
        }
    }
    Ok(())
}

// === impl Context ===

impl Context {
    /// Of a task on its node.
    pub fn of(task: &Task, node: NodeId, description: &NodeDescription) -> Self {
        Self {
            service_id: task.service_id.to_string(),
            service_name: task.annotations.name.clone(),
            service_labels: task.annotations.labels.clone(),
            node_id: node.to_string(),
            hostname: description.hostname.clone(),
            platform: description.platform.clone(),
            task_id: task.id.to_string(),
            task_name: task_name(task),
            slot: if task.slot == 0 { node.to_string() } else { task.slot.to_string() },
        }
    }

    /// Of a task that does not exist yet, to see whether the templates of `spec` can be expanded at all.
    pub fn sample(spec: &ServiceSpec) -> Self {
        Self {
            service_id: "serviceID".into(),
            service_name: spec.name.clone(),
            service_labels: spec.labels.clone(),
            node_id: "nodeID".into(),
            hostname: "nodeHostname".into(),
            platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
            task_id: "taskID".into(),
            task_name: format!("{}.1.taskID", spec.name),
            slot: "1".into(),
        }
    }
}

#[cfg(test)]
mod tests;
