//! The secrets and configs that this node's tasks use: as the managers send them, in memory only, forgotten with the last
//! task. What a container gets of them is decided here, and put in its place by the executor.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::payload::{PayloadClass, PayloadKind};
use shoal_types::spec::{ContainerSpec, FileTarget, PayloadSpec, Reference};
use shoal_types::template::{Context, Lookup, TemplateError, expand_payload};
use shoal_types::{ConfigId, SecretId};
use shoal_wire::assignments::Assigned;
use tokio::sync::watch;

/// All that this node has. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Payloads(Arc<watch::Sender<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// A manager has said what there is: what is missing now does not exist.
    is_told: bool,
    secrets: BTreeMap<SecretId, Arc<PayloadSpec>>,
    configs: BTreeMap<ConfigId, Arc<PayloadSpec>>,
}

/// A secret or config that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which of the two.
    pub class: PayloadClass,
    /// Its identifier.
    pub id: String,
    /// Where the container wants it.
    pub file: FileTarget,
    /// The content, and how it is expanded.
    pub spec: Arc<PayloadSpec>,
}

/// A file of a container, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its absolute path in the container.
    pub path: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub data: Vec<u8>,
}

/// Why a container cannot have what it is to have. Docker's texts: they become the task's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It does not exist any more.
    #[error("unable to get {kind} from {kind} store: {kind} {id} not found")]
    Missing {
        /// `secret` or `config`.
        kind: &'static str,
        /// Its identifier.
        id: String,
    },
    /// Its content cannot be expanded.
    #[error("unable to get {kind} from {kind} store: failed to expand templated {kind} {id}: {reason}")]
    Template {
        /// `secret` or `config`.
        kind: &'static str,
        /// Its identifier.
        id: String,
        /// Why.
        reason: ExpandError,
    },
    /// Its owner is no number.
    #[error("the owner {0:?} of a file is not a number")]
    Owner(String),
}

/// Why a content cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// Only `golang` is.
    #[error("unrecognized template type")]
    Type,
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It is no template, or speaks of something that is not there.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

// === impl Payloads ===

impl Payloads {
    /// All that `container` is to have, in its order, secrets first. Waits until a manager has been heard: after a restart,
    /// this node has nothing.
    ///
    /// # Errors
    /// Something does not exist.
    pub async fn of(&self, container: &ContainerSpec) -> Result<Vec<Wanted>, PayloadError> {
        let mut known = self.0.subscribe();
        loop {
            {
                let known = known.borrow_and_update();
                match known.find(container) {
                    Err(_) if !known.is_told => {}
                    found => return found,
                }
            }
            known.changed().await.expect("the sender is ours");
        }
    }

    /// Takes over what a step of the assignment says of secrets and configs; `complete`: there is nothing else.
    pub(crate) fn apply(&self, complete: bool, changes: Vec<Assigned>) {
        if !complete && changes.is_empty() {
            return;
        }
        self.0.send_modify(|known| {
            if complete {
                *known = Known { is_told: true, ..Known::default() };
            }
            changes.into_iter().for_each(|change| known.note(change));
        });
    }
}

// === impl Known ===

impl Known {
    fn note(&mut self, change: Assigned) {
        match change {
            Assigned::Secret(secret) => drop(self.secrets.insert(secret.id, secret.spec.clone())),
            Assigned::RemoveSecret(id) => drop(self.secrets.remove(&id)),
            Assigned::Config(config) => drop(self.configs.insert(config.id, config.spec.clone())),
            Assigned::RemoveConfig(id) => drop(self.configs.remove(&id)),
            Assigned::Task(_) | Assigned::RemoveTask(_) => {}
        }
    }

    fn find(&self, container: &ContainerSpec) -> Result<Vec<Wanted>, PayloadError> {
        let secrets = SecretKind::references(container).into_iter().filter_map(|reference| {
            let spec = reference.id.parse().ok().and_then(|id| self.secrets.get(&id));
            wanted::<SecretKind>(reference, spec)
        });
        let configs = ConfigKind::references(container).into_iter().filter_map(|reference| {
            let spec = reference.id.parse().ok().and_then(|id| self.configs.get(&id));
            wanted::<ConfigKind>(reference, spec)
        });
        secrets.chain(configs).collect()
    }
}

