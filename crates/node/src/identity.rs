//! Who this node is in its cluster: key, certificate and the root that it trusts, as values and as TLS settings. The key is
//! the identity; addresses are only data. On disk it is kept by [`crate::vault`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::PublicKeyData;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use shoal_manager::ca;
use shoal_types::object::TlsInfo;
use shoal_types::spec::NodeRole;
use shoal_types::{ClusterId, NodeId, Timestamp};
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity};
use x509_parser::prelude::X509Name;

/// How far certificates are dated back.
const BACKDATE: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Where a certificate in PEM ends.
const END: &str = "-----END CERTIFICATE-----";

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
    /// The node has left, or stops.
    #[error("this node's membership has ended")]
    Ended,
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

    /// The certificates that this node trusts, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Certificate and key.
    pub(crate) fn issued(&self) -> &Issued {
        &self.issued
    }

    /// The same node, trusting other roots.
    ///
    /// # Errors
    /// `root_pem` is not a certificate.
    pub fn trusting(&self, root_pem: &str) -> Result<Self, IdentityError> {
        ca::first_der(root_pem).map_err(|e| IdentityError::Certificate(e.to_string()))?;
        Ok(Self { root_pem: root_pem.to_owned(), ..self.clone() })
    }

    /// What is shown of the authority that the node trusts, and of the one that issued its certificate.
    ///
    /// # Errors
    /// The root is not a certificate.
    pub fn tls_info(&self) -> Result<TlsInfo, ca::CaError> {
        // The authority of the certificate comes with it while it is not yet the root.
        let chain = self.issued.cert_pem.find(END).map_or("", |end| &self.issued.cert_pem[end + END.len()..]);
        let issuer = if chain.trim().is_empty() { &self.root_pem } else { chain.trim_start() };
        Ok(TlsInfo { trust_root: self.root_pem.clone(), ..ca::tls_info(issuer)? })
    }

    /// Whether the certificate has ended.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.not_after <= now
    }

    /// When to ask for a new certificate: at `fraction` of the way from 50 % to 80 % of its life, so that the nodes of a
    /// cluster do not all come at once.
    pub fn renew_at(&self, fraction: f64) -> Timestamp {
        // Its life begins when it was issued; with the hour before, a short one would be due at once.
        let issued = self.not_before.checked_add(BACKDATE).unwrap_or(self.not_before);
        let part = self.not_after.duration_since(issued).mul_f64(0.5 + 0.3 * fraction.clamp(0.0, 1.0));
        issued.checked_add(part).unwrap_or(self.not_after)
    }

    /// TLS for what this node serves to other nodes: certificates of the cluster get in, and those who have none yet: they
    /// are answered by the authority only.
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
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = verifier.allow_unauthenticated().build();
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

    /// TLS for connections to managers. A certificate that has ended would be refused: then none is shown.
    pub fn client_tls(&self) -> ClientTlsConfig {
        let tls = trusting(&self.root_pem);
        if self.has_expired(Timestamp::now()) {
            return tls;
        }
        tls.identity(TlsIdentity::from_pem(&self.issued.cert_pem, &self.issued.key_pem))
    }
}

/// TLS for connections to managers of the cluster of `root_pem`, as nobody.
pub fn trusting(root_pem: &str) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root_pem)).domain_name(SERVER_NAME)
}

/// Whether the key in `key_pem` is that of the first certificate in `cert_pem`.
pub(crate) fn is_key_of(key_pem: &str, cert_pem: &str) -> bool {
    let key = rcgen::KeyPair::from_pem(key_pem).map(|key| key.subject_public_key_info());
    let public = ca::public_key(cert_pem);
    matches!((key, public), (Ok(key), Ok(public)) if key == public)
}

fn text<'a>(mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    values.next().and_then(|v| v.as_str().ok())
}

fn cluster(name: &X509Name<'_>) -> Option<ClusterId> {
    text(name.iter_organization())?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
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

    pub fn identity() -> Identity {
        let (ids, now) = (&mut Count(0), Timestamp::from_second(1_800_000_000).unwrap());
        let root = new_root(now).unwrap();
        let subject = Subject { node: NodeId::new(ids), cluster: ClusterId::new(ids), role: NodeRole::Manager };
        let key = rcgen::KeyPair::generate().unwrap();
        let cert_pem = issue(&root, &subject, &key, 90 * 24 * 3600 * 1_000_000_000, now).unwrap();
        Identity::new(Issued { cert_pem, key_pem: key.serialize_pem() }, root.cert_pem).unwrap()
    }

    #[test]
    fn renewal_falls_into_the_second_half_of_a_certificates_life() {
        let identity = identity();
        let days = |t: Timestamp| t.duration_since(identity.not_before).as_hours() / 24;
        assert_eq!((days(identity.renew_at(0.0)), days(identity.renew_at(1.0))), (45, 72));
    }
}
