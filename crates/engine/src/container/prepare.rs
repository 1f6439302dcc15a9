//! What a container needs to run: root file system, place in the network, files, OCI configuration. Made at every start,
//! taken away at every end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models::EventMessageTypeEnum;
use shoal_network::{DnsOptions, Endpoint, EndpointRequest, NetworkMode, hosts_file, parse_extra_host, resolv_conf};
use shoal_runtime::{ConsoleSize, Job, JsonFileLog, LogConfig};

use super::Container;
use super::spec::{ContainerSpec, MountKind, MountSpec, NetworkSpec};
use super::status::Phase;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::spec::{Input, Namespace, Shm, User};

/// What can be had without the network.
struct Ground {
    rootfs: PathBuf,
    user: User,
    mounts: Vec<MountSpec>,
    shm: Shm,
    private: Vec<(PathBuf, String)>,
}

impl Engine {
    /// Makes all of it; of a failed one nothing remains.
    pub(super) async fn prepare(self: &Arc<Self>, container: &Arc<Container>) -> Result<Job> {
        let spec = container.spec();
        let ground = {
            let (engine, spec) = (self.clone(), spec.clone());
            blocking(move || engine.prepare_ground(&spec))
        };
        // both take about as long: side by side
        let (ground, endpoint) = tokio::join!(ground, self.join_network(&spec));
        let prepared = match (ground, endpoint) {
            (Ok(ground), Ok(endpoint)) => {
                // written down before the process exists: a new daemon must know whose address this is
                container.set_status(|data| data.status.endpoint = endpoint.clone());
                let (engine, spec) = (self.clone(), spec.clone());
                blocking(move || engine.write_bundle(&spec, &ground, endpoint.as_ref())).await
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if prepared.is_err() {
            self.release(container).await;
        }
        prepared
    }

    /// Takes it all away: the network now, the rest soon, for unmounting may wait for the disk and nobody needs to wait for
    /// that. What cannot be taken away is reported, and swept at the next start.
    pub(super) async fn release(self: &Arc<Self>, container: &Arc<Container>) {
        let spec = container.spec();
        if let Err(error) = self.network.release_endpoint(&container.id).await {
            tracing::warn!(container = %container.id, %error, "network of a container that ended");
        }
        let had = { container.data().status.endpoint.take() };
        if had.is_some() {
            self.network_event(container, "disconnect");
        }
        self.release_ground_soon(container);
        for mount in spec.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            self.volume_event(
                &mount.volume,
                "unmount",
                &[("container", container.id.clone()), ("driver", "local".to_owned())],
            );
        }
    }

    fn release_ground_soon(self: &Arc<Self>, container: &Arc<Container>) {
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            // a start that comes first keeps what is there
            let _operation = container.operation.lock().await;
            if !container.phase().is_alive() {
                let id = container.id.clone();
                blocking(move || engine.release_ground(&id)).await;
            }
        });
    }

    /// Takes away all of a run but its network. Not there: nothing to do.
    pub(crate) fn release_ground(&self, id: &str) {
        let run = self.layout.run(id);
        let shm = run.join("shm");
        if shm.exists()
            && let Err(error) = nix::mount::umount2(&shm, nix::mount::MntFlags::MNT_DETACH)
        {
            tracing::debug!(container = id, %error, "shared memory of a container that ended");
        }
        if let Err(error) = self.images.ensure_unmounted(id) {
            tracing::warn!(container = id, %error, "root file system of a container that ended stays mounted");
        }
        if let Err(error) = fs::remove_dir_all(&run)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(container = id, %error, "run directory of a container that ended stays");
        }
    }

    async fn join_network(&self, spec: &ContainerSpec) -> Result<Option<Endpoint>> {
        let NetworkSpec::Own { mode, mac } = &spec.network else { return Ok(None) };
        let ports = match mode {
            NetworkMode::Bridge => super::ports::requests(&spec.config, &spec.host_config)?,
            _ => Vec::new(),
        };
        let mac = mac.as_deref().map(str::parse).transpose().map_err(|_| Error::invalid("invalid MAC address"))?;
        let request = EndpointRequest {
            container_id: spec.id.clone(),
            container_name: spec.name.clone(),
            mode: *mode,
            ports,
            ipv4: None,
            mac,
        };
        Ok(Some(self.network.create_endpoint(request).await?))
    }

    fn prepare_ground(&self, spec: &ContainerSpec) -> Result<Ground> {
        let private = self.private_files(spec)?;
        let run = self.layout.run(&spec.id);
        fs::create_dir_all(&run).map_err(Error::at("create", &run))?;
        let rootfs = self.images.ensure_mounted(&spec.id)?.path;
        let groups = spec.host_config.group_add.clone().unwrap_or_default();
        let user = crate::spec::resolve_in(&rootfs, spec.config.user.as_deref().unwrap_or_default(), &groups)?;
        ensure_workdir(&rootfs, spec.config.working_dir.as_deref().unwrap_or_default())?;
        for mount in &spec.mounts {
            ensure_source(mount)?;
        }
        let shm = self.shm(spec, &run)?;
        let mut mounts = spec.mounts.clone();
        for mount in mounts.iter_mut().filter(|mount| mount.kind == MountKind::Volume) {
            mount.source = self.volumes.path(&mount.volume)?.to_string_lossy().into_owned();
        }
        Ok(Ground { rootfs, user, mounts, shm, private })
    }

    /// Shared memory: the container's own, one that others may join, or another's.
    fn shm(&self, spec: &ContainerSpec, run: &Path) -> Result<Shm> {
        let size = spec.host_config.shm_size.unwrap_or_default();
        match spec.host_config.ipc_mode.as_deref().unwrap_or_default() {
            "host" => Ok(Shm::Shared("/dev/shm".into())),
            "none" => Ok(Shm::None),
            "shareable" => {
                let dir = run.join("shm");
                fs::create_dir_all(&dir).map_err(Error::at("create", &dir))?;
                // of an earlier run
                while nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
                let flags =
                    nix::mount::MsFlags::MS_NOEXEC | nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV;
                let options = format!("mode=1777,size={size}");
                nix::mount::mount(Some("shm"), &dir, Some("tmpfs"), flags, Some(options.as_str()))
                    .map_err(|e| Error::at("mount", &dir)(e.into()))?;
                Ok(Shm::Shared(dir))
            }
            mode => match mode.strip_prefix("container:") {
                None => Ok(Shm::Own(size)),
                Some(target) => {
                    let dir = self.layout.run(target).join("shm");
                    if !dir.exists() {
                        return Err(Error::Conflict(format!(
                            "can't join IPC of container {target}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                        )));
                    }
                    Ok(Shm::Shared(dir))
                }
            },
        }
    }

    /// The namespace that a mode means.
    fn namespace(&self, mode: &str, kind: &str, file: &str) -> Result<Namespace> {
        match mode.strip_prefix("container:") {
            Some(target) => {
                let pid = self.containers.find(target)?.status();
                match pid.pid.filter(|_| matches!(pid.phase, Phase::Running | Phase::Paused)) {
                    Some(pid) => Ok(Namespace::Join(format!("/proc/{pid}/ns/{file}").into())),
                    None => Err(Error::Conflict(format!("cannot join {kind} of a non running container: {target}"))),
                }
            }
            None if mode == "host" => Ok(Namespace::Host),
            None => Ok(Namespace::Own),
        }
    }

    /// The container's files, its OCI configuration, and what its supervisor is told.
    fn write_bundle(&self, spec: &ContainerSpec, ground: &Ground, endpoint: Option<&Endpoint>) -> Result<Job> {
        let host = &spec.host_config;
        let mode = |text: &Option<String>| text.clone().unwrap_or_default();
        let network = match (&spec.network, endpoint) {
            (NetworkSpec::Container(target), _) => self.namespace(&format!("container:{target}"), "network", "net")?,
            (_, Some(Endpoint { netns: Some(path), .. })) => Namespace::Join(path.clone()),
            _ => Namespace::Host,
        };
        let (hostname, files) = self.names_files(spec, endpoint)?;
        let input = Input {
            spec,
            node: &self.node,
            rootfs: ground.rootfs.clone(),
            user: ground.user.clone(),
            hostname: &hostname,
            network,
            pid: self.namespace(&mode(&host.pid_mode), "PID", "pid")?,
            ipc: self.namespace(&mode(&host.ipc_mode), "IPC", "ipc")?,
            uts: self.namespace(&mode(&host.uts_mode), "UTS", "uts")?,
            shm: ground.shm.clone(),
            mounts: &ground.mounts,
            files,
            private: &ground.private,
            exe: self.exe.clone(),
        };
        let config = crate::spec::build(&input)?;
        let run_dir = self.layout.run(&spec.id);
        let path = run_dir.join("config.json");
        let bytes = serde_json::to_vec(&config).map_err(|e| Error::at("encode", &path)(e.into()))?;
        fs::write(&path, bytes).map_err(Error::at("write", &path))?;
        Ok(self.job(spec, run_dir))
    }

    fn job(&self, spec: &ContainerSpec, run_dir: PathBuf) -> Job {
        let parent = spec.host_config.cgroup_parent.as_deref().filter(|p| !p.is_empty());
        let parent = super::mounts::clean(parent.unwrap_or(&self.config.cgroup_parent));
        let size = spec.host_config.console_size.as_deref().unwrap_or_default();
        let console_size = match size {
            [height, width] if *height > 0 && *width > 0 => Some(ConsoleSize {
                height: u16::try_from(*height).unwrap_or(u16::MAX),
                width: u16::try_from(*width).unwrap_or(u16::MAX),
            }),
            _ => None,
        };
        let log = &spec.log;
        Job {
            id: spec.id.clone(),
            bundle: run_dir.clone(),
            run_dir,
            state_dir: self.layout.container(&spec.id),
            cgroup: Path::new(&parent).join(&spec.id),
            tty: spec.tty(),
            open_stdin: spec.config.open_stdin.unwrap_or_default(),
            stdin_once: spec.config.stdin_once.unwrap_or_default(),
            log: match log.json_file {
                true => LogConfig::JsonFile(JsonFileLog {
                    path: self.layout.log(&spec.id),
                    max_size: log.max_size,
                    max_file: log.max_file,
                    compress: log.compress,
                    attrs: log.attrs.clone(),
                }),
                false => LogConfig::None,
            },
            console_size,
            stage: Some(self.layout.stage()),
        }
    }

    /// The host name and the three files by which a container knows names: its own, or those of the container whose
    /// network it joins.
    fn names_files(
        &self,
        spec: &ContainerSpec,
        endpoint: Option<&Endpoint>,
    ) -> Result<(String, [(PathBuf, &'static str); 3])> {
        let paths = |id: &str| {
            let dir = self.layout.container(id);
            [
                (dir.join("resolv.conf"), "/etc/resolv.conf"),
                (dir.join("hostname"), "/etc/hostname"),
                (dir.join("hosts"), "/etc/hosts"),
            ]
        };
        let Some(endpoint) = endpoint else {
            let NetworkSpec::Container(target) = &spec.network else {
                return Ok((String::new(), paths(&spec.id)));
            };
            let hostname = self.containers.find(target)?.spec().config.hostname.clone().unwrap_or_default();
            return Ok((hostname, paths(target)));
        };
        let hostname = spec.config.hostname.clone().unwrap_or_default();
        let [(resolv, _), (name, _), (hosts, _)] = paths(&spec.id);
        let write = |path: &Path, text: String| fs::write(path, text).map_err(Error::at("write", path));
        write(&resolv, resolv_conf(&host_resolv_conf(), &dns_options(spec), endpoint))?;
        write(&name, format!("{hostname}\n"))?;
        write(&hosts, self.hosts(spec, endpoint, &hostname)?)?;
        Ok((hostname, paths(&spec.id)))
    }

    fn hosts(&self, spec: &ContainerSpec, endpoint: &Endpoint, hostname: &str) -> Result<String> {
        let own = match endpoint.mode {
            NetworkMode::Host => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            _ => String::new(),
        };
        let extra = spec.host_config.extra_hosts.iter().flatten();
        let extra: Vec<_> =
            extra.map(|text| parse_extra_host(text)).collect::<Result<_, _>>().map_err(Error::InvalidParameter)?;
        let domain = spec.config.domainname.as_deref().unwrap_or_default();
        let gateway = Some(self.network.gateway().into());
        hosts_file(&own, endpoint, hostname, domain, &extra, gateway).map_err(Error::InvalidParameter)
    }

    /// Emits an event of a container's network.
    pub(super) fn network_event(&self, container: &Container, action: &str) {
        let spec = container.spec();
        let NetworkSpec::Own { mode, .. } = spec.network else { return };
        let attributes = [
            ("container", container.id.clone()),
            ("name", mode.name().to_owned()),
            ("type", if mode == NetworkMode::None { "null" } else { mode.name() }.to_owned()),
        ];
        let attributes = attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        self.events.emit(EventMessageTypeEnum::NETWORK, action, self.network.id(mode), attributes);
    }
}

fn dns_options(spec: &ContainerSpec) -> DnsOptions {
    let host = &spec.host_config;
    DnsOptions {
        servers: host.dns.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
        search: host.dns_search.clone().unwrap_or_default(),
        options: host.dns_options.clone().unwrap_or_default(),
    }
}

/// The host's resolver configuration; where it names only systemd's local stub, the servers behind it.
fn host_resolv_conf() -> String {
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if shoal_network::names_only_the_stub(&own)
        && let Ok(real) = fs::read_to_string(shoal_network::RESOLVED_FILE)
    {
        return real;
    }
    own
}

/// As in Docker, a working directory that the image does not have is made.
fn ensure_workdir(rootfs: &Path, dir: &str) -> Result<()> {
    if dir.is_empty() || dir == "/" {
        return Ok(());
    }
    match crate::rootfs::ensure_dir(rootfs, dir).map_err(Error::at("create working directory", dir))? {
        true => Ok(()),
        false => Err(Error::invalid(format!("Cannot mkdir: {dir} is not a directory"))),
    }
}

/// What a bind is of: made as a directory where the request allows it.
fn ensure_source(mount: &MountSpec) -> Result<()> {
    if mount.kind != MountKind::Bind || fs::symlink_metadata(&mount.source).is_ok() {
        return Ok(());
    }
    if mount.create_source {
        return fs::create_dir_all(&mount.source).map_err(|e| {
            let path = &mount.source;
            Error::invalid(format!(
                "error while creating mount source path '{path}': mkdir {path}: {}",
                crate::words::io(&e)
            ))
        });
    }
    Err(Error::invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {}",
        mount.source
    )))
}
