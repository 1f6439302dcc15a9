//! `docker ps`: which containers, and each on a line.

use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models::{
    ContainerSummary, ContainerSummaryHealth, ContainerSummaryHealthStatusEnum, ContainerSummaryHostConfig,
    ContainerSummaryNetworkSettings, ContainerSummaryStateEnum, PortSummary, PortSummaryTypeEnum,
};
use jiff::Timestamp;
use shoal_network::{NetworkMode, Protocol};

use super::exit::span;
use super::inspect::mount_point;
use super::ports::parse_port;
use super::spec::{ContainerSpec, published};
use super::status::{Phase, Status};
use super::{Container, filter};
use crate::engine::Engine;
use crate::error::Result;
use crate::health;
use crate::options::{ContainerCounts, ListOptions};

/// A container as it was when the list was made.
pub(super) struct Row {
    pub container: Arc<Container>,
    pub spec: Arc<ContainerSpec>,
    pub status: Status,
}

impl Engine {
    /// Containers, newest first.
    pub async fn list(self: &Arc<Self>, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let mut rows = self.rows();
        let filter = filter::Filter::new(self, &options.filters, &rows)?;
        let limit = options.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        // a limit and a filter for a state look at all containers, running or not
        let all = options.all || limit.is_some() || filter.names_states();
        rows.retain(|row| (all || row.status.is_running()) && filter.passes(self, row));
        rows.truncate(limit.unwrap_or(usize::MAX));
        let now = Timestamp::now();
        let mut list = Vec::with_capacity(rows.len());
        for row in rows {
            let mut line = self.summary(&row, now);
            if options.size {
                // one that has been removed meanwhile has none
                if let Ok((own, all)) = self.sizes(&row.spec).await {
                    (line.size_rw, line.size_root_fs) = (Some(own), Some(all));
                }
            }
            list.push(line);
        }
        Ok(list)
    }

    /// How many containers there are, for `info`.
    pub fn container_counts(&self) -> ContainerCounts {
        let mut counts = ContainerCounts::default();
        for container in self.containers.all() {
            counts.total += 1;
            match container.phase() {
                Phase::Running | Phase::Restarting => counts.running += 1,
                Phase::Paused => counts.paused += 1,
                Phase::Created | Phase::Exited => counts.stopped += 1,
            }
        }
        counts
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .containers
            .all()
            .into_iter()
            .map(|container| {
                let (spec, status) = {
                    let data = container.data();
                    (data.spec.clone(), data.status.clone())
                };
                Row { container, spec, status }
            })
            .collect();
        rows.sort_by(|a, b| b.spec.created.cmp(&a.spec.created).then_with(|| a.spec.id.cmp(&b.spec.id)));
        rows
    }

    fn summary(&self, row: &Row, now: Timestamp) -> ContainerSummary {
        let Row { spec, status, .. } = row;
        ContainerSummary {
            id: Some(spec.id.clone()),
            names: Some(vec![format!("/{}", spec.name)]),
            image: Some(self.image_shown(spec)),
            image_id: Some(spec.image_id.to_string()),
            command: Some(command(spec)),
            created: Some(spec.created.as_second()),
            ports: Some(ports(spec, status)),
            labels: Some(spec.config.labels.clone().unwrap_or_default()),
            state: Some(word(status.phase)),
            status: Some(text(status, now)),
            host_config: Some(ContainerSummaryHostConfig {
                network_mode: spec.host_config.network_mode.clone(),
                annotations: spec.host_config.annotations.clone(),
            }),
            network_settings: Some(ContainerSummaryNetworkSettings {
                networks: Some(self.endpoint_settings(spec, status)),
            }),
            mounts: Some(spec.mounts.iter().map(mount_point).collect()),
            health: status.health.as_ref().map(|health| ContainerSummaryHealth {
                status: Some(match health.status {
                    health::Status::Starting => ContainerSummaryHealthStatusEnum::STARTING,
                    health::Status::Healthy => ContainerSummaryHealthStatusEnum::HEALTHY,
                    health::Status::Unhealthy => ContainerSummaryHealthStatusEnum::UNHEALTHY,
                }),
                failing_streak: Some(health.streak.into()),
            }),
            ..ContainerSummary::default()
        }
    }

