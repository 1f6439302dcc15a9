//! Docker's view of one container.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerInspectResponse, ContainerState, DriverData, EndpointIpamConfig, EndpointSettings, MountPoint,
    NetworkSettings, PortBinding, PortMap,
};
use jiff::Timestamp;
use shoal_network::{Endpoint, NetworkMode};

use super::Container;
use super::spec::{ContainerSpec, MountKind, MountSpec, NetworkSpec, published};
use super::status::{Phase, Status};
use crate::engine::{Engine, blocking};
use crate::error::Result;

/// Go's zero time.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// Whether the container of that name ended with the machine, and not by itself; and has not been started since.
    pub fn was_cut_short(&self, name: &str) -> bool {
        self.containers.find(name).is_ok_and(|container| {
            let status = container.status();
            status.lost && !status.is_running()
        })
    }

    /// Everything about a container; with the sizes of its file systems if asked, which takes as long as listing its files.
    pub async fn inspect(self: &Arc<Self>, name: &str, size: bool) -> Result<ContainerInspectResponse> {
        let container = self.containers.find(name)?;
        let (spec, status, execs) = {
            let data = container.data();
            let running = data.execs.values().filter(|exec| exec.is_running()).map(|exec| exec.id.clone());
            (data.spec.clone(), data.status.clone(), running.collect::<Vec<_>>())
        };
        let sizes = match size {
            true => Some(self.sizes(&spec).await?),
            false => None,
        };
        let dir = |file: &str| Some(self.layout.container(&spec.id).join(file).to_string_lossy().into_owned());
        let ran = status.started_at.is_some();
        let path = |file: &str| if ran { dir(file) } else { Some(String::new()) };
        Ok(ContainerInspectResponse {
            id: Some(spec.id.clone()),
            created: Some(spec.created.to_string()),
            path: Some(spec.path.clone()),
            args: Some(spec.args.clone()),
            state: Some(state(&container, &status)),
            image: Some(spec.image_id.to_string()),
            resolv_conf_path: path("resolv.conf"),
            hostname_path: path("hostname"),
            hosts_path: path("hosts"),
            log_path: Some(if spec.log.json_file {
                self.layout.log(&spec.id).to_string_lossy().into_owned()
            } else {
                String::new()
            }),
            name: Some(format!("/{}", spec.name)),
            restart_count: Some(status.restart_count.into()),
            driver: Some("overlay2".to_owned()),
            platform: Some("linux".to_owned()),
            mount_label: Some(String::new()),
            process_label: Some(String::new()),
            app_armor_profile: Some(String::new()),
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: Some(spec.host_config.clone()),
            graph_driver: Some(DriverData { name: "overlay2".to_owned(), data: HashMap::new() }),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            mounts: Some(
                spec.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs || m.from_list).map(mount_point).collect(),
            ),
            config: Some(spec.config.clone()),
            network_settings: Some(self.network_settings(&spec, &status)),
            ..ContainerInspectResponse::default()
        })
    }

    /// Bytes that the container wrote, and with its image's.
    pub(super) async fn sizes(self: &Arc<Self>, spec: &Arc<ContainerSpec>) -> Result<(i64, i64)> {
        let (engine, id) = (self.clone(), spec.id.clone());
        let own = blocking(move || engine.images.snapshot_size(&id)).await?;
        let image = self.images.get(&spec.image_id).map_or(0, |image| image.size());
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok((number(own), number(own.saturating_add(image))))
    }

    fn network_settings(&self, spec: &ContainerSpec, status: &Status) -> NetworkSettings {
        let endpoint = status.endpoint.as_ref();
        NetworkSettings {
            sandbox_id: Some(endpoint.map(|e| e.sandbox_id.clone()).unwrap_or_default()),
            sandbox_key: Some(sandbox_key(endpoint)),
            ports: Some(if status.phase.is_alive() { port_map(spec, endpoint) } else { PortMap::new() }),
            networks: Some(self.endpoint_settings(spec, status)),
        }
    }

    /// The container's networks by name.
    pub(super) fn endpoint_settings(&self, spec: &ContainerSpec, status: &Status) -> HashMap<String, EndpointSettings> {
        let NetworkSpec::Own { mode, mac } = &spec.network else { return HashMap::new() };
        let id = self.network.id(*mode).to_owned();
        let settings = match &status.endpoint {
            Some(endpoint) => settings(&endpoint.settings(&id)),
            None => EndpointSettings {
                network_id: Some(if status.started_at.is_some() { id } else { String::new() }),
                ..settings(&shoal_network::EndpointSettings {
                    mac_address: mac.clone().unwrap_or_default(),
                    ..shoal_network::EndpointSettings::default()
                })
            },
        };
        HashMap::from([(mode.name().to_owned(), settings)])
    }
}

