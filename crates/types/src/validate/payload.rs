//! Secrets, configs, and what services say of them (swarm-semantics 1.3, 1.5, 11).

use std::collections::BTreeMap;

use super::{Refusal, RefusalKind};
use crate::View;
use crate::id::{ConfigKind, SecretKind};
use crate::payload::{Payload, PayloadKind};
use crate::spec::{ContainerSpec, FileTarget, PayloadSpec, ServiceSpec};

/// Whether a secret or config may be made from `spec`.
///
/// # Errors
/// The first rule that it breaks; then what Shoal does not have.
pub fn payload<K: PayloadKind>(spec: &PayloadSpec) -> Result<(), Refusal> {
    payload_name(&spec.name)?;
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => {
            return Err(Refusal::invalid(format!("{} driver must have a name", K::NAME)));
        }
        Some(_) => return Err(Refusal::unsupported(format!("a driver of a {}", K::NAME))),
        None if spec.data.is_empty() || spec.data.len() >= K::LIMIT => {
            let text = format!("{} data must be larger than 0 and less than {} bytes", K::NAME, K::LIMIT);
            return Err(Refusal::invalid(text));
        }
        None => {}
    }
    match &spec.templating {
        Some(templating) if !templating.options.is_empty() => {
            Err(Refusal::unsupported("an option of a template driver"))
        }
        _ => Ok(()),
    }
}

/// `before` with what a client may change of it: the labels. What the client leaves out stays.
///
/// # Errors
/// Anything else would change.
pub fn payload_update(before: &PayloadSpec, wanted: PayloadSpec) -> Result<PayloadSpec, Refusal> {
    let same = wanted.name == before.name
        && (wanted.data.is_empty() || wanted.data == before.data)
        && (wanted.driver.is_none() || wanted.driver == before.driver)
        && (wanted.templating.is_none() || wanted.templating == before.templating);
    if !same {
        return Err(Refusal::invalid("only updates to Labels are allowed"));
    }
    Ok(PayloadSpec { labels: wanted.labels, ..before.clone() })
}

/// Whether `payload` may be removed: no service wants it now.
///
/// # Errors
/// Some do; they are named.
pub fn payload_removal<K: PayloadKind>(view: &dyn View, payload: &Payload<K>) -> Result<(), Refusal> {
    let wants = |spec: &ServiceSpec| {
        let container = spec.task_template.container_spec.as_ref();
        container.is_some_and(|c| K::references(c).iter().any(|r| r.id == payload.id.as_str()))
    };
    let users: Vec<_> = view.services().filter(|s| wants(&s.spec)).map(|s| &*s.spec.name).collect();
    let services = match users.len() {
        0 => return Ok(()),
        1 => "service",
        _ => "services",
    };
    let (kind, name, users) = (K::NAME, &payload.spec.name, users.join(", "));
    Err(Refusal::invalid(format!("{kind} '{name}' is in use by the following {services}: {users}")))
}

/// Whether the secrets and configs that `spec` names are there, under these names.
///
/// # Errors
/// Some are not; they are named.
pub fn references_exist(view: &dyn View, spec: &ServiceSpec) -> Result<(), Refusal> {
    let Some(container) = &spec.task_template.container_spec else { return Ok(()) };
    all_exist::<SecretKind>(view, container)?;
    all_exist::<ConfigKind>(view, container)
}

fn all_exist<K: PayloadKind>(view: &dyn View, container: &ContainerSpec) -> Result<(), Refusal> {
    let found = |id: &str| id.parse().ok().and_then(|id| K::get(view, id));
    let references = K::references(container);
    let missing: Vec<_> =
        references.iter().filter(|r| found(r.id).is_none_or(|p| p.spec.name != r.name)).map(|r| r.name).collect();
    let plural = match missing.len() {
        0 => return Ok(()),
        1 => "",
        _ => "s",
    };
    Err(Refusal::invalid(format!("{}{plural} not found: {}", K::NAME, missing.join(", "))))
}

/// What the engine refuses of a container's references before it asks the manager.
pub(super) fn engine_rules(container: &ContainerSpec) -> Result<(), Refusal> {
    for config in &container.configs {
        let wrong = match (&config.file, &config.runtime) {
            (None, None) => "either File or Runtime should be set",
            (Some(_), Some(_)) => "cannot specify both File and Runtime",
            _ => continue,
        };
        return Err(Refusal::engine(RefusalKind::InvalidArgument, format!("invalid Config: {wrong}")));
    }
    Ok(())
}

/// Whether the references of a container are well-formed.
pub(super) fn references(container: &ContainerSpec) -> Result<(), Refusal> {
    well_formed::<SecretKind>(container, &[])?;
    let runtime: Vec<_> = container.configs.iter().map(|c| c.runtime.is_some()).collect();
    well_formed::<ConfigKind>(container, &runtime)
}

/// `without_file`: for each reference, whether it needs none.
fn well_formed<K: PayloadKind>(container: &ContainerSpec, without_file: &[bool]) -> Result<(), Refusal> {
    let kind = K::NAME;
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for (at, reference) in K::references(container).into_iter().enumerate() {
        if reference.id.is_empty() || reference.name.is_empty() {
            return Err(Refusal::invalid(format!("malformed {kind} reference")));
        }
        let Some(file) = reference.file else {
            if without_file.get(at) == Some(&true) {
                continue;
            }
            return Err(Refusal::invalid(format!("malformed {kind} reference, no target provided")));
        };
        if file.name.is_empty() {
            let text = format!("malformed file {kind} reference, invalid target file name provided");
            return Err(Refusal::invalid(text));
        }
        if let Some(other) = targets.insert(&file.name, reference.name) {
            let (name, target) = (reference.name, &file.name);
            let text = format!("{kind} references '{other}' and '{name}' have a conflicting target: '{target}'");
            return Err(Refusal::invalid(text));
        }
        owner(kind, reference.name, file)?;
    }
    Ok(())
}

/// Docker takes any text, and the task fails.
fn owner(kind: &str, name: &str, file: &FileTarget) -> Result<(), Refusal> {
    for (what, text) in [("uid", &file.uid), ("gid", &file.gid)] {
        if !text.is_empty() && text.parse::<u32>().is_err() {
            let text = format!("malformed file {kind} reference '{name}', the {what} {text:?} is not a number");
            return Err(Refusal::invalid(text));
        }
    }
    Ok(())
}

fn payload_name(name: &str) -> Result<(), Refusal> {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if name.is_empty() {
        Err(Refusal::invalid("name must be provided"))
    } else if name.len() > 64 || !inner || !edge(name.bytes().next()) || !edge(name.bytes().last()) {
        Err(Refusal::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, \
             and the start and end character must be [a-zA-Z0-9]",
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
