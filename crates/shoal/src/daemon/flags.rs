//! What the daemon is told: flags and the configuration file, merged into one value.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use shoal_types::{GenericResource, generic};

/// Where the configuration file is looked for when no flag names one.
const DEFAULT_FILE: &str = "/etc/shoal/daemon.json";

/// Flags of `shoal daemon`. The configuration file has the same names.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Flags {
    /// Address to serve, `unix:///path` or `tcp://host:port` (repeatable)
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    #[serde(alias = "hosts")]
    host: Vec<String>,
    /// Directory of everything that survives a reboot [default: /var/lib/shoal]
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Directory of everything that does not [default: /run/shoal]
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// File that names the daemon's process [default: EXEC_ROOT/shoal.pid]
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// trace, debug, info, warn or error [default: info]
    #[arg(short, long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Configuration file, JSON [default: /etc/shoal/daemon.json where it exists]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config_file: Option<PathBuf>,
    /// Mirror of Docker Hub (repeatable)
    #[arg(long, value_name = "URL")]
    #[serde(alias = "registry-mirrors")]
    registry_mirror: Vec<String>,
    /// Registry, `host[:port]` or CIDR, that may be spoken to without verified TLS (repeatable)
    #[arg(long, value_name = "REGISTRY")]
    #[serde(alias = "insecure-registries")]
    insecure_registry: Vec<String>,
    /// Label of this engine, `KEY=VALUE` (repeatable)
    #[arg(long, value_name = "LABEL")]
    #[serde(alias = "labels")]
    label: Vec<String>,
    /// What this node has for services to reserve, `KIND=NUMBER` or `KIND=NAME` (repeatable)
    #[arg(long, value_name = "KIND=VALUE")]
    #[serde(alias = "node-generic-resources")]
    node_generic_resource: Vec<String>,
    /// Serve TCP addresses with TLS
    #[arg(long)]
    tls: bool,
    /// Serve TCP addresses with TLS, to clients with a certificate of --tlscacert only
    #[arg(long)]
    tlsverify: bool,
    /// Authority that client certificates are checked against
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Certificate of this engine
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

/// What applies, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to serve; empty: the default sockets.
    pub hosts: Vec<String>,
    /// Everything that survives a reboot.
    pub data_root: PathBuf,
    /// Everything that does not.
    pub exec_root: PathBuf,
    /// Names the daemon's process.
    pub pidfile: PathBuf,
    /// The log filter.
    pub log_level: tracing::Level,
    /// Mirrors of Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// Registries without verified TLS.
    pub insecure_registries: Vec<String>,
    /// Engine labels.
    pub labels: Vec<String>,
    /// What the node has besides CPUs and memory.
    pub generic_resources: Vec<GenericResource>,
    /// How TCP addresses are served; absent: plain.
    pub tls: Option<Tls>,
}

