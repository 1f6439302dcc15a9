//! Which addresses a registry's name stands for, in the order in which they are tried.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::RegistryConfig;
use crate::reference::DEFAULT_DOMAIN;

const DEFAULT_REGISTRY: &str = "registry-1.docker.io";

/// The registry settings, checked.
pub(crate) struct Registry {
    pub config: Arc<RegistryConfig>,
    insecure_networks: Vec<IpNet>,
    /// Downloads that may run at once.
    pub downloads: Arc<Semaphore>,
}

/// One address of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `scheme://host[:port][/prefix]`, no slash at the end.
    pub base: String,
    pub host: String,
    /// Whether its certificate is not checked.
    pub insecure: bool,
    pub loopback: bool,
    /// Whether it stands in for docker.io.
    pub mirror: bool,
}

/// Why the registry settings cannot be used. The texts are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryConfigError {
    /// A mirror is no URL.
    #[error("invalid mirror: {0:?} is not a valid URI: {1}")]
    NotUri(String, url::ParseError),
    /// A mirror without a scheme.
    #[error("invalid mirror: no scheme specified for {0:?}: must use either 'https://' or 'http://'")]
    NoScheme(String),
    /// A mirror with another scheme.
    #[error("invalid mirror: unsupported scheme {0:?} in {1:?}: must use either 'https://' or 'http://'")]
    Scheme(String, String),
    /// A mirror with a query or fragment.
    #[error("invalid mirror: query or fragment at end of the URI {0:?}")]
    Query(String),
    /// A mirror with credentials.
    #[error("invalid mirror: username/password not allowed in URI {0:?}")]
    Credentials(String),
    /// An insecure registry that is a URL.
    #[error("insecure registry {0} should not contain '://'")]
    InsecureUrl(String),
    /// An insecure registry that is no host.
    #[error("insecure registry {0} is not valid: invalid host {0:?}")]
    InsecureHost(String),
    /// A limit of zero would stop every pull.
    #[error("invalid value for {0}: it must be at least 1")]
    Zero(&'static str),
}

impl Registry {
    /// Checks the settings.
    pub fn new(mut config: RegistryConfig) -> Result<Self, RegistryConfigError> {
        for mirror in &mut config.mirrors {
            *mirror = check_mirror(mirror)?;
        }
        for (name, zero) in [
            ("max-concurrent-downloads", config.max_concurrent_downloads == 0),
            ("max-download-attempts", config.max_download_attempts == 0),
            ("the registry timeout", config.stall_timeout == Duration::ZERO),
        ] {
            if zero {
                return Err(RegistryConfigError::Zero(name));
            }
        }
        let insecure_networks = config.insecure.iter().filter_map(|entry| entry.parse().ok()).collect();
        for entry in config.insecure.iter().filter(|entry| entry.parse::<IpNet>().is_err()) {
            check_insecure(entry)?;
        }
        let downloads = Arc::new(Semaphore::new(config.max_concurrent_downloads));
        Ok(Self { config: Arc::new(config), insecure_networks, downloads })
    }

    /// The addresses for a registry's name. HTTPS comes before HTTP, mirrors before docker.io itself.
    pub(super) fn endpoints(&self, domain: &str) -> Vec<Endpoint> {
        if domain == DEFAULT_DOMAIN {
            let mirrors = self.config.mirrors.iter().map(|mirror| {
                let (_, rest) = mirror.split_once("://").unwrap_or_default();
                let host = rest.split('/').next().unwrap_or_default();
                self.endpoint(mirror.clone(), host, true)
            });
            return mirrors
                .chain([self.endpoint(format!("https://{DEFAULT_REGISTRY}"), DEFAULT_REGISTRY, false)])
                .collect();
        }
        let secure = self.endpoint(format!("https://{domain}"), domain, false);
        let plain = secure.insecure.then(|| Endpoint { base: format!("http://{domain}"), ..secure.clone() });
        [secure].into_iter().chain(plain).collect()
    }

