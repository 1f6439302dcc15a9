//! Who this node is in its cluster: key, certificate and the root that it trusts, on disk (swarm-semantics 8.3) and as
//! TLS settings. The key is the identity; addresses are only data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use shoal_types::spec::NodeRole;
use shoal_types::{ClusterId, NodeId, Timestamp};
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity};
use x509_parser::prelude::X509Name;

use crate::paths::write_durably;

const ROOT: &str = "swarm-root-ca.crt";
const CERT: &str = "swarm-node.crt";
const KEY: &str = "swarm-node.key";

/// How far certificates are dated back.
const BACKDATE: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// The name that managers answer to in TLS, whatever their address.
const SERVER_NAME: &str = "swarm-manager";

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// The key, PKCS#8.
    pub key_pem: String,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its identifier: the common name of its certificate.
    pub node: NodeId,
    /// Its cluster: the organisation.
    pub cluster: ClusterId,
    /// What it may do: the organisational unit.
    pub role: NodeRole,
    /// When the certificate was issued, less an hour.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    issued: Issued,
    root_pem: String,
}

/// Why there is no identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate is damaged, or not one of a cluster.
    #[error("the certificate of this node is not usable: {0}")]
    Certificate(String),
}

impl Identity {
    /// Reads who a certificate says that this node is.
    ///
    /// # Errors
    /// It is not a node's certificate.
    pub fn new(issued: Issued, root_pem: String) -> Result<Self, IdentityError> {
        let wrong = |what: &str| IdentityError::Certificate(what.to_owned());
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.cert_pem.as_bytes())
            .map_err(|e| IdentityError::Certificate(e.to_string()))?;
        let cert = pem.parse_x509().map_err(|e| IdentityError::Certificate(e.to_string()))?;
        let time = |t: x509_parser::time::ASN1Time| {
            Timestamp::from_second(t.timestamp()).map_err(|e| IdentityError::Certificate(e.to_string()))
        };
        let name = cert.subject();
        let role = match text(name.iter_organizational_unit()) {
            Some("swarm-manager") => NodeRole::Manager,
            Some("swarm-worker") => NodeRole::Worker,
            _ => return Err(wrong("it names no role")),
        };
        let node =
            text(name.iter_common_name()).and_then(|t| t.parse().ok()).ok_or_else(|| wrong("it names no node"))?;
        let cluster = cluster(name).ok_or_else(|| wrong("it names no cluster"))?;
        let (not_before, not_after) = (time(cert.validity().not_before)?, time(cert.validity().not_after)?);
        Ok(Self { node, cluster, role, not_before, not_after, issued, root_pem })
    }

    /// The identity in `dir`; `None` where there is none.
    ///
    /// # Errors
    /// Its files are damaged or cannot be read.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(cert_pem) = read(&dir.join(CERT))? else { return Ok(None) };
        let missing = |file: &str| IdentityError::Certificate(format!("{file} is missing"));
        let key_pem = read(&dir.join(KEY))?.ok_or_else(|| missing(KEY))?;
        let root_pem = read(&dir.join(ROOT))?.ok_or_else(|| missing(ROOT))?;
        Self::new(Issued { cert_pem, key_pem }, root_pem).map(Some)
    }

    /// Writes the identity to `dir`. The certificate comes last: without it there is no identity.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let write = |file: &str, content: &str, mode| {
            let path = dir.join(file);
            write_durably(&path, content.as_bytes(), mode).map_err(|source| IdentityError::File {
                action: "write",
                path,
                source,
            })
        };
        fs::create_dir_all(dir).map_err(|source| IdentityError::File { action: "write", path: dir.into(), source })?;
        write(ROOT, &self.root_pem, 0o644)?;
        write(KEY, &self.issued.key_pem, 0o600)?;
        write(CERT, &self.issued.cert_pem, 0o644)
    }

    /// The certificates that this node trusts, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// When to ask for a new certificate: at `fraction` of the way from 50 % to 80 % of its life, so that the nodes of a
    /// cluster do not all come at once.
    pub fn renew_at(&self, fraction: f64) -> Timestamp {
        // Its life begins when it was issued; with the hour before, a short one would be due at once.
        let issued = self.not_before.checked_add(BACKDATE).unwrap_or(self.not_before);
        let part = self.not_after.duration_since(issued).mul_f64(0.5 + 0.3 * fraction.clamp(0.0, 1.0));
        issued.checked_add(part).unwrap_or(self.not_after)
    }

    /// TLS for what this node serves to other nodes: only certificates of the cluster get in.
    ///
    /// # Errors
    /// Key and certificate do not belong together.
    pub fn server_tls(&self) -> Result<rustls::ServerConfig, IdentityError> {
        let wrong = |e: &dyn std::fmt::Display| IdentityError::Certificate(e.to_string());
        let certs = |pem: &str| {
            let certs = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            certs.map_err(|e| IdentityError::Certificate(e.to_string()))
        };
        let mut roots = rustls::RootCertStore::empty();
        for root in certs(&self.root_pem)? {
            roots.add(root).map_err(|e| wrong(&e))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let key = PrivateKeyDer::from_pem_slice(self.issued.key_pem.as_bytes()).map_err(|e| wrong(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&e))?
            .with_client_cert_verifier(verifier.map_err(|e| wrong(&e))?)
            .with_single_cert(certs(&self.issued.cert_pem)?, key)
            .map_err(|e| wrong(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// TLS for connections to managers.
    pub fn client_tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.tls_identity())
            .ca_certificate(Certificate::from_pem(&self.root_pem))
            .domain_name(SERVER_NAME)
    }

    fn tls_identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(&self.issued.cert_pem, &self.issued.key_pem)
    }
}

fn text<'a>(mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    values.next().and_then(|v| v.as_str().ok())
}

fn cluster(name: &X509Name<'_>) -> Option<ClusterId> {
    text(name.iter_organization())?.parse().ok()
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { action: "read", path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use shoal_manager::ca::{Subject, issue, new_root};
    use shoal_types::IdSource;

    use super::*;

    struct Count(u8);
    impl IdSource for Count {
        fn random(&mut self) -> [u8; 17] {
            self.0 += 1;
            [self.0; 17]
        }
    }

    fn identity() -> Identity {
        let (ids, now) = (&mut Count(0), Timestamp::from_second(1_800_000_000).unwrap());
        let root = new_root(now).unwrap();
        let subject = Subject { node: NodeId::new(ids), cluster: ClusterId::new(ids), role: NodeRole::Manager };
        let key = rcgen::KeyPair::generate().unwrap();
        let cert_pem = issue(&root, &subject, &key, 90 * 24 * 3600 * 1_000_000_000, now).unwrap();
        Identity::new(Issued { cert_pem, key_pem: key.serialize_pem() }, root.cert_pem).unwrap()
    }

    #[test]
    fn an_identity_survives_its_files_and_its_key_is_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
        let identity = identity();
        identity.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity));
        assert_eq!(fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        identity().save(dir.path()).unwrap();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        assert!(Identity::load(dir.path()).unwrap_err().to_string().contains("swarm-node.key is missing"));
    }

    #[test]
    fn renewal_falls_into_the_second_half_of_a_certificates_life() {
        let identity = identity();
        let days = |t: Timestamp| t.duration_since(identity.not_before).as_hours() / 24;
        assert_eq!((days(identity.renew_at(0.0)), days(identity.renew_at(1.0))), (45, 72));
    }
}