    /// The image as it was named, unless that name means another image by now.
    fn image_shown(&self, spec: &ContainerSpec) -> String {
        let name = spec.image_name();
        match self.images.resolve(name) {
            Ok(image) if image.id == spec.image_id => name.to_owned(),
            _ => spec.image_id.to_string(),
        }
    }
}

fn word(phase: Phase) -> ContainerSummaryStateEnum {
    match phase {
        Phase::Created => ContainerSummaryStateEnum::CREATED,
        Phase::Running => ContainerSummaryStateEnum::RUNNING,
        Phase::Paused => ContainerSummaryStateEnum::PAUSED,
        Phase::Restarting => ContainerSummaryStateEnum::RESTARTING,
        Phase::Exited => ContainerSummaryStateEnum::EXITED,
    }
}

fn command(spec: &ContainerSpec) -> String {
    let mut words = vec![spec.path.clone()];
    for arg in &spec.args {
        words.push(if arg.contains(' ') { format!("'{arg}'") } else { arg.clone() });
    }
    words.join(" ")
}

fn ports(spec: &ContainerSpec, status: &Status) -> Vec<PortSummary> {
    let kind = |protocol| match protocol {
        Protocol::Tcp => PortSummaryTypeEnum::TCP,
        Protocol::Udp => PortSummaryTypeEnum::UDP,
        Protocol::Sctp => PortSummaryTypeEnum::SCTP,
    };
    let bound = published(status.endpoint.as_ref());
    let mut all: Vec<PortSummary> = bound
        .iter()
        .map(|port| PortSummary {
            ip: Some(port.host_ip.to_string()),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            typ: Some(kind(port.protocol)),
        })
        .collect();
    let on_bridge = status.endpoint.as_ref().is_some_and(|endpoint| endpoint.mode == NetworkMode::Bridge);
    for text in spec.config.exposed_ports.iter().flatten().filter(|_| on_bridge) {
        let Ok((number, protocol)) = parse_port(text) else { continue };
        if !bound.iter().any(|port| port.container_port == number && port.protocol == protocol) {
            all.push(PortSummary { private_port: number, typ: Some(kind(protocol)), ..PortSummary::default() });
        }
    }
    all
}

/// `Up 5 minutes (healthy)`, `Exited (0) 3 seconds ago`.
fn text(status: &Status, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| human(span(time.unwrap_or(now), now));
    match status.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Restarting => format!("Restarting ({}) {} ago", status.exit_code, since(status.finished_at)),
        Phase::Exited => format!("Exited ({}) {} ago", status.exit_code, since(status.finished_at)),
        Phase::Paused => format!("Up {} (Paused)", since(status.started_at)),
        Phase::Running => {
            let up = format!("Up {}", since(status.started_at));
            match status.health.as_ref().map(|health| health.status) {
                None => up,
                Some(health::Status::Starting) => format!("{up} (health: starting)"),
                Some(other) => format!("{up} ({})", other.word()),
            }
        }
    }
}

/// A span as people say it, in Docker's words.
fn human(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as u64);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn states_in_dockers_words() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let now = at(100).unwrap();
        let mut status = Status { phase: Phase::Running, started_at: at(95), ..Status::default() };
        assert_eq!(text(&status, now), "Up 5 seconds");
        status.health = Some(health::HealthState::default());
        assert_eq!(text(&status, now), "Up 5 seconds (health: starting)");
        let status = Status { phase: Phase::Exited, exit_code: 137, finished_at: at(40), ..Status::default() };
        assert_eq!(text(&status, now), "Exited (137) About a minute ago");
    }
}
