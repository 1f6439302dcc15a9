//! The HTTP client: TLS with our own provider and the machine's certificates, and names resolved without the C library.
//!
//! A client lives as long as one pull, so that an idle daemon holds neither certificates nor connections.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::RegistryConfig;
use super::error::RegistryError;

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A name that could not be resolved, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("lookup {name}: {reason}")]
pub(super) struct LookupError {
    name: String,
    reason: String,
}

/// Resolves by the machine's own hosts file and name servers.
struct Resolver(Arc<tokio::sync::OnceCell<TokioResolver>>);

/// Accepts any certificate: for registries that the administrator declared insecure.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

/// What the administrator put into the certificate directory for one registry.
#[derive(Default)]
struct HostCertificates {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// A client for one registry.
pub(super) fn client(
    config: &RegistryConfig,
    host: &str,
    insecure: bool,
    loopback: bool,
) -> Result<reqwest::Client, RegistryError> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(config, host, insecure)?)
        .dns_resolver(Resolver(Arc::default()))
        .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
        .connect_timeout(CONNECT_TIMEOUT.min(config.stall_timeout))
        .http1_only()
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")));
    // a proxy cannot reach our loopback
    let builder = if loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| certificates(host, error))
}

fn tls(config: &RegistryConfig, host: &str, insecure: bool) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| certificates(host, error))?;
    let own = match &config.certs_dir {
        Some(dir) => read_host_certificates(&dir.join(host))?,
        None => HostCertificates::default(),
    };
    let builder = if insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider.signature_verification_algorithms)))
    } else {
        builder.with_root_certificates(roots(own.authorities))
    };
    match own.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| certificates(host, error)),
    }
}

/// The machine's authorities and the registry's own. A machine may well have none of its own.
fn roots(own: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "a certificate of this machine cannot be read");
    }
    roots.add_parsable_certificates(found.certs.into_iter().chain(own));
    roots
}

fn read_host_certificates(dir: &Path) -> Result<HostCertificates, RegistryError> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(HostCertificates::default()) };
    let mut found = HostCertificates::default();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.extend(read_certificates(&path)?),
            Some("cert") => {
                let key_path = path.with_extension("key");
                let pem = fs::read(&key_path).map_err(|error| certificates(&key_path.to_string_lossy(), error))?;
                let key = rustls_pemfile::private_key(&mut pem.as_slice())
                    .map_err(|error| certificates(&key_path.to_string_lossy(), error))?;
                let key = key.ok_or_else(|| certificates(&key_path.to_string_lossy(), "no private key"))?;
                found.identity = Some((read_certificates(&path)?, key));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let pem = fs::read(path).map_err(|error| certificates(&path.to_string_lossy(), error))?;
    let read: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_slice()).collect();
    read.map_err(|error| certificates(&path.to_string_lossy(), error))
}

fn certificates(path: &str, reason: impl std::fmt::Display) -> RegistryError {
    RegistryError::Certificates { path: path.to_owned(), reason: reason.to_string() }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let addresses = lookup(&resolver, name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

async fn lookup(cell: &tokio::sync::OnceCell<TokioResolver>, name: &str) -> Result<Vec<SocketAddr>, LookupError> {
    let failed = |reason: String| LookupError { name: name.to_owned(), reason };
    let resolver = cell
        .get_or_try_init(|| async {
            let mut builder = TokioResolver::builder_tokio()?;
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        })
        .await
        .map_err(|error| failed(error.to_string()))?;
    match resolver.lookup_ip(name).await {
        Ok(found) => Ok(found.iter().map(|address| SocketAddr::new(address, 0)).collect()),
        Err(error) if error.is_no_records_found() => Err(failed("no such host".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// An HTTPS server for `localhost` that answers every request; its certificate in PEM.
    async fn serve() -> (String, String) {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("a certificate");
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let host = format!("localhost:{}", listener.local_addr().expect("bound").port());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.ok();
                    stream.shutdown().await.ok();
                }
            }
        });
        (host, own.cert.pem())
    }

    async fn get(config: &RegistryConfig, host: &str, insecure: bool) -> Result<u16, String> {
        let url = format!("https://{host}/v2/");
        let client = client(config, host, insecure, true).map_err(|error| error.to_string())?;
        let sent = client.get(&url).send().await;
        let failed = |error| RegistryError::http(&reqwest::Method::GET, &url, &error).to_string();
        sent.map(|response| response.status().as_u16()).map_err(failed)
    }

    #[tokio::test]
    async fn a_registrys_certificate_is_checked_against_the_authorities_for_it_unless_it_is_insecure() {
        let (host, pem) = serve().await;
        let config = RegistryConfig::default();
        let error = get(&config, &host, false).await.expect_err("unknown authority");
        assert_eq!(
            error,
            format!(
                "Get \"https://{host}/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
            )
        );
        assert_eq!(get(&config, &host, true).await, Ok(200));

        let dir = tempfile::tempdir().expect("temp dir");
        let own = dir.path().join(&host);
        fs::create_dir(&own).expect("made");
        fs::write(own.join("ca.crt"), pem).expect("written");
        let config = RegistryConfig { certs_dir: Some(dir.path().to_owned()), ..config };
        assert_eq!(get(&config, &host, false).await, Ok(200));
        fs::write(own.join("client.cert"), "").expect("written");
        let error = get(&config, &host, false).await.expect_err("no key");
        assert!(error.contains("client.key"), "{error}");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_named_as_such() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let host = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).await.ok();
                stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request").await.ok();
            }
        });
        let error = get(&RegistryConfig::default(), &host, true).await.expect_err("no TLS");
        assert_eq!(error, format!("Get \"https://{host}/v2/\": http: server gave HTTP response to HTTPS client"));
    }
}
