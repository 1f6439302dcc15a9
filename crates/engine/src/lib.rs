//! The containers, exec'd processes, logs, events, health checks, volumes and images of one node, and its durable record
//! of them.
//!
//! [`Engine`] is all of it. Bodies are Docker's (`bollard_stubs::models`); names, ids and beginnings of ids are resolved
//! here; every error has a [`kind`](Error::kind) that says its HTTP status and a text that is Docker's where scripts match
//! on it. Anything that is asked for and not supported is refused with [`Error::Unsupported`] that names it.
//!
//! The engine puts together what `shoal-bundle` (what a container is to be), `shoal-image` (layers, root file systems), `shoal-network` (namespaces, addresses, ports)
//! and `shoal-runtime` (supervisors) do. It leaves to others: HTTP, and why a container should exist.
//!
//! # A container's way
//!
//! [`Engine::create`] records it ([`container`]); [`Engine::start`] makes what it needs (`container::prepare`), has its OCI
//! configuration built ([`shoal_bundle::oci`]), starts its supervisor and watches it; its end comes in through `container::exit`, where its
//! restart policy decides. A new daemon begins in [`adopt`].

mod adopt;
mod attach;
mod config;
mod container;
mod detach;
mod engine;
mod error;
mod events;
mod exec;
mod images;
mod info;
mod layout;
mod logs;
mod networks;
mod options;
mod probe;
mod record;
mod volumes;

use shoal_bundle::{health, host, names, oci as spec, rootfs, signal, words};

pub use attach::{AttachInput, AttachOutput, Attached, Output};
pub use config::{BridgeConfig, EngineConfig};
pub use container::{PrivateFile, Wait};
pub use engine::Engine;
pub use error::{Error, ErrorKind, OpenError, RecordError, Result};
pub use images::{FetchError, FetchMessage};
pub use options::{
    AttachOptions, ContainerCounts, Created, EventsOptions, ExecStartOptions, Filters, ImageListOptions, ListOptions,
    LogLine, LogsOptions, RemoveOptions, StdStream, StopOptions, WaitCondition,
};
pub use shoal_bundle::names::random_name;