fn sandbox_key(endpoint: Option<&Endpoint>) -> String {
    match endpoint {
        Some(Endpoint { netns: Some(path), .. }) => path.to_string_lossy().into_owned(),
        Some(Endpoint { mode: NetworkMode::Host, .. }) => "/proc/1/ns/net".to_owned(),
        _ => String::new(),
    }
}

fn settings(own: &shoal_network::EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: None::<EndpointIpamConfig>,
        links: None,
        mac_address: Some(own.mac_address.clone()),
        aliases: None,
        driver_opts: None,
        gw_priority: Some(own.gw_priority),
        network_id: Some(own.network_id.clone()),
        endpoint_id: Some(own.endpoint_id.clone()),
        gateway: Some(own.gateway.clone()),
        ip_address: Some(own.ip_address.clone()),
        ip_prefix_len: Some(own.ip_prefix_len),
        ipv6_gateway: Some(own.ipv6_gateway.clone()),
        global_ipv6_address: Some(own.global_ipv6_address.clone()),
        global_ipv6_prefix_len: Some(own.global_ipv6_prefix_len),
        dns_names: None,
    }
}

/// Published ports with their bindings, exposed ones with null.
fn port_map(spec: &ContainerSpec, endpoint: Option<&Endpoint>) -> PortMap {
    let exposed = spec.config.exposed_ports.iter().flatten();
    let mut map: PortMap = match endpoint {
        Some(Endpoint { mode: NetworkMode::Bridge, .. }) => exposed.map(|port| (port.clone(), None)).collect(),
        _ => PortMap::new(),
    };
    for port in published(endpoint) {
        let binding =
            PortBinding { host_ip: Some(port.host_ip.to_string()), host_port: Some(port.host_port.to_string()) };
        let key = format!("{}/{}", port.container_port, port.protocol);
        map.entry(key).or_default().get_or_insert_default().push(binding);
    }
    map
}

pub(super) fn state(container: &Container, status: &Status) -> ContainerState {
    let removing = container.data().removing;
    let time = |time: Option<Timestamp>| Some(time.map_or_else(|| NEVER.to_owned(), |time| time.to_string()));
    ContainerState {
        status: Some(match status.phase {
            Phase::Exited | Phase::Created if removing => bollard_stubs::models::ContainerStateStatusEnum::REMOVING,
            phase => phase.status(),
        }),
        running: Some(status.is_running()),
        paused: Some(status.phase == Phase::Paused),
        restarting: Some(status.phase == Phase::Restarting),
        oom_killed: Some(status.oom_killed),
        dead: Some(false),
        pid: Some(status.pid.unwrap_or_default().into()),
        exit_code: Some(status.exit_code.into()),
        error: Some(status.error.clone()),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        health: status.health.as_ref().map(crate::health::HealthState::body),
    }
}

pub(super) fn mount_point(mount: &MountSpec) -> MountPoint {
    let propagation = match (mount.kind, mount.propagation.as_str()) {
        (MountKind::Bind, "") => "rprivate",
        (_, word) => word,
    };
    MountPoint {
        typ: Some(mount.kind.word().to_owned()),
        name: (mount.kind == MountKind::Volume).then(|| mount.volume.clone()),
        source: Some(mount.source.clone()),
        destination: Some(mount.destination.clone()),
        driver: (mount.kind == MountKind::Volume).then(|| "local".to_owned()),
        mode: Some(if mount.from_list || !mount.mode.is_empty() || mount.kind == MountKind::Bind {
            mount.mode.clone()
        } else {
            "z".to_owned()
        }),
        rw: Some(mount.rw),
        propagation: Some(propagation.to_owned()),
    }
}

impl Engine {
    /// Bytes that a container wrote; what cannot be counted is nothing.
    pub(crate) async fn container_size(self: &Arc<Self>, spec: &Arc<ContainerSpec>) -> i64 {
        self.sizes(spec).await.map_or(0, |(own, _)| own)
    }
}
