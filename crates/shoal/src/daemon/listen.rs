//! The daemon's addresses: unix sockets and TCP, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, chown};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, UnixListener};

use super::flags::Tls;

/// Sockets that are served when no `-H` is given; the second only where no live engine holds it.
const DEFAULT_SOCKETS: [&str; 2] = ["/run/shoal.sock", "/run/docker.sock"];

/// Something to accept connections on.
pub enum Listener {
    /// A unix socket; its file is removed when the daemon ends.
    Unix(UnixListener, PathBuf),
    /// A TCP address.
    Tcp(TcpListener, Option<Arc<ServerConfig>>),
}

impl Listener {
    /// The file of a unix socket.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Unix(_, path) => Some(path.clone()),
            Self::Tcp(..) => None,
        }
    }
}

/// Why an address cannot be served. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("address \"{0}\" is neither unix:///path nor tcp://host:port")]
    Form(String),
    #[error("socket {0} is already served by another engine")]
    Served(PathBuf),
    #[error("cannot serve {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("{0} is reachable from other machines: give --tlsverify, so that only clients with a certificate get in")]
    Open(String),
    #[error("cannot use TLS file {path}: {reason}")]
    Tls { path: PathBuf, reason: String },
}

/// Binds all addresses, or none.
///
/// # Errors
/// The first address that cannot be served.
pub async fn bind(hosts: &[String], tls: Option<&Tls>) -> Result<Vec<Listener>, ListenError> {
    let config = tls.map(server_config).transpose()?.map(Arc::new);
    let verified = tls.is_some_and(|t| t.verify);
    let mut listeners = Vec::new();
    for host in hosts {
        listeners.push(match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => bind_unix(Path::new(path))?,
            Some(("tcp", address)) => bind_tcp(address, config.clone(), verified).await?,
            _ => return Err(ListenError::Form(host.clone())),
        });
    }
    if hosts.is_empty() {
        let [own, docker] = DEFAULT_SOCKETS.map(Path::new);
        listeners.push(bind_unix(own)?);
        match bind_unix(docker) {
            Ok(listener) => listeners.push(listener),
            Err(ListenError::Served(path)) => {
                tracing::info!("{} belongs to another engine; serving {} only", path.display(), own.display());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn bind_unix(path: &Path) -> Result<Listener, ListenError> {
    if UnixStream::connect(path).is_ok() {
        return Err(ListenError::Served(path.to_owned()));
    }
    let failed = |source| ListenError::Bind { address: format!("unix://{}", path.display()), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // Bound under another name and renamed, so that nobody can connect before the mode is right.
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let group = docker_group();
    let ready = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| chown(&fresh, None, group).map_err(io::Error::from))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = ready {
        if let Err(left) = std::fs::remove_file(&fresh) {
            tracing::warn!("cannot remove {}: {left}", fresh.display());
        }
        return Err(failed(error));
    }
    Ok(Listener::Unix(listener, path.to_owned()))
}

/// The group `docker`, where there is one; read from the file, since a static binary loads no name services.
fn docker_group() -> Option<Gid> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|l| l.starts_with("docker:"))?;
    line.split(':').nth(2)?.parse().ok().map(Gid::from_raw)
}

async fn bind_tcp(address: &str, tls: Option<Arc<ServerConfig>>, verified: bool) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Bind { address: format!("tcp://{address}"), source };
    let candidates: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(failed)?.collect();
    if !verified && candidates.iter().any(|a| !a.ip().is_loopback()) {
        return Err(ListenError::Open(format!("tcp://{address}")));
    }
    Ok(Listener::Tcp(TcpListener::bind(&candidates[..]).await.map_err(failed)?, tls))
}

fn server_config(tls: &Tls) -> Result<ServerConfig, ListenError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |e: &dyn std::fmt::Display| ListenError::Tls { path: path.clone(), reason: e.to_string() }
    };
    let certs = certificates(&tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| wrong(&tls.key)(&e))?;
    let builder = ServerConfig::builder();
    let builder = if tls.verify {
        let mut roots = RootCertStore::empty();
        for cert in certificates(&tls.ca)? {
            roots.add(cert).map_err(|e| wrong(&tls.ca)(&e))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| wrong(&tls.ca)(&e))?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    builder.with_single_cert(certs, key).map_err(|e| wrong(&tls.cert)(&e))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| ListenError::Tls { path: path.to_owned(), reason: e.to_string() })
}