/// Files for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Clients must have a certificate of `ca`.
    pub verify: bool,
    /// Authority of client certificates.
    pub ca: PathBuf,
    /// Certificate of this engine.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why the daemon was told nonsense. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read configuration file {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("configuration file {path} is not valid: {source}")]
    Invalid { path: PathBuf, source: serde_json::Error },
    #[error("{0} is given both as a flag and in the configuration file; keep one")]
    Twice(&'static str),
    #[error("invalid log level \"{0}\": it is trace, debug, info, warn or error")]
    LogLevel(String),
    #[error(transparent)]
    Generic(#[from] generic::GenericError),
    #[error("invalid label \"{0}\": it has the form KEY=VALUE")]
    Label(String),
    #[error("--tlsverify and --tls need the certificate and key of this engine: {0} is not there")]
    TlsFile(PathBuf),
}

// === impl Flags ===

impl Flags {
    /// Reads the configuration file, merges it under the flags and fills in what neither says.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid, something given twice, or a value that means nothing.
    pub fn settle(self) -> Result<Settings, SettingsError> {
        let file = match &self.config_file {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        self.merge(file)?.fill()
    }

    fn merge(self, file: Self) -> Result<Self, SettingsError> {
        Ok(Self {
            host: list("hosts", self.host, file.host)?,
            data_root: one("data-root", self.data_root, file.data_root)?,
            exec_root: one("exec-root", self.exec_root, file.exec_root)?,
            pidfile: one("pidfile", self.pidfile, file.pidfile)?,
            log_level: one("log-level", self.log_level, file.log_level)?,
            config_file: self.config_file,
            registry_mirror: list("registry-mirrors", self.registry_mirror, file.registry_mirror)?,
            insecure_registry: list("insecure-registries", self.insecure_registry, file.insecure_registry)?,
            label: list("labels", self.label, file.label)?,
            node_generic_resource: list(
                "node-generic-resources",
                self.node_generic_resource,
                file.node_generic_resource,
            )?,
            tls: self.tls || file.tls,
            tlsverify: self.tlsverify || file.tlsverify,
            tlscacert: one("tlscacert", self.tlscacert, file.tlscacert)?,
            tlscert: one("tlscert", self.tlscert, file.tlscert)?,
            tlskey: one("tlskey", self.tlskey, file.tlskey)?,
        })
    }

    fn fill(self) -> Result<Settings, SettingsError> {
        if let Some(bad) = self.label.iter().find(|l| l.split_once('=').is_none_or(|(key, _)| key.is_empty())) {
            return Err(SettingsError::Label(bad.clone()));
        }
        let exec_root = self.exec_root.clone().unwrap_or_else(|| "/run/shoal".into());
        Ok(Settings {
            tls: self.tls()?,
            hosts: self.host,
            data_root: self.data_root.unwrap_or_else(|| "/var/lib/shoal".into()),
            pidfile: self.pidfile.unwrap_or_else(|| exec_root.join("shoal.pid")),
            exec_root,
            log_level: match self.log_level.as_deref() {
                None => tracing::Level::INFO,
                Some(level) => level.parse().map_err(|_| SettingsError::LogLevel(level.to_owned()))?,
            },
            registry_mirrors: self.registry_mirror,
            insecure_registries: self.insecure_registry,
            labels: self.label,
            generic_resources: generic::parse(&self.node_generic_resource)?,
        })
    }

    fn tls(&self) -> Result<Option<Tls>, SettingsError> {
        if !self.tls && !self.tlsverify {
            return Ok(None);
        }
        let file = |given: &Option<PathBuf>, default: &str| given.clone().unwrap_or_else(|| default.into());
        let tls = Tls {
            verify: self.tlsverify,
            ca: file(&self.tlscacert, "/etc/shoal/ca.pem"),
            cert: file(&self.tlscert, "/etc/shoal/cert.pem"),
            key: file(&self.tlskey, "/etc/shoal/key.pem"),
        };
        let needed = [&tls.cert, &tls.key].into_iter().chain(tls.verify.then_some(&tls.ca));
        let missing = needed.into_iter().find(|f| !f.exists()).cloned();
        match missing {
            Some(missing) => Err(SettingsError::TlsFile(missing)),
            None => Ok(Some(tls)),
        }
    }
}

fn read(path: &Path) -> Result<Flags, SettingsError> {
    let text = std::fs::read(path).map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    // A list of no members would pass for an object of no members otherwise.
    serde_json::from_slice::<serde_json::Map<_, _>>(&text)
        .and_then(|members| serde_json::from_value(members.into()))
        .map_err(|source| SettingsError::Invalid { path: path.to_owned(), source })
}

fn one<T>(name: &'static str, flag: Option<T>, file: Option<T>) -> Result<Option<T>, SettingsError> {
    if flag.is_some() && file.is_some() { Err(SettingsError::Twice(name)) } else { Ok(flag.or(file)) }
}

fn list<T>(name: &'static str, flag: Vec<T>, file: Vec<T>) -> Result<Vec<T>, SettingsError> {
    if !flag.is_empty() && !file.is_empty() {
        return Err(SettingsError::Twice(name));
    }
    Ok(if flag.is_empty() { file } else { flag })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Flags {
        serde_json::from_str(text).expect("a valid file")
    }

    #[test]
    fn flags_and_file_add_up_and_may_not_repeat_each_other() {
        let flags = Flags { data_root: Some("/a".into()), ..Flags::default() };
        let settings = flags.merge(file(r#"{"exec-root": "/b", "hosts": ["unix:///c"]}"#)).unwrap().fill().unwrap();
        assert_eq!((settings.data_root, settings.pidfile), ("/a".into(), "/b/shoal.pid".into()));
        assert_eq!(settings.hosts, ["unix:///c"]);
        let flags = Flags { data_root: Some("/a".into()), ..Flags::default() };
        let twice = flags.merge(file(r#"{"data-root": "/b"}"#)).unwrap_err();
        assert_eq!(twice.to_string(), "data-root is given both as a flag and in the configuration file; keep one");
    }

    #[test]
    fn nonsense_is_named() {
        let bad = |flags: Flags| flags.fill().unwrap_err().to_string();
        assert!(bad(Flags { label: vec!["x".into()], ..Flags::default() }).contains("invalid label \"x\""));
        let resources = vec!["gpu=a".into(), "gpu=2".into()];
        assert!(
            bad(Flags { node_generic_resource: resources, ..Flags::default() }).contains("mixed discrete and named")
        );
        assert!(bad(Flags { log_level: Some("loud".into()), ..Flags::default() }).contains("invalid log level"));
        assert!(bad(Flags { tls: true, tlscert: Some("/none".into()), ..Flags::default() }).contains("/none"));
        assert!(serde_json::from_str::<Flags>(r#"{"no-such": 1}"#).unwrap_err().to_string().contains("no-such"));
    }
}
