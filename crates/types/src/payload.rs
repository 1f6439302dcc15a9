//! Secrets and configs as objects: contents that tasks get as files. The two differ in names, sizes and where they lie;
//! [`PayloadKind`] says how, everything else is written once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Object, ObjectKind};
use crate::id::{ConfigKind, SecretKind};
use crate::object::Meta;
use crate::spec::{ConfigReference, ContainerSpec, PayloadSpec, Reference, SecretReference};
use crate::view::List;
use crate::{Id, View};

/// A secret or config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Payload<K> {
    /// Its identifier.
    pub id: Id<K>,
    /// Version and times.
    #[serde(default)]
    pub meta: Meta,
    /// Name, labels and content.
    pub spec: Arc<PayloadSpec>,
}

/// A secret: readable on managers, and in the tasks that name it.
pub type Secret = Payload<SecretKind>;

/// A config: the same for what is no secret.
pub type Config = Payload<ConfigKind>;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PayloadClass {
    /// A secret.
    Secret,
    /// A config.
    Config,
}

/// What tells secrets and configs apart.
pub trait PayloadKind: Sized + Send + Sync + 'static {
    /// Which of the two it is.
    const CLASS: PayloadClass;
    /// The word for one.
    const NAME: &'static str;
    /// Bytes that a content must stay below.
    const LIMIT: usize;
    /// Where files with a relative path lie in a container.
    const DIR: &'static str;

    /// One of them.
    fn get(view: &dyn View, id: Id<Self>) -> Option<&Arc<Payload<Self>>>;
    /// The one of that name, in any case.
    fn named<'a>(view: &'a dyn View, name: &str) -> Option<&'a Arc<Payload<Self>>>;
    /// All of them.
    fn all(view: &dyn View) -> List<'_, Payload<Self>>;
    /// One as an object of any kind.
    fn object(payload: Arc<Payload<Self>>) -> Object;
    /// Names one among objects of any kind.
    fn key(id: Id<Self>) -> ObjectKind;
    /// Those that a container asks for.
    fn references(container: &ContainerSpec) -> Vec<Reference<'_>>;
}

impl PayloadKind for SecretKind {
    const CLASS: PayloadClass = PayloadClass::Secret;
    const NAME: &'static str = "secret";
    const LIMIT: usize = 500 * 1024;
    const DIR: &'static str = "/run/secrets";

    fn get(view: &dyn View, id: Id<Self>) -> Option<&Arc<Secret>> {
        view.secret(id)
    }
    fn named<'a>(view: &'a dyn View, name: &str) -> Option<&'a Arc<Secret>> {
        view.secret_named(name)
    }
    fn all(view: &dyn View) -> List<'_, Secret> {
        view.secrets()
    }
    fn object(payload: Arc<Secret>) -> Object {
        Object::Secret(payload)
    }
    fn key(id: Id<Self>) -> ObjectKind {
        ObjectKind::Secret(id)
    }
    fn references(container: &ContainerSpec) -> Vec<Reference<'_>> {
        container.secrets.iter().map(SecretReference::parts).collect()
    }
}

impl PayloadKind for ConfigKind {
    const CLASS: PayloadClass = PayloadClass::Config;
    const NAME: &'static str = "config";
    const LIMIT: usize = 1000 * 1024;
    const DIR: &'static str = "/";

    fn get(view: &dyn View, id: Id<Self>) -> Option<&Arc<Config>> {
        view.config(id)
    }
    fn named<'a>(view: &'a dyn View, name: &str) -> Option<&'a Arc<Config>> {
        view.config_named(name)
    }
    fn all(view: &dyn View) -> List<'_, Config> {
        view.configs()
    }
    fn object(payload: Arc<Config>) -> Object {
        Object::Config(payload)
    }
    fn key(id: Id<Self>) -> ObjectKind {
        ObjectKind::Config(id)
    }
    fn references(container: &ContainerSpec) -> Vec<Reference<'_>> {
        container.configs.iter().map(ConfigReference::parts).collect()
    }
}
