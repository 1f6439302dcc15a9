//! Making a container: everything but its first process.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerConfig, ContainerCreateBody, EventMessageTypeEnum, HostConfig, HostConfigLogConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use jiff::Timestamp;
use shoal_image::Image;
use shoal_network::NetworkMode;

use super::spec::{ContainerSpec, MountKind, MountSpec, NetworkSpec};
use super::status::Status;
use super::{Container, check, log_options, merge, mounts, ports};
use crate::engine::{Engine, blocking, detached};
use crate::error::{Error, Result};
use crate::names;
use crate::options::Created;
use crate::record::Kind;

const DEFAULT_SHM: i64 = 64 << 20;

impl Engine {
    /// Makes a container. `name`: none for one of our choosing. `platform`: `os[/arch[/variant]]` that the image must have.
    /// It is on the disk when this returns; of one that is refused, nothing remains.
    pub async fn create(
        self: &Arc<Self>,
        name: Option<&str>,
        platform: Option<&str>,
        body: ContainerCreateBody,
    ) -> Result<Created> {
        let name = name.filter(|name| !name.is_empty()).map(|n| names::check_container_name(n).map(str::to_owned));
        let (name, platform, engine) = (name.transpose()?, platform.map(str::to_owned), self.clone());
        detached(async move { engine.apply_create(name, platform.as_deref(), body).await }).await
    }

    async fn apply_create(
        self: &Arc<Self>,
        name: Option<String>,
        platform: Option<&str>,
        body: ContainerCreateBody,
    ) -> Result<Created> {
        let (image, mut warnings) = self.find_image(body.image.as_deref().unwrap_or_default(), platform)?;
        let mut spec = self.plan_create(body, &image, &mut warnings)?;
        spec.name = self.reserve_name(name, &spec.id)?;
        spec.log.attrs = log_options::attributes(&spec);
        let (id, reserved) = (spec.id.clone(), spec.name.clone());
        match self.make(spec, &image).await {
            Ok(()) => Ok(Created { id, warnings }),
            Err(error) => {
                self.containers.release(&reserved, &id);
                Err(error)
            }
        }
    }

    /// The request with its image's and the node's defaults, checked. Nothing is made yet.
    fn plan_create(
        &self,
        mut body: ContainerCreateBody,
        image: &Image,
        warnings: &mut Vec<String>,
    ) -> Result<ContainerSpec> {
        let mut host = body.host_config.take().unwrap_or_default();
        let networking = body.networking_config.take().unwrap_or_default();
        let mut config = merge::portable(body);
        check::refuse_unsupported(&config, &host)?;
        let (path, args) = merge::merge(&mut config, &image.config.config)?;
        let id = names::new_id(&mut rand::rng());
        let network = self.network_spec(&mut host, &networking)?;
        self.fill_in(&id, &mut config, &mut host, &network)?;
        warnings.extend(self.check_request(&mut config, &mut host)?);
        let log = log_options::parse(host.log_config.as_ref().unwrap_or(&HostConfigLogConfig::default()))?;
        let mounts = mounts::collect(&config, &host, self.inherited_mounts(&host)?)?;
        check_bind_sources(&mounts)?;
        Ok(ContainerSpec {
            id,
            name: String::new(),
            created: Timestamp::now(),
            image_id: image.id,
            config,
            host_config: host,
            path,
            args,
            mounts,
            network,
            log,
            files: Vec::new(),
        })
    }

    /// Refuses what makes no sense or cannot be done here; returns what will not be as asked.
    fn check_request(&self, config: &mut ContainerConfig, host: &mut HostConfig) -> Result<Vec<String>> {
        check::check(config, host, &self.node)?;
        check::refuse_impossible(host, &self.node)?;
        let warnings = check::drop_impossible(host, &self.node);
        ports::check(config, host)?;
        ports::expose_bound(config, host);
        crate::spec::capabilities(host)?;
        crate::spec::security(host, &self.node)?;
        for rule in host.device_cgroup_rules.iter().flatten() {
            crate::spec::parse_rule(rule)?;
        }
        log_options::check_tag(host.log_config.as_ref().unwrap_or(&HostConfigLogConfig::default()))?;
        Ok(warnings)
    }

