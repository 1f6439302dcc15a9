//! Filters of `docker ps`.

use std::collections::BTreeMap;

use shoal_image::{ChainId, ImageId};
use shoal_network::NetworkMode;

use super::list::Row;
use super::ports::parse_port;
use super::spec::{NetworkSpec, published};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Filters;

const NAMES: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: &[&str] = &["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// Filters, checked and looked up.
pub(super) struct Filter {
    all: Filters,
    exited: Vec<i32>,
    /// Created before and after, in the order of the list.
    before: Option<jiff::Timestamp>,
    since: Option<jiff::Timestamp>,
    /// Images that `ancestor` means, each with the chain of its topmost layer.
    ancestors: Option<Vec<(ImageId, Option<ChainId>)>>,
    names: Vec<regex::Regex>,
}

impl Filter {
    /// Checks the filters.
    pub fn new(engine: &Engine, filters: &Filters, rows: &[Row]) -> Result<Self> {
        if let Some(name) = filters.keys().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(Error::invalid(format!("invalid filter '{name}'")));
        }
        let values = |name: &str| filters.get(name).map(Vec::as_slice).unwrap_or_default();
        let known = |name: &str, words: &[&str]| match values(name).iter().find(|v| !words.contains(&v.as_str())) {
            Some(value) => Err(Error::invalid(format!("invalid filter '{name}={value}'"))),
            None => Ok(()),
        };
        known("status", STATES)?;
        known("health", HEALTHS)?;
        known("is-task", &["true", "false", "1", "0"])?;
        let exited = values("exited").iter().map(|v| v.parse::<i32>());
        let exited =
            exited.collect::<Result<_, _>>().map_err(|e| Error::invalid(format!("invalid filter 'exited': {e}")))?;
        for port in values("publish").iter().chain(values("expose")) {
            port_range(port)?;
        }
        let created = |name: &str| -> Result<Option<jiff::Timestamp>> {
            let Some(value) = values(name).first() else { return Ok(None) };
            let wanted = engine.containers.find(value)?;
            Ok(rows.iter().find(|row| row.container.id == wanted.id).map(|row| row.spec.created))
        };
        let names = values("name").iter().map(|v| regex::Regex::new(v));
        let names =
            names.collect::<Result<_, _>>().map_err(|e| Error::invalid(format!("invalid filter 'name': {e}")))?;
        Ok(Self {
            exited,
            before: created("before")?,
            since: created("since")?,
            ancestors: filters.get("ancestor").map(|names| ancestors(engine, names)),
            names,
            all: filters.clone(),
        })
    }

    /// Whether containers that do not run are asked for.
    pub fn names_states(&self) -> bool {
        ["status", "exited", "before", "since"].iter().any(|name| self.all.contains_key(*name))
    }

    /// Values of one filter are alternatives (labels excepted), filters must all pass.
    pub fn passes(&self, engine: &Engine, row: &Row) -> bool {
        let (spec, status) = (&row.spec, &row.status);
        self.all.iter().all(|(name, values)| match name.as_str() {
            "id" => values.iter().any(|v| spec.id.starts_with(v.as_str())),
            "name" => {
                self.names.iter().any(|name| name.is_match(&spec.name) || name.is_match(&format!("/{}", spec.name)))
            }
            "label" => values.iter().all(|v| matches_label(spec.config.labels.as_ref(), v)),
            "status" => values.iter().any(|v| *v == status.phase.status().to_string()),
            "exited" => {
                let ended = status.finished_at.is_some() && !status.is_running();
                ended && self.exited.contains(&status.exit_code)
            }
            "health" => {
                let health = status.health.as_ref().map_or_else(|| "none".to_owned(), |h| h.status.word().to_string());
                values.contains(&health)
            }
            "is-task" => {
                let task =
                    spec.label("com.docker.swarm.task").is_some() || spec.label("com.docker.swarm.task.id").is_some();
                values.iter().any(|v| matches!(v.as_str(), "true" | "1") == task)
            }
            "isolation" => values.iter().any(|v| v == "default" || v.is_empty()),
            "before" => self.before.is_none_or(|time| spec.created < time),
            "since" => self.since.is_none_or(|time| spec.created > time),
            "ancestor" => self.has_ancestor(engine, &spec.image_id),
            "network" => values.iter().any(|v| in_network(engine, &spec.network, v)),
            "volume" => values
                .iter()
                .any(|v| spec.mounts.iter().any(|m| m.volume == *v || m.destination == *v || m.source == *v)),
            "publish" => values.iter().any(|v| {
                port_range(v).is_ok_and(|wanted| {
                    let mut bound = published(status.endpoint.as_ref()).iter();
                    bound.any(|port| wanted.has(port.host_port, port.protocol))
                })
            }),
            "expose" => values.iter().any(|v| {
                port_range(v).is_ok_and(|wanted| {
                    let exposed = spec.config.exposed_ports.iter().flatten();
                    exposed.filter_map(|text| parse_port(text).ok()).any(|(port, protocol)| wanted.has(port, protocol))
                })
            }),
            _ => false,
        })
    }

    fn has_ancestor(&self, engine: &Engine, image: &ImageId) -> bool {
        let Some(ancestors) = &self.ancestors else { return true };
        let layers = engine.images.get(image);
        ancestors.iter().any(|(id, top)| {
            let below = layers.as_ref().is_some_and(|i| i.layers.iter().any(|layer| Some(layer.chain) == *top));
            id == image || below
        })
    }
}

fn ancestors(engine: &Engine, names: &[String]) -> Vec<(ImageId, Option<ChainId>)> {
    let found = names.iter().filter_map(|name| engine.images.resolve(name).ok());
    found.map(|image| (image.id, image.layers.last().map(|layer| layer.chain))).collect()
}

fn in_network(engine: &Engine, spec: &NetworkSpec, wanted: &str) -> bool {
    let NetworkSpec::Own { mode, .. } = spec else { return false };
    let mode: NetworkMode = *mode;
    let id = engine.network.id(mode);
    mode.name() == wanted || (!wanted.is_empty() && id.starts_with(wanted))
}

/// `KEY` or `KEY=VALUE`.
pub(crate) fn matches_label<'a, M>(labels: Option<M>, wanted: &str) -> bool
where
    M: IntoIterator<Item = (&'a String, &'a String)>,
{
    let labels: BTreeMap<&str, &str> =
        labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key) == Some(&value),
        None => labels.contains_key(wanted),
    }
}

struct PortRange {
    first: u16,
    last: u16,
    protocol: shoal_network::Protocol,
}

impl PortRange {
    fn has(&self, port: u16, protocol: shoal_network::Protocol) -> bool {
        (self.first..=self.last).contains(&port) && self.protocol == protocol
    }
}

/// `80`, `80/udp`, `8000-8080/tcp`.
fn port_range(text: &str) -> Result<PortRange> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, protocol) = parse_port(&format!("{first}/{protocol}"))?;
    let (last, _) = parse_port(last)?;
    Ok(PortRange { first, last, protocol })
}