    fn endpoint(&self, base: String, host: &str, mirror: bool) -> Endpoint {
        let loopback = is_loopback(host);
        Endpoint { base, host: host.to_owned(), insecure: loopback || self.is_insecure(host), loopback, mirror }
    }

    /// Networks match hosts that are written as addresses.
    fn is_insecure(&self, host: &str) -> bool {
        let name = without_port(host);
        let address = name.parse::<IpAddr>();
        self.config.insecure.iter().any(|entry| entry == host)
            || address.is_ok_and(|address| self.insecure_networks.iter().any(|network| network.contains(&address)))
    }
}

fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn check_mirror(text: &str) -> Result<String, RegistryConfigError> {
    if text.split_once("://").is_none_or(|(scheme, _)| scheme.is_empty()) {
        return Err(RegistryConfigError::NoScheme(text.to_owned()));
    }
    let url = url::Url::parse(text).map_err(|error| RegistryConfigError::NotUri(text.to_owned(), error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(RegistryConfigError::Scheme(url.scheme().to_owned(), text.to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(RegistryConfigError::Query(text.to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RegistryConfigError::Credentials(text.to_owned()));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn check_insecure(entry: &str) -> Result<(), RegistryConfigError> {
    if entry.contains("://") {
        return Err(RegistryConfigError::InsecureUrl(entry.to_owned()));
    }
    let port_fits = entry.rsplit_once(':').is_none_or(|(_, port)| port.ends_with(']') || port.parse::<u16>().is_ok());
    let host_fits = !entry.is_empty() && !entry.starts_with('-') && !entry.contains(['/', ' ']);
    if port_fits && host_fits { Ok(()) } else { Err(RegistryConfigError::InsecureHost(entry.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(mirrors: &[&str], insecure: &[&str]) -> Result<Registry, RegistryConfigError> {
        let own = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect();
        Registry::new(RegistryConfig { mirrors: own(mirrors), insecure: own(insecure), ..RegistryConfig::default() })
    }

    fn bases(registry: &Registry, domain: &str) -> Vec<String> {
        registry.endpoints(domain).into_iter().map(|endpoint| endpoint.base).collect()
    }

    #[test]
    fn docker_io_has_its_mirrors_first() {
        let registry = registry(&["http://127.0.0.1:5001/", "https://mirror.example/prefix"], &[]).expect("fine");
        assert_eq!(
            bases(&registry, "docker.io"),
            ["http://127.0.0.1:5001", "https://mirror.example/prefix", "https://registry-1.docker.io"]
        );
    }

    #[test]
    fn only_loopback_and_declared_registries_may_speak_http() {
        let registry = registry(&[], &["reg.example:5000", "10.0.0.0/8"]).expect("fine");
        for insecure in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.8.8",
            "[::1]:5000",
            "reg.example:5000",
            "10.1.2.3:443",
        ] {
            assert_eq!(bases(&registry, insecure), [format!("https://{insecure}"), format!("http://{insecure}")]);
        }
        for secure in ["reg.example", "reg.example:5001", "11.0.0.1:5000", "localhost.example"] {
            assert_eq!(bases(&registry, secure), [format!("https://{secure}")]);
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        let refused =
            |mirrors: &[&str], insecure: &[&str]| registry(mirrors, insecure).err().map(|error| error.to_string());
        assert!(refused(&["mirror.example"], &[]).is_some_and(|text| text.contains("no scheme specified")));
        assert!(refused(&["ftp://mirror.example"], &[]).is_some_and(|text| text.contains("unsupported scheme")));
        assert!(refused(&["http://u:p@mirror.example"], &[]).is_some_and(|text| text.contains("username/password")));
        assert!(refused(&["http://mirror.example/?x"], &[]).is_some_and(|text| text.contains("query or fragment")));
        assert!(refused(&[], &["http://reg.example"]).is_some_and(|text| text.contains("://")));
        assert!(refused(&[], &["reg.example:port"]).is_some_and(|text| text.contains("not valid")));
    }
}