/// Nothing where it is not wanted as a file.
fn wanted<K: PayloadKind>(
    reference: Reference<'_>,
    spec: Option<&Arc<PayloadSpec>>,
) -> Option<Result<Wanted, PayloadError>> {
    let (file, id) = (reference.file?.clone(), reference.id.to_owned());
    Some(match spec {
        Some(spec) => Ok(Wanted { class: K::CLASS, id, file, spec: spec.clone() }),
        None => Err(PayloadError::Missing { kind: K::NAME, id }),
    })
}

/// The files that `all` become in a container with `env` (expanded), on the task that `context` is of.
///
/// # Errors
/// A content cannot be expanded.
pub fn plan_files(all: &[Wanted], env: &[String], context: &Context) -> Result<Vec<PlannedFile>, PayloadError> {
    let own = Own { all, env };
    let file = |wanted: &Wanted| {
        let id = |text: &str| match text {
            "" => Ok(0),
            text => text.parse().map_err(|_| PayloadError::Owner(text.to_owned())),
        };
        let FileTarget { name, uid, gid, mode } = &wanted.file;
        let path =
            if name.starts_with('/') { name.clone() } else { format!("{}/{name}", wanted.dir().trim_end_matches('/')) };
        let (uid, gid, mode) = (id(uid)?, id(gid)?, *mode);
        let data = wanted.content(&own, context).map_err(|reason| PayloadError::Template {
            kind: wanted.kind(),
            id: wanted.id.clone(),
            reason,
        })?;
        Ok(PlannedFile { path, uid, gid, mode, data })
    };
    all.iter().map(file).collect()
}

// === impl Wanted ===

impl Wanted {
    fn kind(&self) -> &'static str {
        match self.class {
            PayloadClass::Secret => SecretKind::NAME,
            PayloadClass::Config => ConfigKind::NAME,
        }
    }

    fn dir(&self) -> &'static str {
        match self.class {
            PayloadClass::Secret => SecretKind::DIR,
            PayloadClass::Config => ConfigKind::DIR,
        }
    }

    fn content(&self, own: &Own<'_>, context: &Context) -> Result<Vec<u8>, ExpandError> {
        let data = self.spec.data.bytes();
        match self.spec.templating.as_ref().map(|t| &*t.name) {
            None | Some("") => Ok(data.to_vec()),
            Some("golang") => {
                let text = std::str::from_utf8(data).map_err(|_| ExpandError::NotText)?;
                Ok(expand_payload(text, context, own)?.into_bytes())
            }
            Some(_) => Err(ExpandError::Type),
        }
    }
}

impl std::fmt::Debug for PlannedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.data.len())
    }
}

/// What a template may look up: what its own task has, as it is stored.
struct Own<'a> {
    all: &'a [Wanted],
    env: &'a [String],
}

impl Own<'_> {
    fn find(&self, class: PayloadClass, kind: &str, target: &str) -> Result<String, String> {
        let found = self.all.iter().find(|w| w.class == class && w.file.name == target);
        let found = found.ok_or_else(|| format!("{kind} target {target} not found"))?;
        let text = std::str::from_utf8(found.spec.data.bytes());
        text.map(str::to_owned).map_err(|_| format!("{kind} target {target} is not UTF-8 text"))
    }
}

impl Lookup for Own<'_> {
    fn secret(&self, target: &str) -> Result<String, String> {
        self.find(PayloadClass::Secret, SecretKind::NAME, target)
    }

    fn config(&self, target: &str) -> Result<String, String> {
        self.find(PayloadClass::Config, ConfigKind::NAME, target)
    }

    fn env(&self, name: &str) -> String {
        let pairs = self.env.iter().filter_map(|entry| entry.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "payloads_tests.rs"]
mod tests;
