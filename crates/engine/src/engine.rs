//! The engine: what it holds, and how it is opened.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use shoal_image::{ImageStore, RegistryConfig, StoreConfig};
use shoal_network::NodeNetwork;
use shoal_runtime::Stage;

use crate::adopt;
use crate::config::EngineConfig;
use crate::container::registry::Registry;
use crate::error::OpenError;
use crate::events::Events;
use crate::host::Host;
use crate::layout::Layout;
use crate::record::Record;
use crate::volumes::Volumes;

/// The containers, images, volumes and networks of this node. One per data root; share it in an `Arc`.
///
/// What changes something goes on to its end when the caller loses interest (drops the future).
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) layout: Layout,
    pub(crate) node: Host,
    /// Stays the same for the life of the data root.
    pub(crate) id: String,
    pub(crate) record: Record,
    pub(crate) images: ImageStore,
    pub(crate) network: NodeNetwork,
    pub(crate) containers: Registry,
    pub(crate) volumes: Volumes,
    pub(crate) events: Events,
    /// The binary by a path that nothing in a container can write to.
    pub(crate) exe: PathBuf,
    /// Held as long as the engine is.
    _locks: [Flock<File>; 2],
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_root", &self.config.data_root).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine: takes its roots, finds the containers that an earlier daemon left running, goes on with them,
    /// reports those that ended meanwhile, applies restart policies, and sweeps what was left half-made.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>, OpenError> {
        let layout = Layout::new(&config.data_root, &config.exec_root);
        if !config.data_root.is_absolute() || !config.exec_root.is_absolute() {
            return Err(OpenError::Config("data root and exec root must be absolute paths".to_owned()));
        }
        layout.ensure().map_err(|(path, source)| OpenError::Root { path, source })?;
        let locks = lock(&layout)?;
        check_log_driver(&config)?;
        check_record(&layout)?;
        let id = ensure_id(&layout)?;
        let exe = shoal_runtime::ensure_sealed_exe(&config.exe, &layout.sealed())?;
        let record = Record::open(&layout.record())?;
        let Stage { rootfs: mounts, netns } = shoal_runtime::ensure_stage(&layout.stage())?;
        let images =
            ImageStore::open(StoreConfig { root: layout.images(), mounts, registry: registry_config(&config) })?;
        let volumes = Volumes::open(&layout, record.clone())?;
        let found = adopt::find(&layout, &record).await?;
        let network =
            NodeNetwork::open(network_config(&config, layout.network(), netns), found.live_endpoints()).await?;
        let engine = Arc::new(Self {
            node: Host::read(),
            id,
            record,
            images,
            network,
            containers: Registry::default(),
            volumes,
            events: Events::new(),
            exe,
            _locks: locks,
            layout,
            config,
        });
        engine.adopt(found).await;
        Ok(engine)
    }

    /// Where everything that survives a reboot lies.
    pub fn data_root(&self) -> &Path {
        &self.config.data_root
    }

    /// This node's id as an engine: the same for the life of the data root.
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn check_log_driver(config: &EngineConfig) -> Result<(), OpenError> {
    let effective = crate::container::log_options::effective(None, &config.log_driver, &config.log_opts);
    crate::container::log_options::parse(&effective).map(drop).map_err(|e| OpenError::Config(e.to_string()))
}

/// Without the record nobody knows what the directories are: they must not be taken for leavings and swept.
fn check_record(layout: &Layout) -> Result<(), OpenError> {
    if layout.record().exists() {
        return Ok(());
    }
    for dir in [layout.containers(), layout.volumes()] {
        if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
            let (record, dir) = (layout.record(), dir);
            return Err(OpenError::Config(format!(
                "{} is missing, but {} is not empty: restore the one or move the other away",
                record.display(),
                dir.display()
            )));
        }
    }
    Ok(())
}

fn registry_config(config: &EngineConfig) -> RegistryConfig {
    RegistryConfig {
        mirrors: config.registry_mirrors.clone(),
        insecure: config.insecure_registries.clone(),
        ..RegistryConfig::default()
    }
}

fn network_config(config: &EngineConfig, state: PathBuf, netns: PathBuf) -> shoal_network::Config {
    shoal_network::Config {
        bridge: config.bridge.name.clone(),
        subnet: config.bridge.subnet,
        subnet6: config.bridge.subnet6,
        mtu: config.bridge.mtu,
        publish_address: config.bridge.publish_address,
        ..shoal_network::Config::new(state, netns)
    }
}

/// The locks are the kernel's: they go with the process, whatever ends it.
fn lock(layout: &Layout) -> Result<[Flock<File>; 2], OpenError> {
    let [data, exec] = layout.locks();
    let data = lock_file(&data, layout.data_root())?;
    let exec = lock_file(&exec, exec.parent().unwrap_or(Path::new("/")))?;
    Ok([data, exec])
}

fn lock_file(path: &Path, root: &Path) -> Result<Flock<File>, OpenError> {
    let failed = |source| OpenError::Root { path: path.to_owned(), source };
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).and_then(|()| lock.rewind()).map_err(failed)?;
            writeln!(lock, "{}", std::process::id()).map_err(failed)?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let read = file.read_to_string(&mut holder);
            let holder = read.ok().map(|_| holder.trim().to_owned()).filter(|pid| !pid.is_empty());
            Err(OpenError::InUse { root: root.to_owned(), holder: holder.unwrap_or_else(|| "unknown".to_owned()) })
        }
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// The node's id, made at the first start.
fn ensure_id(layout: &Layout) -> Result<String, OpenError> {
    let path = layout.data_root().join("id");
    let failed = |source| OpenError::Root { path: path.clone(), source };
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => {
            let hex = crate::names::new_id(&mut rand::rng());
            let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-");
            std::fs::write(&path, &id).map_err(failed)?;
            Ok(id)
        }
    }
}

/// Runs work to its end even if the caller loses interest.
pub(crate) async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // the runtime is going down, and the caller with it
        Err(_) => std::future::pending().await,
    }
}

/// Runs disk work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => std::future::pending().await,
    }
}
