//! `docker info`, `docker version`, `docker system df`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerPruneResponse, FirewallInfo, PluginsInfo, RegistryServiceConfig, Runtime, SystemInfo,
    SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum, SystemInfoIsolationEnum, SystemVersion,
    SystemVersionComponents, SystemVersionPlatform,
};
use serde_json::{Value, json};
use shoal_bundle::RUNTIME;

use crate::container::filter::matches_label;
use crate::container::status::Phase;
use crate::engine::Engine;
use crate::error::Result;
use crate::images::parse_time;
use crate::options::{Filters, ImageListOptions, ListOptions, RemoveOptions};
use crate::volumes::api::check_filters;

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Engine {
    /// This node's name.
    pub fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or(&self.node.hostname)
    }

    /// What there is on this node. What belongs to the cluster (`Swarm`) and to the daemon (`Debug`) is not filled in.
    pub fn info(&self) -> SystemInfo {
        let counts = self.container_counts();
        let number = |n: usize| Some(i64::try_from(n).unwrap_or(i64::MAX));
        let words = |list: &[&str]| Some(list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        SystemInfo {
            id: Some(self.id.clone()),
            containers: number(counts.total),
            containers_running: number(counts.running),
            containers_paused: number(counts.paused),
            containers_stopped: number(counts.stopped),
            images: number(self.images.list().len()),
            driver: Some("overlay2".to_owned()),
            driver_status: Some(vec![vec!["Backing Filesystem".to_owned(), file_system(&self.config.data_root)]]),
            docker_root_dir: Some(self.config.data_root.to_string_lossy().into_owned()),
            plugins: Some(PluginsInfo {
                volume: words(&["local"]),
                network: words(&["bridge", "host", "null"]),
                authorization: None,
                log: words(&["json-file", "none"]),
            }),
            n_events_listener: number(self.events.listeners()),
            nfd: number(open_files()),
            system_time: Some(jiff::Timestamp::now().to_string()),
            logging_driver: Some(self.config.log_driver.clone()),
            index_server_address: Some("https://index.docker.io/v1/".to_owned()),
            registry_config: Some(self.registry_config()),
            name: Some(self.name().to_owned()),
            labels: Some(self.config.labels.clone()),
            generic_resources: Some(self.config.generic_resources.clone()).filter(|has| !has.is_empty()),
            experimental_build: Some(false),
            server_version: Some(VERSION.to_owned()),
            runtimes: Some(HashMap::from([(
                RUNTIME.to_owned(),
                Runtime { path: Some(RUNTIME.to_owned()), ..Runtime::default() },
            )])),
            default_runtime: Some(RUNTIME.to_owned()),
            // containers run on while the daemon does not
            live_restore_enabled: Some(true),
            isolation: Some(SystemInfoIsolationEnum::EMPTY),
            init_binary: Some("docker-init".to_owned()),
            security_options: Some(self.security_options()),
            firewall_backend: Some(FirewallInfo { driver: Some("nftables".to_owned()), info: None }),
            warnings: Some(self.warnings()),
            ..self.machine_info()
        }
    }

    fn machine_info(&self) -> SystemInfo {
        let limits = self.node.limits;
        SystemInfo {
            memory_limit: Some(limits.memory),
            swap_limit: Some(limits.swap),
            cpu_cfs_period: Some(limits.cpu_quota),
            cpu_cfs_quota: Some(limits.cpu_quota),
            cpu_shares: Some(limits.cpu_shares),
            cpu_set: Some(limits.cpuset),
            pids_limit: Some(limits.pids),
            oom_kill_disable: Some(limits.oom_kill_disable),
            ipv4_forwarding: Some(forwards()),
            cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
            cgroup_version: Some(match self.node.cgroup2 {
                true => SystemInfoCgroupVersionEnum::_2,
                false => SystemInfoCgroupVersionEnum::_1,
            }),
            kernel_version: Some(self.node.kernel.clone()),
            operating_system: Some(self.node.os_name.clone()),
            os_version: Some(self.node.os_version.clone()),
            os_type: Some("linux".to_owned()),
            architecture: Some(self.node.machine.clone()),
            ncpu: i64::try_from(self.node.cpus).ok(),
            mem_total: Some(self.node.memory),
            ..SystemInfo::default()
        }
    }

    fn registry_config(&self) -> RegistryServiceConfig {
        let (networks, hosts): (Vec<_>, Vec<_>) = self.config.insecure_registries.iter().partition(|r| r.contains('/'));
        let entry = |name: &str, secure: bool, official: bool, mirrors: &[String]| bollard_stubs::models::IndexInfo {
            name: Some(name.to_owned()),
            mirrors: Some(mirrors.to_vec()),
            secure: Some(secure),
            official: Some(official),
        };
        let mut indexes: HashMap<_, _> = hosts.into_iter().map(|h| (h.clone(), entry(h, false, false, &[]))).collect();
        indexes.insert("docker.io".to_owned(), entry("docker.io", true, true, &self.config.registry_mirrors));
        let mut cidrs: Vec<String> = networks.into_iter().cloned().collect();
        cidrs.extend(["::1/128".to_owned(), "127.0.0.0/8".to_owned()]);
        RegistryServiceConfig {
            insecure_registry_cidrs: Some(cidrs),
            index_configs: Some(indexes),
            mirrors: Some(self.config.registry_mirrors.clone()),
        }
    }

    fn security_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.node.apparmor {
            options.push("name=apparmor".to_owned());
        }
        if self.node.seccomp {
            options.push("name=seccomp,profile=builtin".to_owned());
        }
        if self.node.selinux {
            options.push("name=selinux".to_owned());
        }
        if self.node.cgroup2 {
            options.push("name=cgroupns".to_owned());
        }
        options
    }

    fn warnings(&self) -> Vec<String> {
        let limits = self.node.limits;
        let missing = [
            (limits.memory, "WARNING: No memory limit support"),
            (limits.swap, "WARNING: No swap limit support"),
            (limits.cpu_quota, "WARNING: No cpu cfs quota support"),
            (limits.cpu_shares, "WARNING: No cpu shares support"),
            (limits.cpuset, "WARNING: No cpuset support"),
            (limits.pids, "WARNING: No pids limit support"),
        ];
        let mut all: Vec<String> =
            missing.iter().filter(|(there, _)| !there).map(|(_, text)| (*text).to_owned()).collect();
        all.extend(self.network.warnings());
        all
    }

    /// What this engine is. `ApiVersion` and `MinAPIVersion` are the API's to fill in.
    pub fn version(&self) -> SystemVersion {
        let details = HashMap::from([
            ("Arch".to_owned(), crate::spec::go_arch(&self.node.machine).to_owned()),
            ("Os".to_owned(), "linux".to_owned()),
            ("KernelVersion".to_owned(), self.node.kernel.clone()),
            ("Experimental".to_owned(), "false".to_owned()),
        ]);
        SystemVersion {
            platform: Some(SystemVersionPlatform { name: "Shoal".to_owned() }),
            components: Some(vec![SystemVersionComponents {
                name: "Engine".to_owned(),
                version: VERSION.to_owned(),
                details: Some(details),
            }]),
            version: Some(VERSION.to_owned()),
            git_commit: Some(String::new()),
            go_version: Some(String::new()),
            os: Some("linux".to_owned()),
            arch: Some(crate::spec::go_arch(&self.node.machine).to_owned()),
            kernel_version: Some(self.node.kernel.clone()),
            experimental: Some(false),
            build_time: Some(String::new()),
            ..SystemVersion::default()
        }
    }

    /// What takes how much of the disk, in the shape that API versions below 1.52 have.
    pub async fn disk_usage(self: &Arc<Self>) -> Result<Value> {
        let images = self.list_images(ImageListOptions { shared_size: true, ..ImageListOptions::default() }).await?;
        let containers = self.list(ListOptions { all: true, size: true, ..ListOptions::default() }).await?;
        let mut layers = HashMap::new();
        for image in self.images.list() {
            layers.extend(image.layers.iter().map(|layer| (layer.chain, layer.size)));
        }
        Ok(json!({
            "LayersSize": layers.values().sum::<u64>(),
            "Images": images,
            "Containers": containers,
            "Volumes": self.volume_usage().await,
            "BuildCache": [],
        }))
    }

    /// Removes containers that do not run. Filters: label, label!, until.
    pub async fn prune_containers(self: &Arc<Self>, filters: &Filters) -> Result<ContainerPruneResponse> {
        check_filters(filters, &["label", "label!", "until"])?;
        let until = filters.get("until").and_then(|values| values.first()).map(|text| parse_time(text)).transpose()?;
        let labels = |name: &str| filters.get(name).map(Vec::as_slice).unwrap_or_default();
        let (mut deleted, mut freed) = (Vec::new(), 0_i64);
        for container in self.containers.all() {
            let spec = container.spec();
            let own = spec.config.labels.as_ref();
            let wanted = matches!(container.phase(), Phase::Created | Phase::Exited)
                && until.is_none_or(|until| spec.created < until)
                && labels("label").iter().all(|label| matches_label(own, label))
                && !labels("label!").iter().any(|label| matches_label(own, label));
            if !wanted {
                continue;
            }
            let size = self.container_size(&spec).await;
            // one that runs or is gone by now is left alone
            if self.apply_remove(&container, RemoveOptions::default()).await.is_ok() {
                freed = freed.saturating_add(size);
                deleted.push(container.id.clone());
            }
        }
        Ok(ContainerPruneResponse { containers_deleted: Some(deleted), space_reclaimed: Some(freed) })
    }
}

fn forwards() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn file_system(path: &Path) -> String {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
    let kind = statfs(path).map(|fs| fs.filesystem_type());
    match kind {
        Ok(EXT4_SUPER_MAGIC) => "extfs",
        Ok(XFS_SUPER_MAGIC) => "xfs",
        Ok(BTRFS_SUPER_MAGIC) => "btrfs",
        Ok(TMPFS_MAGIC) => "tmpfs",
        _ => "<unknown>",
    }
    .to_owned()
}