    /// Volumes, root file system, directory, record; undone where one of them fails.
    async fn make(self: &Arc<Self>, mut spec: ContainerSpec, image: &Image) -> Result<()> {
        let made = self.ensure_volumes(&mut spec).await?;
        let spec = Arc::new(spec);
        let files = self.make_files(&spec, image).await;
        let recorded = match files {
            Ok(()) => self.record.put(Kind::Container, &spec.id, &*spec).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            self.unmake(&spec.id, &made).await;
            return Err(error);
        }
        let container = Container::new(spec.clone(), Status::default(), self.layout.container(&spec.id));
        self.containers.insert(container.clone());
        // from here on its volumes are seen to be used; one may have been removed before
        for mount in spec.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            self.volumes.ensure(&mount.volume, HashMap::new(), mount.anonymous).await?;
        }
        self.container_event(&container, "create", &[]);
        Ok(())
    }

    async fn make_files(self: &Arc<Self>, spec: &Arc<ContainerSpec>, image: &Image) -> Result<()> {
        let (engine, spec, image) = (self.clone(), spec.clone(), image.id);
        blocking(move || {
            engine.images.ensure_snapshot(&spec.id, &image)?;
            let dir = engine.layout.container(&spec.id);
            std::fs::create_dir(&dir).map_err(Error::at("create", dir))?;
            engine.populate_volumes(&spec)
        })
        .await
    }

    /// Takes away what a failed creation made.
    async fn unmake(self: &Arc<Self>, id: &str, volumes: &[String]) {
        let (engine, id) = (self.clone(), id.to_owned());
        blocking(move || {
            if let Err(error) = engine.images.remove_snapshot(&id) {
                tracing::warn!(container = %id, %error, "root file system of a failed creation stays until the next start");
            }
            let dir = engine.layout.container(&id);
            if let Err(error) = std::fs::remove_dir_all(&dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(container = %id, %error, "directory of a failed creation stays until the next start");
            }
        })
        .await;
        for name in volumes {
            self.discard_volume(name).await;
        }
    }

    /// The image on this node; a warning where it is for another machine.
    fn find_image(&self, name: &str, platform: Option<&str>) -> Result<(Arc<Image>, Vec<String>)> {
        if name.is_empty() {
            return Err(Error::invalid("no command specified"));
        }
        let image = self.resolve_image(name)?;
        if !matches!(image.config.os.as_str(), "" | "linux") {
            return Err(Error::invalid(format!("operating system \"{}\" is not supported", image.config.os)));
        }
        let own = crate::spec::go_arch(&self.node.machine).to_owned();
        let (os, arch) = (image.config.os.as_str(), image.config.architecture.as_str());
        let mut warnings = Vec::new();
        match platform.filter(|p| !p.is_empty()) {
            Some(wanted) => {
                let mut parts = wanted.split('/');
                let fits = parts.next() == Some(os) && parts.next().is_none_or(|p| p == arch);
                if !fits {
                    return Err(Error::NoSuchImage(format!(
                        "image with reference {name} was found but does not provide the specified platform ({wanted})"
                    )));
                }
            }
            None if !arch.is_empty() && arch != own => warnings.push(format!(
                "The requested image's platform ({os}/{arch}) does not match the detected host platform (linux/{own}) and no specific platform was requested"
            )),
            None => {}
        }
        Ok((image, warnings))
    }

    /// Defaults that `inspect` shows.
    fn fill_in(
        &self,
        id: &str,
        config: &mut ContainerConfig,
        host: &mut HostConfig,
        network: &NetworkSpec,
    ) -> Result<()> {
        if config.hostname.as_deref().unwrap_or_default().is_empty() {
            config.hostname = match network {
                NetworkSpec::Own { mode: NetworkMode::Host, .. } => Some(self.node.hostname.clone()),
                NetworkSpec::Container(_) => None,
                NetworkSpec::Own { .. } => Some(names::short(id).to_owned()),
            };
        }
        for field in [&mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(target) = field.as_deref().and_then(|mode| mode.strip_prefix("container:")) {
                *field = Some(format!("container:{}", self.donor(target)?.id));
            }
        }
        let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        if empty(&host.ipc_mode) {
            host.ipc_mode = Some("private".to_owned());
        }
        if empty(&host.runtime) {
            host.runtime = Some(shoal_bundle::RUNTIME.to_owned());
        }
        if host.shm_size.unwrap_or_default() == 0 {
            host.shm_size = Some(DEFAULT_SHM);
        }
        if host.restart_policy.as_ref().is_none_or(|p| p.name.is_none_or(|n| n == RestartPolicyNameEnum::EMPTY)) {
            let maximum_retry_count = host.restart_policy.as_ref().and_then(|p| p.maximum_retry_count).or(Some(0));
            host.restart_policy = Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count });
        }
        host.log_config =
            Some(log_options::effective(host.log_config.take(), &self.config.log_driver, &self.config.log_opts));
        Ok(())
    }

    fn reserve_name(&self, name: Option<String>, id: &str) -> Result<String> {
        if let Some(name) = name {
            self.containers.reserve(&name, id)?;
            return Ok(name);
        }
        let mut attempt = 0;
        loop {
            let name = names::new_name(&mut rand::rng(), attempt);
            match self.containers.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(_) => attempt += 1,
            }
        }
    }

    /// `--volumes-from NAME[:ro]`.
    fn inherited_mounts(&self, host: &HostConfig) -> Result<Vec<MountSpec>> {
        let mut all = Vec::new();
        for text in host.volumes_from.iter().flatten() {
            let (name, mode) = text.split_once(':').unwrap_or((text, ""));
            if !matches!(mode, "" | "rw" | "ro" | "z" | "Z") {
                return Err(Error::invalid(format!("invalid mode for volumes-from: {mode}")));
            }
            let donor = self.donor(name)?.spec();
            let mounts = donor.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs);
            all.extend(mounts.map(|mount| MountSpec {
                rw: mount.rw && mode != "ro",
                copy: false,
                anonymous: false,
                ..mount.clone()
            }));
        }
        Ok(all)
    }

    /// Makes the volumes of a container that are not there, and puts their directories into its mounts. Returns the new ones.
    async fn ensure_volumes(self: &Arc<Self>, spec: &mut ContainerSpec) -> Result<Vec<String>> {
        let mut made = Vec::new();
        let labels = volume_labels(&spec.host_config);
        for mount in spec.mounts.iter_mut().filter(|mount| mount.kind == MountKind::Volume) {
            if mount.volume.is_empty() {
                mount.volume = names::new_id(&mut rand::rng());
            }
            let labels =
                labels.iter().find(|(at, _)| *at == mount.destination).map(|(_, l)| l.clone()).unwrap_or_default();
            match self.volumes.ensure(&mount.volume, labels, mount.anonymous).await {
                Ok((path, new)) => {
                    mount.source = path.to_string_lossy().into_owned();
                    if new {
                        self.volume_event(&mount.volume, "create", &[("driver", "local".to_owned())]);
                        made.push(mount.volume.clone());
                    }
                }
                Err(error) => {
                    for name in &made {
                        self.discard_volume(name).await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    async fn discard_volume(&self, name: &str) {
        match self.volumes.remove(name).await {
            Ok(()) => self.volume_event(name, "destroy", &[("driver", "local".to_owned())]),
            Err(error) => tracing::warn!(volume = name, %error, "volume of a failed creation stays"),
        }
    }

    /// Emits an event of a volume.
    pub(crate) fn volume_event(&self, name: &str, action: &str, attributes: &[(&str, String)]) {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        self.events.emit(EventMessageTypeEnum::VOLUME, action, name, attributes);
    }
}

fn volume_labels(host: &HostConfig) -> Vec<(String, HashMap<String, String>)> {
    let mounts = host.mounts.iter().flatten();
    let labelled = mounts.filter_map(|mount| {
        let labels = mount.volume_options.as_ref()?.labels.clone()?;
        Some((mounts::clean(mount.target.as_deref()?), labels))
    });
    labelled.collect()
}

/// A bind of the `Mounts` list is not made where it is missing.
fn check_bind_sources(mounts: &[MountSpec]) -> Result<()> {
    let mut seen = HashSet::new();
    for mount in mounts.iter().filter(|m| m.kind == MountKind::Bind && !m.create_source && seen.insert(&m.source)) {
        if std::fs::symlink_metadata(&mount.source).is_err() {
            return Err(Error::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                mount.source
            )));
        }
    }
    Ok(())
}
