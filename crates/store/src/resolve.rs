//! Finding the object that a user means (swarm-semantics 1.2): its whole identifier, else its exact name, else the
//! start of its identifier where only one fits.

use std::sync::Arc;

use shoal_types::name::task_name;
use shoal_types::{Node, Payload, PayloadKind, Refusal, RefusalKind, Service, Task, View};

/// The service that `input` means.
///
/// # Errors
/// `service … not found` (404) or `service … is ambiguous (… matches found)` (400).
pub fn service<'a>(view: &'a dyn View, input: &str) -> Result<&'a Arc<Service>, Refusal> {
    if let Some(found) = input.parse().ok().and_then(|id| view.service(id)) {
        return Ok(found);
    }
    if let Some(found) = view.service_named(input).filter(|s| s.spec.name == input) {
        return Ok(found);
    }
    only("service", input, with_prefix(view.services(), input, |s| s.id.as_str()))
}

/// The secret or config that `input` means.
///
/// # Errors
/// `secret … not found` (404) or `secret … is ambiguous (… matches found)` (400).
pub fn payload<'a, K: PayloadKind>(view: &'a dyn View, input: &str) -> Result<&'a Arc<Payload<K>>, Refusal> {
    if let Some(found) = input.parse().ok().and_then(|id| K::get(view, id)) {
        return Ok(found);
    }
    if let Some(found) = K::named(view, input).filter(|p| p.spec.name == input) {
        return Ok(found);
    }
    only(K::NAME, input, with_prefix(K::all(view), input, |p| p.id.as_str()))
}

/// The node that `input` means; its name is its host name.
///
/// # Errors
/// `node … not found` (404) or `node … is ambiguous (… matches found)` (400).
pub fn node<'a>(view: &'a dyn View, input: &str) -> Result<&'a Arc<Node>, Refusal> {
    if let Some(found) = input.parse().ok().and_then(|id| view.node(id)) {
        return Ok(found);
    }
    let hostname = |n: &Node| n.description.as_ref().is_some_and(|d| d.hostname == input);
    let named: Vec<_> = view.nodes().filter(|n| !input.is_empty() && hostname(n)).collect();
    if !named.is_empty() {
        return only("node", input, named);
    }
    only("node", input, with_prefix(view.nodes(), input, |n| n.id.as_str()))
}

/// The task that `input` means; its name is `<service>.<slot>.<task id>`.
///
/// # Errors
/// `task … not found` (404) or `task … is ambiguous (… matches found)` (400).
pub fn task<'a>(view: &'a dyn View, input: &str) -> Result<&'a Arc<Task>, Refusal> {
    // the name ends in the identifier, so one look-up serves for both
    let (name, id) = input.rsplit_once('.').map_or((None, input), |(_, id)| (Some(input), id));
    if let Some(found) = id.parse().ok().and_then(|id| view.task(id))
        && name.is_none_or(|name| task_name(found) == name)
    {
        return Ok(found);
    }
    only("task", input, with_prefix(view.tasks(), input, |t| t.id.as_str()))
}

/// Of a list in the order of identifiers, those whose identifier starts with `prefix`.
fn with_prefix<'a, T>(all: impl Iterator<Item = &'a Arc<T>>, prefix: &str, id: impl Fn(&T) -> &str) -> Vec<&'a Arc<T>> {
    if prefix.is_empty() {
        return Vec::new();
    }
    all.skip_while(|o| id(o) < prefix).take_while(|o| id(o).starts_with(prefix)).collect()
}

fn only<'a, T>(kind: &str, input: &str, found: Vec<&'a Arc<T>>) -> Result<&'a Arc<T>, Refusal> {
    match found[..] {
        [one] => Ok(one),
        [] => Err(Refusal::engine(RefusalKind::NotFound, format!("{kind} {input} not found"))),
        _ => Err(Refusal::engine(
            RefusalKind::InvalidArgument,
            format!("{kind} {input} is ambiguous ({} matches found)", found.len()),
        )),
    }
}
